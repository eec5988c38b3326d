"""The audit holds on a marketplace that traded, and each invariant names by id what breaks it in a copy."""

import json
import subprocess
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.audit import INVARIANTS, audit, examine
from storage.postgres.connection import engine
from storage.settings import Settings
from tests.installation import Installer, as_environment, connected
from tests.system.audit.bazaar import CAROL, HELD, Names
from tests.system.audit.corruption import Corruption
from tests.system.audit.damage_to_documents import DAMAGE_TO_DOCUMENTS
from tests.system.audit.damage_to_items import DAMAGE_TO_ITEMS
from tests.system.audit.damage_to_money import DAMAGE_TO_MONEY
from tests.system.upstack import souk

CORRUPTIONS = [*DAMAGE_TO_MONEY, *DAMAGE_TO_ITEMS, *DAMAGE_TO_DOCUMENTS]

_UNPROTECTED = """
DO $$
DECLARE given record;
BEGIN
    FOR given IN SELECT conrelid::regclass AS of, conname AS name FROM pg_constraint
        WHERE contype IN ('c', 'f', 'p', 'u') AND connamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', given.of, given.name);
    END LOOP;
    FOR given IN SELECT indexrelid::regclass AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indisunique AND relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('DROP INDEX %s', given.name);
    END LOOP;
    FOR given IN SELECT DISTINCT tgrelid::regclass AS of FROM pg_trigger WHERE NOT tgisinternal
    LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', given.of);
    END LOOP;
END $$
"""
"""Takes away what the database itself would refuse."""


@pytest.fixture(scope="module")
async def fragile(installer: Installer, market: tuple[Settings, Names]) -> Settings:
    """A copy of the marketplace that takes any damage."""
    copy = await installer.copy(market[0])
    async with connected(copy) as connection:
        await connection.execute(_UNPROTECTED)
    return copy


@pytest.fixture(scope="module")
async def pool(fragile: Settings) -> AsyncIterator[AsyncEngine]:
    pool = engine(fragile)
    yield pool
    await pool.dispose()


async def test_the_audit_holds_on_a_marketplace_with_every_document(market: tuple[Settings, Names]) -> None:
    settings, _ = market
    pool = engine(settings)
    findings = await audit(pool, settings)
    await pool.dispose()
    assert {finding.name: finding.broken for finding in findings} == {one.name: [] for one in INVARIANTS}
    assert all(finding.figure > 0 for finding in findings), "an invariant has nothing to hold for"


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda one: f"{one.invariant} {one.name}")
async def test_an_invariant_names_what_breaks_it(
    pool: AsyncEngine, market: tuple[Settings, Names], corruption: Corruption
) -> None:
    settings, names = market
    async with pool.connect() as connection:
        for statement in corruption.damage.format_map(names).split(";"):
            damaged = await connection.execute(text(statement))
            assert damaged.rowcount > 0, "nothing was damaged"
        findings = {finding.name: finding.broken for finding in await examine(connection, settings)}
        await connection.rollback()
    assert corruption.found.format_map(names) in findings[corruption.invariant]


def test_every_invariant_has_a_corruption_that_it_catches() -> None:
    assert {corruption.invariant for corruption in CORRUPTIONS} == {invariant.name for invariant in INVARIANTS}


async def test_the_command_line_says_which_invariant_is_broken_and_by_what(
    installer: Installer, market: tuple[Settings, Names], fragile: Settings, pool: AsyncEngine
) -> None:
    def run(settings: Settings) -> subprocess.CompletedProcess[str]:
        return souk("audit", **as_environment(settings))

    whole = run(market[0])
    assert (whole.returncode, whole.stderr) == (0, "")
    told = {finding["name"]: finding["broken"] for finding in json.loads(whole.stdout)}
    assert told == {invariant.name: [] for invariant in INVARIANTS}
    await pool.dispose()
    damaged = await installer.copy(fragile)
    async with connected(damaged) as connection:
        await connection.execute(f"UPDATE nfts SET owner_id = {CAROL} WHERE id = {HELD}")
    broken = run(damaged)
    assert broken.returncode == 1
    told = {finding["name"]: finding["broken"] for finding in json.loads(broken.stdout) if finding["broken"]}
    assert told == {"V27": [str(HELD)]}
