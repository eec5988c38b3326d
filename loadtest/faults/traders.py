"""Traders: clients that go on whatever happens, and remember what they were told.

They fight over few items, so that what is executed in another order ends otherwise. Whoever gets no answer asks again
with the same key, of another API; a final answer is not always waited for.
"""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from loadtest.faults.history import Operation
from souk_client import Client, Outcome, Problem, Receipt, Submission, Unreachable

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = (0.05, 0.5)
WAIT_SECONDS = 5
PRICES_NANO = (10_000_000, 20_000_000, 30_000_000)
BODY_MAX = 8
SCHEDULED = 0.1
"""The share of commands that are sent to be executed later: soon enough to be overdue when a fault has passed."""
LATER_SECONDS = (0.5, 3.0)
WEIGHTS = {"nft.buy": 45, "nft.set_price": 40, "nft.transfer": 15}


class Refused(Exception):
    """An API said something that no client expects."""


class Traders:
    """Traders over items; `history` is what they did and were told."""

    def __init__(self, urls: Sequence[str], key: str, users: Sequence[int], items: Sequence[int], seed: int) -> None:
        self._clients = [Client(url, key, patience=0) for url in urls]
        self._users = users
        self._items = items
        self._seed = seed
        self._prices: dict[int, int] = {}
        self._owners: dict[int, int] = {}
        self._stopping = False
        self.history: list[Operation] = []
        self.retries = 0
        self.unavailable = 0

    async def run(self, count: int) -> None:
        """Trade until stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(self._trade(random.Random(f"{self._seed} {number}"), number))
        finally:
            for client in self._clients:
                await client.aclose()

    def stop(self) -> None:
        """Finish what was begun, and begin nothing more."""
        self._stopping = True

    async def _trade(self, chance: random.Random, number: int) -> None:
        serial = 0
        while not self._stopping:
            operations = []
            for _ in range(chance.choice((1, chance.randint(2, BODY_MAX)))):
                serial += 1
                operations.append(self._choose(chance, f"{self._seed}-{number}-{serial}"))
            self.history += operations
            await self._submit(operations, chance, wait=chance.choice((True, True, False)))

    def _choose(self, chance: random.Random, key: str) -> Operation:
        nft_id = chance.choice(self._items)
        owner = self._owners.get(nft_id, chance.choice(self._users))
        actor = chance.choice((owner, owner, owner, chance.choice(self._users)))
        payload: dict[str, Any] = {"nft_id": nft_id}
        [kind] = chance.choices(*zip(*WEIGHTS.items(), strict=True))
        match kind:
            case "nft.buy":
                actor = chance.choice(self._users)
                payload["price_nano"] = self._prices.get(nft_id, chance.choice(PRICES_NANO))
            case "nft.set_price":
                payload["price_nano"] = chance.choice((*PRICES_NANO, None))
            case "nft.transfer":
                payload["to_user_id"] = chance.choice(self._users)
        run_at = None
        if chance.random() < SCHEDULED:
            run_at = datetime.now(UTC) + timedelta(seconds=chance.uniform(*LATER_SECONDS))
        return Operation(key, kind, nft_id, actor, payload, monotonic(), run_at=run_at)

    async def _submit(self, operations: Sequence[Operation], chance: random.Random, *, wait: bool) -> None:
        """Until each is acknowledged, or patience ends."""
        left, deadline = list(operations), monotonic() + PATIENCE_SECONDS
        for operation in left:
            operation.sent_at = monotonic()
        while left and monotonic() < deadline:
            outcomes = await self._send(chance.choice(self._clients), left, wait=wait)
            again = []
            for operation, outcome in zip(left, outcomes, strict=True):
                if isinstance(outcome, Receipt):
                    operation.note(outcome.raw, monotonic())
                    self._learn(operation, outcome)
                elif isinstance(outcome, Unreachable) or outcome.passes:
                    self.unavailable += isinstance(outcome, Problem)
                    again.append(operation)
                else:
                    raise Refused(outcome) from outcome
            left = again
            if left:
                self.retries += 1
                await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))

    async def _send(self, client: Client, operations: Sequence[Operation], *, wait: bool) -> Sequence[Outcome]:
        """What one attempt brought each of them."""
        seconds = WAIT_SECONDS if wait else 0
        if len(operations) > 1:
            submissions: list[Submission] = [
                {
                    "kind": one.kind,
                    "actor": one.actor,
                    "payload": one.payload,
                    "idempotency_key": one.key,
                    "run_at": one.run_at,
                }
                for one in operations
            ]
            return await client.submit_many(submissions, wait=seconds)
        [one] = operations
        try:
            receipt = await client.submit(
                one.kind, one.payload, actor=one.actor, idempotency_key=one.key, run_at=one.run_at, wait=seconds
            )
        except (Problem, Unreachable) as error:
            return [error]
        return [receipt]

    def _learn(self, operation: Operation, receipt: Receipt) -> None:
        """What the receipt says of the item; may be old news."""
        if receipt.rejection is not None and receipt.rejection.code == "PRICE_CHANGED":
            self._prices[operation.nft_id] = receipt.rejection.facts["price_nano"]
        if receipt.result is None:
            return
        match operation.kind:
            case "nft.set_price" if receipt.result["price_nano"] is not None:
                self._prices[operation.nft_id] = receipt.result["price_nano"]
                self._owners[operation.nft_id] = operation.actor
            case "nft.buy":
                self._owners[operation.nft_id] = operation.actor
            case "nft.transfer":
                self._owners[operation.nft_id] = receipt.result["owner_id"]
