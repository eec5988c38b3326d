"""A steady load on every partition: one command for each, several times a second, all of which must succeed."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import asyncpg

from loadtest.gifts import gift
from souk_client import Client, Receipt, Submission

USERS = range(1, 201)
"""Enough that nobody reaches the limit of unfinished commands while a partition stands still."""
PRICE_NANO = 10_000_000
ITEMS_A_BODY = 200
BODIES_MAX = 100
"""Bodies of items before a partition without one counts as not to be found."""
PATIENCE_SECONDS = 60.0
_SUCCEEDED = "SELECT count(*) FROM commands WHERE id = ANY($1::uuid[]) AND status = 'succeeded'"


class Refused(Exception):
    """A command that must succeed was refused, or had no outcome in time."""


class Steady:
    """Prices of one item in each partition. `acknowledged` counts all commands so far."""

    def __init__(self, client: Client, interval_seconds: float) -> None:
        self._client = client
        self._interval_seconds = interval_seconds
        self._owners: dict[int, int] = {}
        self._unchecked: list[str] = []
        self._bodies = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._refused: list[object] = []
        self.acknowledged = 0

    @asynccontextmanager
    async def running(self, partitions: int) -> AsyncIterator[None]:
        """Puts an item into each partition, and goes on within the context. Raises Refused."""
        await self._populate(partitions)
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
            await asyncio.gather(*self._sending)

    async def _populate(self, partitions: int) -> None:
        await self._succeed([{"kind": "users.register", "payload": {"user_id": user}} for user in USERS])
        chance, found, number = random.Random(1), set[int](), 0
        for _ in range(BODIES_MAX):
            items = range(number + 1, number + 1 + ITEMS_A_BODY)
            number += ITEMS_A_BODY
            for item, receipt in zip(
                items, await self._succeed([_receive(chance, item) for item in items]), strict=True
            ):
                if receipt.partition not in found:
                    found.add(receipt.partition)
                    self._owners[item] = _owner(item)
            if len(found) == partitions:
                return
        message = f"{number} items are in {len(found)} of {partitions} partitions"
        raise Refused(message)

    async def account(self, connection: "asyncpg.Connection[Any]") -> None:
        """Waits until all that was acknowledged by now has succeeded. Raises Refused."""
        ids, self._unchecked = self._unchecked, []
        deadline = monotonic() + PATIENCE_SECONDS
        while (done := await connection.fetchval(_SUCCEEDED, ids)) < len(ids):
            if monotonic() > deadline:
                message = f"{len(ids) - done} of {len(ids)} acknowledged commands have not succeeded"
                raise Refused(message)
            await asyncio.sleep(0.1)
        if self._refused:
            message = f"{len(self._refused)} commands were refused, the first with {self._refused[0]}"
            raise Refused(message)

    async def _succeed(self, commands: list[Submission]) -> list[Receipt]:
        outcomes = await self._client.submit_many(commands, wait=30)
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt) and outcome.succeeded]
        if len(receipts) < len(commands):
            message = f"setting up did not go through: {next(one for one in outcomes if one not in receipts)}"
            raise Refused(message)
        return receipts

    async def _tick(self) -> None:
        due = monotonic()
        while True:
            task = asyncio.create_task(self._send())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
            due = max(due + self._interval_seconds, monotonic())  # what was missed is not made up for
            await asyncio.sleep(due - monotonic())

    async def _send(self) -> None:
        self._bodies += 1
        price_nano = PRICE_NANO + self._bodies
        commands: list[Submission] = [
            {"kind": "nft.set_price", "actor": owner, "payload": {"nft_id": item, "price_nano": price_nano}}
            for item, owner in self._owners.items()
        ]
        for outcome in await self._client.submit_many(commands):
            if isinstance(outcome, Receipt):
                self._unchecked.append(outcome.id)
                self.acknowledged += 1
            else:
                self._refused.append(outcome)


def _owner(item: int) -> int:
    return USERS[item % len(USERS)]


def _receive(chance: random.Random, item: int) -> Submission:
    return {
        "kind": "nft.receive",
        "payload": {
            "nft_id": item,
            "gift": gift(chance, item, item),
            "sender_id": _owner(item),
            "message_ref": f"steady {item}",
        },
    }
