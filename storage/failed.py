"""Commands set aside as failed: what an operator sees of them, and running them again."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

SHOWN_MAX = 1_000

_FAILED = text("""
    SELECT id, kind, asset, partition, actor, accepted_at, finished_at, error
    FROM commands WHERE status = 'failed' ORDER BY seq LIMIT :shown_max
""")

# It comes after all that its asset has accepted by now, but is judged by when it was accepted itself.
_REDRIVE = text("""
    UPDATE commands SET status = 'accepted', seq = nextval(pg_get_serial_sequence('commands', 'seq')),
        finished_at = NULL, error = NULL
    WHERE id IN (SELECT id FROM commands WHERE status = 'failed' AND (id = ANY(:ids) OR :all_of_them) FOR UPDATE)
    RETURNING id
""")


async def failed(engine: AsyncEngine) -> list[dict[str, Any]]:
    """The oldest of them, each with the error that set it aside."""
    async with engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(_FAILED, {"shown_max": SHOWN_MAX})).mappings()]


async def redrive(engine: AsyncEngine, ids: Sequence[UUID], *, all_of_them: bool = False) -> list[UUID]:
    """Accept failed commands again; returns which. Workers find them within a turn of their sweeper."""
    async with engine.begin() as connection:
        rows = await connection.execute(_REDRIVE, {"ids": list(ids), "all_of_them": all_of_them})
        return [row[0] for row in rows]
