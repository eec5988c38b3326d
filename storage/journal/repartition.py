"""Another number of partitions, while nothing runs: one transaction, so it is done or not done, whenever it is cut off.

Only what may still be executed moves, and failed commands are among it; receipts of whatever else is final go on naming
the partition that executed it.
"""

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.journal.entry import partition_of
from storage.postgres.arrays import argument
from storage.redis.queue import Queue, connect_redis
from storage.settings import Settings

_CHUNK = 10_000

# Nobody takes a lease, begins a batch, or starts, until this transaction is over.
_LOCK = text("LOCK TABLE partitions, workers IN ACCESS EXCLUSIVE MODE")
_AT_WORK = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'souk %' AND pid <> pg_backend_pid()
""")
_WAITING = text("""
    SELECT id, asset FROM commands WHERE status IN ('accepted', 'scheduled', 'failed') AND id > :after
    ORDER BY id LIMIT :chunk
""")
_MOVE = text("""
    UPDATE commands SET partition = v.partition
    FROM unnest(CAST(:ids AS uuid[]), CAST(CAST(:partitions AS text) AS smallint[])) AS v(id, partition)
    WHERE commands.id = v.id AND commands.partition <> v.partition
""")
# Fences only grow, so that no zombie finds one of its own again.
_FREE = text("""
    UPDATE partitions SET owner = NULL, fence = fence + 1, deaths = 0, trying = NULL, tried_by = '{}'
""")
_ADD = text("""
    INSERT INTO partitions (id, fence)
    SELECT number, (SELECT max(fence) FROM partitions) FROM generate_series(0, :count - 1) AS number
    ON CONFLICT DO NOTHING
""")
_DROP = text("DELETE FROM partitions WHERE id >= :count")


class AtWork(Exception):
    """Processes of the installation are connected: stop every API and worker first."""


async def repartition(engine: AsyncEngine, settings: Settings, count: int) -> tuple[int, int]:
    """Partitions before, and commands moved. `settings` need not name the present number. Raises AtWork."""
    async with engine.begin() as connection:
        await connection.execute(_LOCK)
        if await connection.scalar(_AT_WORK):
            raise AtWork
        before: int = (await connection.execute(text("SELECT count(*) FROM partitions"))).scalar_one()
        moved = await _move(connection, count)
        await connection.execute(_FREE)
        await connection.execute(_ADD, {"count": count})
        await connection.execute(_DROP, {"count": count})
    await _forget_hints(settings, before)
    return before, moved


async def _move(connection: AsyncConnection, count: int) -> int:
    moved, after = 0, "00000000-0000-0000-0000-000000000000"
    while rows := (await connection.execute(_WAITING, {"after": after, "chunk": _CHUNK})).all():
        partitions = argument("smallint[]", [partition_of(row.asset, count) for row in rows])
        done = await connection.execute(_MOVE, {"ids": [row.id for row in rows], "partitions": partitions})
        moved += done.rowcount
        after = rows[-1].id
    return moved


async def _forget_hints(settings: Settings, partitions: int) -> None:
    """Jobs in the old queues; the sweeper enqueues anew what waits."""
    redis = connect_redis(settings)
    try:
        await Queue(redis).empty(range(partitions))
    except (RedisError, OSError):
        pass  # they are hints, and expire
    finally:
        await redis.aclose()
