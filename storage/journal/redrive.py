"""Commands set aside as failed: what an operator sees of them, and running them again.

A command that is run again keeps its place in the journal. So those of one asset run in the order in which they were
accepted, also when they fail again, and before whatever was accepted after them and still waits. What has been executed
meanwhile stays executed: a failed command never holds up its asset.
"""

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

_LOCK = text("SELECT id FROM commands WHERE status = 'failed' AND (id = ANY(:ids) OR :all_of_them) FOR UPDATE")
# The oldest of those that each would overtake.
_OVERTAKEN = text("""
    SELECT DISTINCT ON (named.id) named.id, named.asset, older.id AS older_id
    FROM commands AS named JOIN commands AS older ON older.asset = named.asset AND older.seq < named.seq
    WHERE named.id = ANY(:ids) AND older.status = 'failed' AND older.id <> ALL(:ids)
    ORDER BY named.id, older.seq
""")
_REDRIVE = text("""
    WITH again AS (
        UPDATE commands SET status = 'accepted', finished_at = NULL, error = NULL WHERE id = ANY(:ids) RETURNING id, seq
    )
    SELECT id FROM again ORDER BY seq
""")


class Refused(Exception):
    """Nothing was run again; the text says why, naming the commands."""


async def failed(engine: AsyncEngine) -> list[dict[str, Any]]:
    """The oldest of them, each with the error that set it aside."""
    async with engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(_FAILED, {"shown_max": SHOWN_MAX})).mappings()]


async def redrive(engine: AsyncEngine, ids: Sequence[UUID], *, all_of_them: bool = False) -> list[UUID]:
    """Accepts failed commands again, and returns which, in their order. Workers find them within a turn of their
    sweeper.

    Raises Refused, and changes nothing, when one of them is not failed, or would overtake an older failed command of
    its asset that is not named too.
    """
    async with engine.begin() as connection:
        found = (await connection.execute(_LOCK, {"ids": list(ids), "all_of_them": all_of_them})).scalars().all()
        if missing := set(ids).difference(found):
            raise Refused(f"not failed, or unknown: {', '.join(sorted(map(str, missing)))}")
        overtaken = (await connection.execute(_OVERTAKEN, {"ids": found})).all()
        if overtaken:
            sentences = (f"{row.id} would overtake {row.older_id}, which failed before it" for row in overtaken)
            raise Refused(f"{'; '.join(sentences)}: name the older ones too, or say --all")
        return list((await connection.execute(_REDRIVE, {"ids": found})).scalars())
