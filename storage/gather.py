"""Gathering: what arrives while a flush is under way goes with the next one, so concurrent callers share its cost.
No timer: an idle system flushes a single item at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Gather(Generic[T, R]):
    """Calls `flush` with many items at once, one flush at a time. The flush answers for each item in the same order; an
    answer that is an exception is raised to that item's caller, an exception raised goes to all."""

    def __init__(self, flush: Callable[[list[T]], Awaitable[Sequence[R | Exception]]], items_max: int) -> None:
        self._flush = flush
        self._items_max = items_max
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, item: T) -> asyncio.Future[R]:
        """The future answer. Items added in order are flushed in order."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return future

    def put(self, item: T) -> None:
        """`add`, for who wants no answer."""
        self.add(item).add_done_callback(lambda future: future.cancelled() or future.exception())

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._task is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[: self._items_max], self._waiting[self._items_max :]
                try:
                    answers = await self._flush([item for item, _ in taken])
                except Exception as error:  # noqa: BLE001 - handed to every caller
                    answers = [error] * len(taken)
                for (_, future), answer in zip(taken, answers, strict=True):
                    if future.done():  # the caller has gone
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._task = None
