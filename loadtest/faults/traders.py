"""Traders: clients that go on whatever happens, and remember what they were told.

They fight over few items, so that what is executed in another order ends otherwise. Whoever gets no answer asks again
with the same key, of another API; a final answer is not always waited for.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import httpx

from loadtest.faults.history import Operation

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = (0.05, 0.5)
WAIT_SECONDS = 5
PRICES_NANO = (10_000_000, 20_000_000, 30_000_000)
BODY_MAX = 8
WEIGHTS = {"nft.buy": 45, "nft.set_price": 40, "nft.transfer": 15}
ACCEPTED = frozenset({200, 202})
LATER = frozenset({429, 500, 502, 503, 504})


class Refused(Exception):
    """An API said something that no client expects."""


class Traders:
    """Traders over items; `history` is what they did and were told."""

    def __init__(self, urls: Sequence[str], key: str, users: Sequence[int], items: Sequence[int], seed: int) -> None:
        self._urls = urls
        self._users = users
        self._items = items
        self._seed = seed
        self._client = httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=WAIT_SECONDS + 5)
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
            await self._client.aclose()

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
        return Operation(key, kind, nft_id, actor, payload, monotonic())

    async def _submit(self, operations: Sequence[Operation], chance: random.Random, *, wait: bool) -> None:
        """Until each is acknowledged, or patience ends."""
        left, deadline = list(operations), monotonic() + PATIENCE_SECONDS
        for operation in left:
            operation.sent_at = monotonic()
        while left and monotonic() < deadline:
            answers = await self._post(chance.choice(self._urls), left, wait=wait)
            again = []
            for operation, answer in zip(left, answers, strict=True):
                if answer is None or (answer.get("code") and "status" in answer and answer["status"] in LATER):
                    again.append(operation)
                    continue
                if "id" not in answer:
                    raise Refused(answer)
                operation.note(answer, monotonic())
                self._learn(operation, answer)
            left = again
            if left:
                self.retries += 1
                await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))

    async def _post(
        self, url: str, operations: Sequence[Operation], *, wait: bool
    ) -> Sequence[Mapping[str, Any] | None]:
        """A receipt or a problem for each; None for those without an answer."""
        body = [
            {"kind": one.kind, "actor": one.actor, "payload": one.payload, "idempotency_key": one.key}
            for one in operations
        ]
        headers = {"Prefer": f"wait={WAIT_SECONDS}"} if wait else {}
        try:
            if len(body) == 1:
                response = await self._client.post(f"{url}/v1/commands", json=body[0], headers=headers)
            else:
                response = await self._client.post(f"{url}/v1/commands/batch", json={"commands": body}, headers=headers)
        except (
            httpx.TransportError,
            AttributeError,
        ):  # the latter from anyio, of a socket reset as soon as it is there
            return [None] * len(operations)
        if response.status_code in LATER:
            self.unavailable += 1
            if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                raise Refused(response.text)
            return [None] * len(operations)
        if response.status_code not in ACCEPTED:
            raise Refused(response.text)
        answer = response.json()
        receipts: Sequence[Mapping[str, Any]] = answer.get("receipts", [answer])
        return receipts

    def _learn(self, operation: Operation, receipt: Mapping[str, Any]) -> None:
        """What the receipt says of the item; may be old news."""
        if receipt["status"] == "rejected" and receipt["rejection"]["code"] == "PRICE_CHANGED":
            self._prices[operation.nft_id] = receipt["rejection"]["price_nano"]
        if receipt["status"] != "succeeded":
            return
        match operation.kind:
            case "nft.set_price" if receipt["result"]["price_nano"] is not None:
                self._prices[operation.nft_id] = receipt["result"]["price_nano"]
                self._owners[operation.nft_id] = operation.actor
            case "nft.buy":
                self._owners[operation.nft_id] = operation.actor
            case "nft.transfer":
                self._owners[operation.nft_id] = receipt["result"]["owner_id"]
