"""Waiting for outcomes: subscribe, then read, then wait.

One Redis subscription for the process, fanned out in memory; the outcome itself is always read from the journal.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Self
from uuid import UUID

from storage.journal import Journal, Receipt

_REREAD_SECONDS = 1.0
"""A notice may be lost: whatever is waited for is read this often."""
_REREAD_SECONDS_WITHOUT_NOTICES = 0.1


class Outcomes:
    """Who waits for which command."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: defaultdict[str, list[asyncio.Future[Receipt]]] = defaultdict(list)
        self.notices_work: Callable[[], bool] = lambda: False

    def expect(self, command_id: UUID) -> "Expectation":
        """Subscribe to a command's outcome; from here on it cannot be missed. Use as a context manager."""
        return Expectation(self._waiting, str(command_id))

    def heard(self, _: str, message: str) -> None:
        """A notice: these commands, ids joined by spaces, have their outcome."""
        self._look(command_id for command_id in message.split() if command_id in self._waiting)

    async def run(self) -> None:
        """Read what is waited for from time to time, until cancelled."""
        while True:
            seconds = _REREAD_SECONDS if self.notices_work() else _REREAD_SECONDS_WITHOUT_NOTICES
            await asyncio.sleep(seconds)
            self._look(list(self._waiting))

    def _look(self, command_ids: Iterable[str]) -> None:
        for command_id in command_ids:
            self._journal.look(UUID(command_id)).add_done_callback(self._deliver)

    def _deliver(self, reading: "asyncio.Future[Receipt | None]") -> None:
        if reading.cancelled() or reading.exception() is not None:
            return  # read again soon
        receipt = reading.result()
        if receipt is None or not receipt.is_final:
            return
        for future in self._waiting.get(str(receipt.id), ()):
            if not future.done():
                future.set_result(receipt)


class Expectation:
    """One caller's wait for one command; leaving the context ends the subscription."""

    def __init__(self, waiting: dict[str, list[asyncio.Future[Receipt]]], command_id: str) -> None:
        self._waiting = waiting
        self._command_id = command_id
        self._future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Self:
        self._waiting[self._command_id].append(self._future)
        return self

    def __exit__(self, *_: object) -> None:
        futures = self._waiting[self._command_id]
        futures.remove(self._future)
        if not futures:
            del self._waiting[self._command_id]

    async def final(self, seconds: float) -> Receipt | None:
        """The final receipt if there is one within the time."""
        if not self._future.done():
            await asyncio.wait((self._future,), timeout=seconds)
        return self._future.result() if self._future.done() else None
