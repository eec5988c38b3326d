"""Connections: what they insist on, whatever the database's defaults."""

import pytest

from storage.database import connect
from storage.settings import Settings
from tests.installation import connected


@pytest.mark.parametrize("pinned_plans", [True, False])
async def test_a_commit_is_on_disk_even_where_the_database_is_told_to_be_quick(
    settings: Settings, pinned_plans: bool
) -> None:
    async with connected(settings) as operator:
        name = await operator.fetchval("SELECT current_database()")
        await operator.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    connection = await connect(settings, "test", timeout_seconds=10, pinned_plans=pinned_plans)
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    await connection.close()
