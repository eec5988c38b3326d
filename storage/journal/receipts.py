"""Receipts: what the journal tells of a command, from its acceptance on."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from pydantic_core import from_json

from commands.outcome import Status
from storage.postgres.connection import Line, Unavailable, is_weather
from storage.postgres.group_commit import Gather
from storage.settings import Settings

ROWS_MAX = 1_000
_READ_SECONDS = 10.0

_COLUMNS = "id, kind, actor, asset, partition, status, accepted_at, finished_at, result, rejection, fingerprint"

READ = f"SELECT {_COLUMNS} FROM commands WHERE id = ANY($1::uuid[])"  # noqa: S608 - constant

_READ_ARCHIVED = f"""
SELECT {_COLUMNS.removesuffix(", fingerprint")} FROM archived_commands WHERE id = ANY($1::uuid[])
"""  # noqa: S608 - constant

READ_BY_KEY = f"""
SELECT {_COLUMNS}, coalesce(actor, 0) AS scope, idempotency_key
FROM unnest($1::bigint[], $2::text[]) AS wanted(scope, key)
JOIN commands ON coalesce(actor, 0) = wanted.scope AND idempotency_key = wanted.key
"""  # noqa: S608 - constant


class Receipt(NamedTuple):
    """What is known of a command; `replayed` when an earlier submission with the same key made it."""

    id: UUID
    kind: str
    actor: int | None
    asset: str
    partition: int
    status: Status
    accepted_at: datetime | None
    finished_at: datetime | None
    result: str | None
    rejection: str | None
    replayed: bool = False

    @property
    def is_final(self) -> bool:
        return self.status.is_final

    def as_json(self) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "kind": self.kind,
            "actor": self.actor,
            "asset": self.asset,
            "partition": self.partition,
            "status": self.status,
            "accepted_at": self.accepted_at,
            "finished_at": self.finished_at,
            "result": None if self.result is None else from_json(self.result),
            "rejection": None if self.rejection is None else from_json(self.rejection),
            "links": {"self": f"/v1/commands/{self.id}"},
        }


def receipt_of(row: asyncpg.Record, *, replayed: bool = False) -> Receipt:
    """The receipt in a row of the journal's columns."""
    return Receipt._make((*row[:5], Status(row[5]), *row[6:10], replayed))


class Receipts:
    """Reads receipts, on a connection of its own: one SELECT for all that were asked for while the previous one was
    under way."""

    def __init__(self, settings: Settings) -> None:
        self._line = Line(settings, "read", timeout_seconds=_READ_SECONDS, pinned_plans=True)
        self._reads: Gather[UUID, Receipt | None] = Gather(self._read, ROWS_MAX)

    async def close(self) -> None:
        await self._reads.abandon()
        await self._line.close()

    def look(self, command_ids: Sequence[UUID]) -> "asyncio.Future[Sequence[Receipt | None]]":
        """For each id its receipt, or None when there is no such command; raises Unavailable when it is awaited."""
        return self._reads.add(command_ids)

    async def _read(self, ids: list[UUID]) -> Sequence[Receipt | None]:
        deadline = time.monotonic() + _READ_SECONDS
        rows = await fetch(self._line, READ, ids, deadline=deadline)
        missing = set(ids).difference(row["id"] for row in rows)
        if missing:  # there is none, or it has gone to the archive, from where none comes back
            rows += await fetch(self._line, _READ_ARCHIVED, list(missing), deadline=deadline)
        found = {row["id"]: receipt_of(row) for row in rows}
        return [found.get(command_id) for command_id in ids]


async def fetch(line: Line, statement: str, *arguments: Any, deadline: float) -> list[asyncpg.Record]:
    """A statement that is safe to repeat: in bad weather it is, until the deadline (monotonic seconds). Raises
    Unavailable."""
    pause = 0.02
    while True:
        try:
            return await (await line.connected()).fetch(statement, *arguments)
        except Exception as error:
            if not is_weather(error):
                raise
            line.doubt(error)
            if time.monotonic() + pause > deadline:
                raise Unavailable(str(error)) from error
        await asyncio.sleep(pause)
        pause *= 2
