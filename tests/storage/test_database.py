"""Connections: what they insist on, whatever the database's defaults."""

import asyncio
import gc

import pytest

from storage.postgres.connection import connect
from storage.settings import Settings
from tests.deadline import eventually
from tests.installation import connected


@pytest.mark.parametrize("pinned_plans", [True, False])
async def test_a_commit_is_on_disk_even_where_the_database_is_told_to_be_quick(
    settings: Settings, pinned_plans: bool
) -> None:
    async with connected(settings) as operator:
        name = await operator.fetchval("SELECT current_database()")
        await operator.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    connection = await connect(settings, "test", timeout_seconds=10, pinned_plans=pinned_plans)
    shown = await connection.fetchval("SHOW synchronous_commit")
    await connection.close()
    assert shown == "on"


async def test_a_connection_whose_first_look_is_cancelled_is_closed(settings: Settings) -> None:
    """Else the server keeps it until the collector of garbage comes by, with a warning."""
    seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'souk cut off'"
    gc.disable()
    try:
        async with connected(settings) as operator, connected(settings) as watcher:
            async with operator.transaction():
                await operator.execute("LOCK partitions")
                connecting = asyncio.create_task(connect(settings, "cut off", timeout_seconds=10))

                async def waits() -> bool:
                    return bool(await watcher.fetchval(f"{seen} AND wait_event_type = 'Lock'"))

                async def is_gone() -> bool:
                    return not await watcher.fetchval(seen)

                await eventually(waits)
                connecting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await connecting
            await eventually(is_gone, claim="the connection is still there")
    finally:
        gc.enable()
