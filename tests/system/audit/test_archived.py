"""The audit of a marketplace whose finished commands have left the journal."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.audit import INVARIANTS, Finding, audit, examine
from storage.journal.retire import retire_commands
from storage.postgres.connection import engine
from storage.settings import Settings
from tests.installation import Installer, connected
from tests.system.audit.bazaar import Names

WHOLE: dict[str, list[str]] = {invariant.name: [] for invariant in INVARIANTS}


async def retired(installer: Installer, market: tuple[Settings, Names], *, archive: bool) -> AsyncEngine:
    """A copy in which everything that has finished was let go, as if long ago."""
    copy = await installer.copy(market[0])
    from_tomorrow = copy.model_copy(update={"keep_commands_days": -1, "archive_commands": archive})
    async with connected(copy) as connection:
        before = await connection.fetchval("SELECT count(*) FROM commands")
        step = await retire_commands(connection, from_tomorrow)
        left = await connection.fetchval("SELECT count(*) FROM commands")
    assert before - left == step.changed > 50
    return engine(copy)


@pytest.fixture(scope="module")
async def archived(installer: Installer, market: tuple[Settings, Names]) -> AsyncIterator[AsyncEngine]:
    pool = await retired(installer, market, archive=True)
    yield pool
    await pool.dispose()


@pytest.fixture(scope="module")
async def deleted(installer: Installer, market: tuple[Settings, Names]) -> AsyncIterator[AsyncEngine]:
    pool = await retired(installer, market, archive=False)
    yield pool
    await pool.dispose()


def broken(findings: list[Finding]) -> dict[str, list[str]]:
    return {finding.name: finding.broken for finding in findings}


async def after(connection: AsyncConnection, settings: Settings, damage: str) -> dict[str, list[str]]:
    """What is found after the damage, which is then undone."""
    assert (await connection.execute(text(damage))).rowcount > 0, "nothing was damaged"
    findings = broken(await examine(connection, settings))
    await connection.rollback()
    return findings


async def test_it_finds_the_same_when_commands_are_archived(
    archived: AsyncEngine, market: tuple[Settings, Names]
) -> None:
    pool = engine(market[0])
    before = await audit(pool, market[0])
    await pool.dispose()
    assert await audit(archived, market[0]) == before
    assert broken(before) == WHOLE


async def test_it_holds_when_commands_are_deleted(deleted: AsyncEngine, market: tuple[Settings, Names]) -> None:
    assert broken(await audit(deleted, market[0])) == WHOLE


async def test_it_misses_a_command_that_the_archive_has_lost(
    archived: AsyncEngine, market: tuple[Settings, Names]
) -> None:
    async with archived.connect() as connection:
        deal = await connection.scalar(text("SELECT id FROM deals WHERE source = 'sale' LIMIT 1"))
        findings = await after(connection, market[0], f"DELETE FROM archived_commands WHERE id = '{deal}'")
        assert str(deal) in findings["V7"]
        assert str(deal) in findings["V28"]
        findings = await after(connection, market[0], "DELETE FROM archived_commands WHERE kind = 'nft.transfer'")
        assert findings["V27"]
        findings = await after(connection, market[0], "DELETE FROM archived_commands WHERE kind = 'auctions.settle'")
        assert findings["V19"]


async def test_where_commands_are_deleted_it_misses_those_that_could_not_be(
    deleted: AsyncEngine, market: tuple[Settings, Names]
) -> None:
    """Later than all that was deleted, and of a deal that has its command no more."""
    async with deleted.connect() as connection:
        deal = await connection.scalar(text("SELECT id FROM deals WHERE source = 'sale' LIMIT 1"))
        later = "ffffffff-0000-7000-8000-000000000000"
        findings = await after(connection, market[0], f"UPDATE deals SET id = '{later}' WHERE id = '{deal}'")
        assert later in findings["V7"]
        assert later in findings["V28"]
