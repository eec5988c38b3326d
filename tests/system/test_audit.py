"""The audit: it holds on a marketplace that traded, and each invariant names by id what breaks it in a copy."""

import subprocess
from typing import NamedTuple

import pytest

from storage.audit import INVARIANTS, audit
from storage.database import engine
from storage.settings import Settings
from tests.api.api import running
from tests.installation import Installer, as_environment, connected
from tests.market import TON, buy, deposit, fund, receive, register, set_price, transfer
from tests.system.upstack import souk

ALICE, BOB, CAROL = 1, 2, 3
SOLD, GIVEN, LISTED, HELD = 10, 20, 30, 40
ELSEWHERE = "00000000-0000-7000-8000-000000000000"


class Corruption(NamedTuple):
    """What is done to a copy, and the id (or a query for it) by which the invariant must name it."""

    invariant: str
    name: str
    damage: str
    broken: str


DEAL = f"SELECT deal_id FROM deal_items WHERE nft_id = {SOLD}"
REFUSED = "SELECT id FROM commands WHERE status = 'rejected'"
REGISTERED = "SELECT id FROM commands WHERE kind = 'users.register' ORDER BY seq LIMIT 1"
CORRUPTIONS = [
    Corruption(
        "V1", "money from nowhere", f"UPDATE accounts SET available_nano = available_nano + 1 WHERE id = {BOB}", "'1'"
    ),
    Corruption(
        "V2",
        "a balance without a posting",
        f"UPDATE accounts SET available_nano = available_nano + 7 WHERE id = {BOB};"
        f"UPDATE accounts SET available_nano = available_nano - 7 WHERE id = {ALICE}",
        f"'{BOB} available'",
    ),
    Corruption(
        "V2",
        "a posting lost",
        f"DELETE FROM postings WHERE credit_account = {ALICE} AND document_kind = 'deal'",
        f"'{ALICE} available'",
    ),
    Corruption(
        "V2",
        "an account lost",
        f"DELETE FROM accounts WHERE id = {CAROL};"
        f"UPDATE postings SET debit_account = {CAROL} WHERE document_kind = 'deal'",
        f"'{CAROL} available'",
    ),
    Corruption("V3", "a debt", f"UPDATE accounts SET available_nano = -1 WHERE id = {CAROL}", f"'{CAROL}'"),
    Corruption("V3", "fees owed", "UPDATE accounts SET available_nano = -1 WHERE id = -1", "'-1'"),
    Corruption(
        "V4",
        "held for nothing",
        f"UPDATE accounts SET held_nano = 5, available_nano = available_nano - 5 WHERE id = {BOB}",
        f"'{BOB}'",
    ),
    Corruption(
        "V7",
        "an effect of a refused command",
        f"UPDATE events SET command_id = ({REFUSED}) WHERE name = 'nft.transferred'",
        REFUSED,
    ),
    Corruption(
        "V7",
        "an effect of no command",
        f"UPDATE postings SET command_id = '{ELSEWHERE}' WHERE document_kind = 'deal'",
        f"'{ELSEWHERE}'",
    ),
    Corruption("V8", "a fee too high", "UPDATE deals SET fee_nano = fee_nano + 1, seller_nano = seller_nano - 1", DEAL),
    Corruption("V8", "a price that is not its parts", "UPDATE deals SET price_nano = price_nano + 1", DEAL),
    Corruption("V8", "a deal with oneself", "UPDATE deals SET seller_id = buyer_id", DEAL),
    Corruption("V9", "a deposit of another amount", "UPDATE deposits SET amount_nano = amount_nano + 1", "'-2'"),
    Corruption("V9", "an unclaimed deposit forgotten", "DELETE FROM deposits WHERE state = 'unclaimed'", "'-5'"),
    Corruption("V11", "a fee not collected", "UPDATE deals SET fee_nano = 0", "'-1'"),
    Corruption(
        "V12",
        "a deposit twice",
        "INSERT INTO deposits SELECT * FROM deposits WHERE state = 'unclaimed'",
        "'deposit ' || hash FROM deposits WHERE state = 'unclaimed'",
    ),
    Corruption(
        "V12",
        "an intake twice",
        f"INSERT INTO intakes SELECT * FROM intakes WHERE nft_id = {HELD}",
        f"'intake message-{HELD}'",
    ),
    Corruption(
        "V12", "a gift in custody twice", f"UPDATE nfts SET gift_id = {SOLD} WHERE id = {HELD}", f"'gift {SOLD}'"
    ),
    Corruption(
        "V13", "listed without a price", f"UPDATE nfts SET price_nano = NULL WHERE id = {LISTED}", f"'{LISTED}'"
    ),
    Corruption(
        "V13", "priced and not listed", f"UPDATE nfts SET price_nano = 1, fee_bp = 1 WHERE id = {HELD}", f"'{HELD}'"
    ),
    Corruption("V13", "owned by nobody", f"UPDATE nfts SET owner_id = NULL WHERE id = {HELD}", f"'{HELD}'"),
    Corruption("V13", "reserved by nothing", f"UPDATE nfts SET state = 'on_auction' WHERE id = {HELD}", f"'{HELD}'"),
    Corruption("V27", "an owner by no path", f"UPDATE nfts SET owner_id = {CAROL} WHERE id = {HELD}", f"'{HELD}'"),
    Corruption("V27", "sold by who did not own it", f"UPDATE deals SET seller_id = {CAROL}", f"'{SOLD}'"),
    Corruption(
        "V27",
        "a transfer lost",
        "UPDATE commands SET status = 'rejected' WHERE kind = 'nft.transfer'",
        f"'{GIVEN}'",
    ),
    Corruption("V27", "an intake lost", f"DELETE FROM intakes WHERE nft_id = {HELD}", f"'{HELD}'"),
    Corruption(
        "V28",
        "a deposit that no command recorded",
        "UPDATE commands SET status = 'failed' WHERE id = (SELECT id FROM deposits WHERE state = 'unclaimed')",
        "id FROM deposits WHERE state = 'unclaimed'",
    ),
    Corruption(
        "V28",
        "an intake by another kind",
        f"UPDATE intakes SET command_id = ({REGISTERED}) WHERE nft_id = {HELD}",
        REGISTERED,
    ),
]


@pytest.fixture(scope="module")
async def market(installer: Installer) -> Settings:
    """A marketplace with every document there is; nobody is connected to it."""
    settings = await installer.install()
    async with running(settings) as api:
        receipts = await api.settle(
            [
                *(register(user) for user in (ALICE, BOB, CAROL)),
                *(fund(user) for user in (ALICE, BOB)),
                deposit("nobody's", TON, 77),
                *(receive(item, ALICE) for item in (SOLD, GIVEN, LISTED, HELD)),
                set_price(ALICE, SOLD),
                set_price(ALICE, LISTED),
                buy(BOB, SOLD),
                transfer(ALICE, GIVEN, CAROL),
            ]
        )
        assert {receipt["status"] for receipt in receipts} == {"succeeded"}
        [refused] = await api.settle([set_price(BOB, LISTED)])
        assert refused["status"] == "rejected"
    return settings


async def found(settings: Settings) -> dict[str, list[str]]:
    pool = engine(settings)
    try:
        return {finding.name: finding.broken for finding in await audit(pool, settings)}
    finally:
        await pool.dispose()


async def unprotected(settings: Settings) -> None:
    """Take away what the database itself would refuse."""
    async with connected(settings) as connection:
        drops = await connection.fetchval("""
            SELECT string_agg(
                format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', conrelid::regclass, conname), ';')
            FROM pg_constraint WHERE contype IN ('c', 'f', 'p', 'u') AND connamespace = 'public'::regnamespace
        """)
        await connection.execute(drops)


@pytest.fixture(scope="module")
async def fragile(installer: Installer, market: Settings) -> Settings:
    """A copy of the marketplace that takes any damage."""
    copy = await installer.copy(market)
    await unprotected(copy)
    return copy


async def test_the_audit_holds_on_a_marketplace_that_traded(market: Settings) -> None:
    findings = await found(market)
    assert {name for name, broken in findings.items() if not broken} == {invariant.name for invariant in INVARIANTS}


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda one: f"{one.invariant} {one.name}")
async def test_an_invariant_names_what_breaks_it(
    installer: Installer, fragile: Settings, corruption: Corruption
) -> None:
    damaged = await installer.copy(fragile)
    async with connected(damaged) as connection:
        query = corruption.broken if corruption.broken.startswith("SELECT") else f"SELECT {corruption.broken}"
        broken = await connection.fetchval(query)
        await connection.execute(corruption.damage)
    assert str(broken) in (await found(damaged))[corruption.invariant]


def test_every_invariant_has_a_corruption_that_it_catches() -> None:
    assert {corruption.invariant for corruption in CORRUPTIONS} == {invariant.name for invariant in INVARIANTS}


async def test_the_command_line_says_which_invariant_is_broken_and_by_what(
    installer: Installer, market: Settings, fragile: Settings
) -> None:
    def run(settings: Settings) -> subprocess.CompletedProcess[str]:
        return souk("audit", **as_environment(settings))

    whole = run(market)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert all(f" {invariant.name} " in whole.stdout for invariant in INVARIANTS)
    assert "broken" not in whole.stdout
    damaged = await installer.copy(fragile)
    async with connected(damaged) as connection:
        await connection.execute(f"UPDATE nfts SET owner_id = {CAROL} WHERE id = {HELD}")
    broken = run(damaged)
    assert broken.returncode == 1
    [line] = [line for line in broken.stdout.splitlines() if "broken" in line]
    assert "V27" in line
    assert str(HELD) in line
