"""The client for programs without asyncio: each method runs that of Client on an event loop in a thread."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from threading import Event as Flag
from threading import Thread
from typing import Any, Self, TypeVar
from uuid import UUID

from souk_client.answers import Event, Receipt
from souk_client.client import Client, Outcome, Submission

T = TypeVar("T")


class SyncClient:
    """Speaks to the API at `url`, like "http://127.0.0.1:8000", with the API key `key`; `with` closes it.

    It may be shared by threads. `patience` is for how many seconds a request is sent again that gets no answer or is
    refused for now: by default 60, but 2 until a connection was made for the first time.

    Raises ValueError for an address or a key that cannot be one. Methods raise Problem when the API refuses a request,
    Unreachable when no answer comes, and NoConnection, an Unreachable, when no connection can be made.
    """

    def __init__(self, url: str, key: str, *, patience: float | None = None) -> None:
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
        """Closes all connections."""
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
        idempotency_key: str | None = None,
        wait: float = 0.0,
        run_at: datetime | str | None = None,
        not_after: datetime | str | None = None,
        **fields: Any,
    ) -> Receipt:
        """Submits a command and waits up to `wait` seconds for its outcome.

        The payload is a mapping, keyword arguments, or both; a field named like an option goes into the mapping.
        `actor` is the user in whose name it is sent. A command that was sent with the same `idempotency_key` before
        does not happen again; its receipt is returned. `run_at` is when to execute it, and `not_after` when it expires
        if it was not executed: aware datetimes, or texts like "2030-01-01T00:00:00Z".

        A rejection by the rules is an outcome and is not raised; see Receipt.raise_for_outcome. Raises Problem or
        Unreachable only as long as the command is not known to be accepted, and TypeError for a field given twice.
        """
        return self._run(
            self._client.submit(
                kind,
                payload,
                actor=actor,
                idempotency_key=idempotency_key,
                wait=wait,
                run_at=run_at,
                not_after=not_after,
                **fields,
            )
        )

    def submit_many(
        self, commands: Iterable[Submission], *, actor: int | None = None, wait: float = 0.0
    ) -> list[Outcome]:
        """Submits commands in order, up to 1,000 in a request, and returns what came of each in its place.

        `actor` is that of the commands that name none. After each request, up to `wait` seconds are spent on its
        outcomes before the next one is sent. No SoukError is raised: a command that was refused has a Problem in its
        place, one that got no answer an Unreachable, and neither harms the others.
        """
        return self._run(self._client.submit_many(commands, actor=actor, wait=wait))

    def wait(self, command: Receipt | UUID | str, seconds: float) -> Receipt:
        """Returns the receipt of a command, given by its id or a receipt; final if it becomes so within `seconds`.

        Raises Problem, say 404 `not_found`, and Unreachable.
        """
        return self._run(self._client.wait(command, seconds))

    def get(self, command_id: UUID | str) -> Receipt:
        """Returns the receipt of a command as it is now. Raises Problem, say 404 `not_found`, and Unreachable."""
        return self._run(self._client.get(command_id))

    def cancel(self, command_id: UUID | str) -> Receipt:
        """Cancels a command unless it is final already, and returns its receipt: its `status` tells which.

        Raises Problem, say 404 `not_found`, and Unreachable.
        """
        return self._run(self._client.cancel(command_id))

    def commands(self, **filters: Any) -> Iterator[Receipt]:
        """Yields the receipts of one's own commands, newest first.

        Filters are `status`, `kind`, `asset` and `actor`. Raises Problem for a filter that is none, and Unreachable.
        """
        return self._each(self._client.commands(**filters))

    def stream(self, command_id: UUID | str) -> Iterator[Receipt]:
        """Yields the receipts of a command, one for each change; the last one is final. Reconnects by itself.

        Raises Problem, say 404 `not_found`, and Unreachable when no connection can be had until patience is over.
        """
        return self._each(self._client.stream(command_id))

    def events(self, *topics: str, after: str | None = None) -> Iterator[Event]:
        """Yields the events of topics like "market" and "nft:17", each once and in order, without end.

        They begin now, or after the event whose id is `after`. Reconnects by itself, without a gap. Raises Problem, say
        for a topic that is none, and Unreachable when no connection can be had until patience is over.
        """
        return self._each(self._client.events(*topics, after=after))

    def read(self, path: str, **params: Any) -> Any:
        """Returns the JSON of any read, like `read("/v1/listings", limit=5)`; parameters that are None are left out.

        Raises Problem and Unreachable.
        """
        return self._run(self._client.read(path, **params))

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        """Yields the items of a list like "/v1/listings", page after page, 100 at a time unless `limit` says otherwise.

        Raises Problem and Unreachable.
        """
        return self._each(self._client.pages(path, **params))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns or raises what the work does. An interrupt is raised when the work, cancelled, has ended."""
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


async def _made(url: str, key: str, patience: float | None) -> Client:
    return Client(url, key, patience=patience)


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)
