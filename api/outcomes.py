"""Waiting for outcomes: subscribe, then read, then wait.

One Redis subscription for the process, fanned out in memory; the outcome itself is always read from the journal.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Self
from uuid import UUID

from storage.journal.accept import Journal
from storage.journal.receipts import Receipt

_REREAD_SECONDS = 1.0
"""A notice may be lost: whatever is waited for is read this often."""
_REREAD_SECONDS_WITHOUT_NOTICES = 0.1


class Expectation:
    """One caller's wait for some commands; leaving the context ends the subscription. `final` is what has come."""

    def __init__(self, waiting: "dict[str, list[Expectation]]", command_ids: Collection[UUID]) -> None:
        self._waiting = waiting
        self._missing = {str(command_id) for command_id in command_ids}
        self._complete = asyncio.Event()
        self._subscribed = tuple(self._missing)
        self.final: dict[UUID, Receipt] = {}

    def __enter__(self) -> Self:
        for command_id in self._subscribed:
            self._waiting[command_id].append(self)
        return self

    def __exit__(self, *_: object) -> None:
        for command_id in self._subscribed:
            expectations = self._waiting[command_id]
            expectations.remove(self)
            if not expectations:
                del self._waiting[command_id]

    def deliver(self, receipt: Receipt) -> None:
        """A final receipt, from the journal."""
        self.final[receipt.id] = receipt
        self._missing.discard(str(receipt.id))
        if not self._missing:
            self._complete.set()

    def forget(self, command_id: UUID) -> None:
        """The command was not accepted, so nothing will come of it."""
        self._missing.discard(str(command_id))
        if not self._missing:
            self._complete.set()

    def give_up(self) -> None:
        """Wait no longer than now."""
        self._complete.set()

    async def wait(self, seconds: float | None) -> dict[UUID, Receipt]:
        """The final receipts that come within the time; None waits until all have come or a drain."""
        try:
            async with asyncio.timeout(seconds):
                await self._complete.wait()
        except TimeoutError:
            pass
        return self.final


class Outcomes:
    """Who waits for which command."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: defaultdict[str, list[Expectation]] = defaultdict(list)
        self.draining = False
        self.notices_work: Callable[[], bool] = lambda: False

    def expect(self, command_ids: Collection[UUID]) -> Expectation:
        """Subscribe to the commands' outcomes; from here on they cannot be missed. Use as a context manager."""
        expectation = Expectation(self._waiting, command_ids)
        if self.draining:
            expectation.give_up()
        return expectation

    def drain(self) -> None:
        """The process is about to end: whoever waits, now or later, gets at once what is known."""
        self.draining = True
        for expectations in self._waiting.values():
            for expectation in expectations:
                expectation.give_up()

    def heard(self, message: str) -> None:
        """A notice: these commands, ids joined by spaces, have their outcome."""
        self._look([UUID(command_id) for command_id in message.split() if command_id in self._waiting])

    async def run(self) -> None:
        """Read what is waited for from time to time, until cancelled."""
        while True:
            seconds = _REREAD_SECONDS if self.notices_work() else _REREAD_SECONDS_WITHOUT_NOTICES
            await asyncio.sleep(seconds)
            looking = self._look([UUID(command_id) for command_id in self._waiting])
            if looking is not None:  # a slow database is not asked again before it has answered
                await asyncio.wait([looking])

    def _look(self, command_ids: list[UUID]) -> "asyncio.Future[Sequence[Receipt | None]] | None":
        if not command_ids:
            return None
        looking = self._journal.look(command_ids)
        looking.add_done_callback(self._deliver)
        return looking

    def _deliver(self, reading: "asyncio.Future[Sequence[Receipt | None]]") -> None:
        if reading.cancelled() or reading.exception() is not None:
            return  # read again soon
        for receipt in reading.result():
            if receipt is not None and receipt.is_final:
                for expectation in self._waiting.get(str(receipt.id), ()):
                    expectation.deliver(receipt)
