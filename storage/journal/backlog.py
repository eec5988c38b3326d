"""What waits for execution, partition by partition."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

_BACKLOG = text("""
    SELECT id AS partition, depth,
        coalesce(round(extract(epoch FROM clock_timestamp() - oldest), 3), 0)::float AS oldest_seconds, owner, fence
    FROM partitions CROSS JOIN LATERAL (
        SELECT count(*) AS depth, min(accepted_at) AS oldest FROM commands
        WHERE commands.partition = partitions.id AND status = 'accepted'
    ) AS waiting ORDER BY id
""")


async def backlog(engine: AsyncEngine) -> list[dict[str, Any]]:
    """For each partition: depth, age of the oldest command in seconds, owner, fence."""
    async with engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(_BACKLOG)).mappings()]
