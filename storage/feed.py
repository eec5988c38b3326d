"""The feed: the events of all commands, read in an order in which none can appear late.

Sequence numbers become visible out of order: a transaction that took a lower one may commit later. So events are read
in the order of (transaction id, event id), and only those of transactions older than every one that is still under
way: below `pg_snapshot_xmin` of the statement that reads. Whatever commits later comes after all that was readable.

A cursor is always the place of an event that was read or looked past, whose transaction is thus durable: ids of
transactions that wrote nothing may be given out again after a crash of the server, its never.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, Self
from uuid import UUID

import asyncpg
from pydantic_core import from_json

from commands.command import BIGINT_MAX
from storage.postgres.connection import Connection

SCAN_MAX = 20_000
"""Rows that one reading looks at; topics have no index, so that the workers, who write, need not keep one."""

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})")

_XMIN = "pg_snapshot_xmin(pg_current_snapshot())"
_AFTER = f"FROM events WHERE (txid, id) > ($1::text::xid8, $2::bigint) AND txid < {_XMIN} ORDER BY txid, id"
_LAST = f"(SELECT txid || '-' || id FROM events WHERE txid < {_XMIN} ORDER BY txid DESC, id DESC LIMIT 1)"  # noqa: S608 - constant

# `seen` is the last of the rows looked at, when there were as many as one may look at and too few were found.
_READ = """
WITH found AS MATERIALIZED (
    SELECT * FROM (SELECT * {after} LIMIT {scan_max}) AS looked_at
    WHERE $3::text[] IS NULL OR topics && $3::text[]
    LIMIT $4
)
SELECT bounds.*, found.txid::text, found.id, command_id, name, topics, fields, at
FROM (
    SELECT
        {last} AS last,
        CASE WHEN (SELECT count(*) FROM found) < $4
            THEN (SELECT txid || '-' || id {after} OFFSET {scan_max} - 1 LIMIT 1) END AS seen,
        EXISTS (SELECT FROM events WHERE txid >= {xmin}) AS pending
) AS bounds
LEFT JOIN found ON true
ORDER BY found.txid, found.id
"""
_END = f"SELECT {_LAST}, pg_snapshot_xmax(pg_current_snapshot())::text"


class Cursor(NamedTuple):
    """A place in the feed: everything up to this event. The least one, `Cursor(0, 0)`, is before all of them."""

    txid: int
    id: int

    def __str__(self) -> str:
        return f"{self.txid}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        match = _CURSOR.fullmatch(text)
        cursor = cls(int(match[1]), int(match[2])) if match else None
        if cursor is None or max(cursor) > BIGINT_MAX:
            raise ValueError("not a cursor of the events")
        return cursor


class StoredEvent(NamedTuple):
    """An event as it is in the table; `fields` is JSON, `command_id` None when no command made it."""

    cursor: Cursor
    command_id: UUID | None
    name: str
    topics: tuple[str, ...]
    fields: str
    at: datetime

    def as_json(self) -> dict[str, Any]:
        return {
            "id": str(self.cursor),
            "name": self.name,
            "command_id": self.command_id and str(self.command_id),
            "topics": list(self.topics),
            "at": self.at,
            "fields": from_json(self.fields),
        }


class Reading(NamedTuple):
    """What was found, how far was looked, whether more is readable after that, and whether there are committed events
    that are not readable yet because an older transaction is under way."""

    events: list[StoredEvent]
    reached: Cursor
    more: bool
    pending: bool


class End(NamedTuple):
    """The place of the last readable event, and the transaction id that will be the next one."""

    cursor: Cursor
    next_txid: int


async def read_events(
    connection: Connection, after: Cursor, topics: Sequence[str] | None, limit: int, *, scan_max: int = SCAN_MAX
) -> Reading:
    """The next events of any of the topics (of all when None) after the cursor, in order. One statement, bounded by
    the rows it looks at: a reading may find nothing, and yet have moved on."""
    wanted = None if topics is None else list(topics)
    rows = await connection.fetch(_statement(scan_max), str(after.txid), after.id, wanted, limit)
    last, seen, pending, first, *_ = rows[0]
    events = [] if first is None else [_event(row) for row in rows]
    end = max(after, _cursor(last))
    reached = end if seen is None else _cursor(seen)
    if len(events) == limit:
        reached = events[-1].cursor
    return Reading(events, reached, reached < end, pending)


async def read_end(connection: Connection) -> End:
    """Where the feed ends now."""
    row = await connection.fetchrow(_END)
    assert row is not None  # noqa: S101 - a SELECT without FROM
    return End(_cursor(row[0]), int(row[1]))


@lru_cache
def _statement(scan_max: int) -> str:
    return _READ.format(after=_AFTER, last=_LAST, xmin=_XMIN, scan_max=int(scan_max))


def _cursor(text: str | None) -> Cursor:
    return Cursor(0, 0) if text is None else Cursor.parse(text)


def _event(row: asyncpg.Record) -> StoredEvent:
    _, _, _, txid, id_, command_id, name, topics, fields, at = row
    return StoredEvent(Cursor(int(txid), id_), command_id, name, tuple(topics), fields, at)
