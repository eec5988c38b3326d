"""What the clients of a run did and were told, and what the tables say of it afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
from pydantic_core import from_json

from loadtest.faults.writers import Writing, writing

FINAL = frozenset({"succeeded", "rejected", "failed", "cancelled", "expired"})


@dataclass(slots=True)
class Operation:
    """One submission from its first attempt on. Times are the client's, monotonic seconds."""

    key: str
    kind: str
    nft_id: int
    actor: int
    payload: Mapping[str, Any]
    sent_at: float
    acknowledged_at: float | None = None
    id: str | None = None
    run_at: datetime | None = None
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    """Status and rejection code of each receipt that was read, in order."""

    @property
    def was_scheduled(self) -> bool:
        """Whether it was told to be waiting for its time; one whose time has come by then may have waited or not."""
        return bool(self.seen) and self.seen[0][0] == "scheduled"

    def note(self, receipt: Mapping[str, Any], at: float) -> None:
        if self.acknowledged_at is None:
            self.acknowledged_at = at
            self.id = receipt["id"]
        rejection = receipt["rejection"]
        self.seen.append((receipt["status"], rejection and rejection["code"]))


class Row(NamedTuple):
    """A command as the journal has it, with the effects that name it."""

    id: str
    seq: int
    key: str
    kind: str
    nft_id: int
    actor: int
    payload: Mapping[str, Any]
    status: str
    code: str | None
    finished_at: datetime | None
    deals: int
    postings: int
    run_at: datetime | None = None
    error: str | None = None


class Item(NamedTuple):
    owner_id: int
    price_nano: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """`rows` in the order in which they were executed; `before` are the items as the run found them, `after` as it left
    them; `writing` is who wrote what.

    What two APIs accept at the same time may be committed, and so executed, in another order than that of its numbers
    in the journal. Batches of a partition come one after another, and `finished_at` is the time of the batch.
    """

    rows: Sequence[Row]
    before: Mapping[int, Item]
    after: Mapping[int, Item]
    writing: Writing


_ROWS = """
SELECT id::text, seq, idempotency_key, kind, (payload->>'nft_id')::bigint AS nft_id, actor, payload::text, status,
    rejection->>'code', finished_at,
    (SELECT count(*) FROM deals WHERE deals.id = commands.id) AS deals,
    coalesce(posted.count, 0) AS postings, run_at, error
FROM commands
LEFT JOIN (SELECT command_id, count(*) AS count FROM postings GROUP BY command_id) AS posted ON posted.command_id = id
WHERE asset = ANY($1::text[]) AND kind IN ('nft.set_price', 'nft.buy', 'nft.transfer')
ORDER BY finished_at, seq
"""
_ITEMS = "SELECT id, owner_id, price_nano FROM nfts WHERE id = ANY($1::bigint[])"


async def items(connection: "asyncpg.Connection[Any]", nft_ids: Sequence[int]) -> dict[int, Item]:
    return {row[0]: Item(row[1], row[2]) for row in await connection.fetch(_ITEMS, nft_ids)}


async def facts(connection: "asyncpg.Connection[Any]", before: Mapping[int, Item]) -> Facts:
    """What the tables say of the items that were traded."""
    assets = [f"nft:{nft_id}" for nft_id in before]
    rows = [Row._make((*row[:6], from_json(row[6]), *row[7:])) for row in await connection.fetch(_ROWS, assets)]
    return Facts(rows, before, await items(connection, list(before)), await writing(connection))
