"""The client for programs without asyncio: the same methods, each run by the one on an event loop in a thread."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from threading import Event as Flag
from threading import Thread
from typing import Any, Self, TypeVar
from uuid import UUID

from api.client.answers import Event, Receipt
from api.client.client import Client, Outcome, Submission

T = TypeVar("T")


class SyncClient:
    """See Client. `with` closes its connections."""

    def __init__(self, url: str, key: str, *, patience: float = 60.0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="souk client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(_made(url, key, patience))
        except ValueError:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._run(self._client.aclose())
        self._run(self._loop.shutdown_asyncgens())
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(
        self,
        kind: str,
        payload: Mapping[str, Any] | None = None,
        *,
        actor: int | None = None,
        key: str | None = None,
        wait: float = 0.0,
        run_at: datetime | str | None = None,
        not_after: datetime | str | None = None,
        **fields: Any,
    ) -> Receipt:
        return self._run(
            self._client.submit(
                kind, payload, actor=actor, key=key, wait=wait, run_at=run_at, not_after=not_after, **fields
            )
        )

    def submit_many(
        self, commands: Iterable[Submission], *, actor: int | None = None, wait: float = 0.0
    ) -> list[Outcome]:
        return self._run(self._client.submit_many(commands, actor=actor, wait=wait))

    def wait(self, command: Receipt | UUID | str, seconds: float) -> Receipt:
        return self._run(self._client.wait(command, seconds))

    def get(self, command_id: UUID | str) -> Receipt:
        return self._run(self._client.get(command_id))

    def cancel(self, command_id: UUID | str) -> Receipt:
        return self._run(self._client.cancel(command_id))

    def commands(self, **filters: Any) -> Iterator[Receipt]:
        return self._each(self._client.commands(**filters))

    def stream(self, command_id: UUID | str) -> Iterator[Receipt]:
        return self._each(self._client.stream(command_id))

    def events(self, *topics: str, after: str | None = None) -> Iterator[Event]:
        return self._each(self._client.events(*topics, after=after))

    def read(self, path: str, **params: Any) -> Any:
        return self._run(self._client.read(path, **params))

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        return self._each(self._client.pages(path, **params))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns or raises; interrupted here, it has ended there before that is raised."""
        tasks: list[asyncio.Task[T]] = []
        ended = Flag()

        def start() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda _: ended.set())

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            else:  # interrupted before it could begin
                work.close()
                ended.set()

        try:
            self._loop.call_soon_threadsafe(start)
            ended.wait()
        except BaseException:  # a KeyboardInterrupt
            self._loop.call_soon_threadsafe(cancel)
            ended.wait()
            raise
        return tasks[0].result()

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        assert isinstance(items, AsyncGenerator)  # noqa: S101 - all of ours are
        try:
            while True:
                try:
                    item = self._run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if not self._loop.is_closed():  # as it may be to the collector of what an interrupt left
                self._run(items.aclose())


async def _made(url: str, key: str, patience: float) -> Client:
    return Client(url, key, patience=patience)


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)
