"""Gathering: what arrives while a flush is under way goes with the next one, so concurrent callers share its cost.
No timer: an idle system flushes at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from storage.tasks import end

T = TypeVar("T")
R = TypeVar("R")


class Gather(Generic[T, R]):
    """Calls `flush` with the items of many callers at once, one flush at a time; it answers for each item, in order.
    What it raises goes to every caller of that flush."""

    def __init__(self, flush: Callable[[list[T]], Awaitable[Sequence[R]]], items_max: int) -> None:
        self._flush = flush
        self._items_max = items_max
        self._waiting: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, items: Sequence[T]) -> "asyncio.Future[Sequence[R]]":
        """The future answers. Items are flushed in the order in which they were added."""
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return future

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._task is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.shield(self._task)

    async def abandon(self) -> None:
        """End what is under way: nobody waits for it any more."""
        if self._task is not None:
            await end([self._task])
            self._task = None

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken = self._take()
                try:
                    answers = await self._flush([item for items, _ in taken for item in items])
                except Exception as error:  # noqa: BLE001 - handed to every caller
                    for _, future in taken:
                        if not future.done():
                            future.set_exception(error)
                    continue
                start = 0
                for items, future in taken:
                    if not future.done():  # else the caller has gone
                        future.set_result(answers[start : start + len(items)])
                    start += len(items)
        finally:
            self._task = None

    def _take(self) -> list[tuple[Sequence[T], "asyncio.Future[Sequence[R]]"]]:
        """The callers whose items fit into one flush, one at least."""
        size = count = 0
        for items, _ in self._waiting:
            if count and size + len(items) > self._items_max:
                break
            size += len(items)
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken
