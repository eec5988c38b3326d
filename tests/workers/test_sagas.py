"""Telegram accounts, channels and returns in the database: from the command through the gateway to the answer."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from commands.requests import of_account
from storage.audit import audit
from storage.gateway.bridge import Answer, Call, Outcome
from storage.gateway.sandbox import Fault, Sandbox, clear_faults, set_fault, signed_in
from storage.journal.accept import Journal
from storage.journal.entry import partition_of
from storage.postgres.connection import Connection, connect, engine, is_weather
from storage.settings import Settings
from tests.couriers import some_couriers
from tests.deadline import eventually
from tests.installation import Installer
from tests.journal import accept
from tests.market import TON, fund, gift, receive, register
from workers.batch import run_batch

OWNER, OTHER = 1, 2
PHONE, ANOTHER_PHONE = "+491701234567", "+15550001111"
CHANNEL = 5_000_000_000_000_000_000
PRICE = 10 * TON
ROUNDS = 5
QUICK: dict[str, Any] = {"gateway_backoff_seconds": 0.05, "gateway_backoff_max_seconds": 0.2}
SOON_TOO_LATE = {"gateway_valid_seconds": 3}
SIGN_IN, SIGN_OUT = "account.sign_in", "account.sign_out"


class Market:
    """Two users with 1,000 TON, and what they send."""

    def __init__(self, settings: Settings, journal: Journal, lane: Connection) -> None:
        self.settings = settings
        self.journal = journal
        self.lane = lane

    async def drain(self, lane: Connection | None = None, partitions: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        """Execute all that waits in the partitions, again after a collision."""
        while True:
            try:
                fences = dict.fromkeys(partitions, 0)
                if not (await run_batch(lane or self.lane, self.settings, fences, 1_000)).finished:
                    return
            except Exception as error:
                # Two lanes that connect one login, or bring in one gift: the later one sees it when it repeats.
                if not is_weather(error) and not isinstance(error, asyncpg.UniqueViolationError):
                    raise

    async def send(self, kind: str, actor: int | None = None, **payload: Any) -> UUID:
        [receipt] = await accept(self.journal, self.settings, {"kind": kind, "actor": actor, "payload": payload})
        return receipt.id

    async def done(self, kind: str, actor: int | None = None, **payload: Any) -> UUID:
        """Send it, execute it, and whatever the gateway answers to the courier."""
        id_ = await self.send(kind, actor, **payload)
        await eventually(self._quiet)
        row = await self.lane.fetchrow("SELECT status, rejection, error FROM commands WHERE id = $1", id_)
        assert row is not None
        assert row["status"] == "succeeded", tuple(row)
        return id_

    async def _quiet(self) -> bool:
        await self.drain()
        if await self.count("gateway_requests WHERE closed_at IS NULL"):
            return False
        await self.drain()  # what the last answer became
        return not await self.count("gateway_requests WHERE closed_at IS NULL")

    async def connected(self, user_id: int = OWNER, phone: str = PHONE) -> UUID:
        account_id = await self.done("accounts.connect", user_id, phone=phone)
        await self.done("accounts.approve", user_id, account_id=account_id, code="12345", name="main")
        assert await self.state("telegram_accounts", account_id) == "connected"
        return account_id

    async def signing_in(self, user_id: int = OWNER, phone: str = PHONE) -> tuple[UUID, UUID]:
        """An account on its way, and its sign-in, by answers from hand."""
        account_id = await self.send("accounts.connect", user_id, phone=phone)
        await self.send("accounts.connect_confirm", user_id=user_id, account_id=account_id)
        return account_id, await self.send(
            "accounts.approve", user_id, account_id=account_id, code="12345", name="main"
        )

    async def asked(self, op: str) -> tuple[str, int, int]:
        """State, attempts and lookups of the only request for the operation."""
        [row] = await self.lane.fetch("SELECT state, attempts, lookups FROM gateway_requests WHERE op = $1", op)
        return tuple(row)

    async def let_in(self, user_id: int, account_id: UUID, approve_id: UUID) -> None:
        await self.send(
            "accounts.approve_confirm",
            user_id=user_id,
            account_id=account_id,
            approve_id=approve_id,
            telegram_id=777,
            stars=0,
            premium=False,
        )

    async def listed(self, account_id: UUID) -> None:
        await self.done("channels.add", OWNER, channel_id=CHANNEL, account_id=account_id)
        await self.done("channels.set_price", OWNER, channel_id=CHANNEL, price_nano=PRICE)

    async def state(self, table: str, id_: UUID | int) -> str:
        state: str = await self.lane.fetchval(f"SELECT state FROM {table} WHERE id = $1", id_)
        return state

    async def count(self, query: str, *arguments: Any) -> int:
        count: int = await self.lane.fetchval(f"SELECT count(*) FROM {query}", *arguments)
        return count

    async def statuses(self, *ids: UUID) -> list[str]:
        rows = await self.lane.fetch("SELECT status FROM commands WHERE id = ANY($1) ORDER BY seq", ids)
        return [row["status"] for row in rows]


@pytest.fixture
async def market(installer: Installer, request: pytest.FixtureRequest) -> AsyncIterator[Market]:
    """With accounts that may price their channels at once; every invariant holds in the end."""
    param = getattr(request, "param", {})
    settings = await installer.install(channel_account_age_seconds=0, **QUICK | param)
    journal, lane = Journal(settings), await connect(settings, "test", timeout_seconds=10, pinned_plans=True)
    market = Market(settings, journal, lane)
    await accept(journal, settings, *map(register, (OWNER, OTHER)), *map(fund, (OWNER, OTHER)))
    await market.drain()
    yield market
    pool = engine(settings)
    findings = await audit(pool, settings)
    await pool.dispose()
    assert [finding for finding in findings if finding.broken] == []
    assert await market.count("commands WHERE status = 'failed'") == 0
    await journal.close()
    await lane.close()


@pytest.fixture
async def courier(market: Market) -> AsyncIterator[None]:
    async with some_couriers(market.settings):
        yield


@pytest.fixture
async def other(market: Market) -> AsyncIterator[Connection]:
    """A second lane's connection."""
    connection = await connect(market.settings, "other", timeout_seconds=10, pinned_plans=True)
    yield connection
    await connection.close()


@pytest.mark.usefixtures("courier")
async def test_an_account_is_connected_read_emptied_and_left(market: Market) -> None:
    account_id = await market.connected()
    await market.done("accounts.sync", OWNER, account_id=account_id)
    gifts = await market.lane.fetch("SELECT gift_id FROM account_gifts ORDER BY 1")
    assert len(gifts) >= 2
    assert await market.count("account_channels") == 2
    await market.done("accounts.send_gift", OWNER, account_id=account_id, gift_id=gifts[0][0], receiver_id=99)
    assert await market.count("account_gifts") == len(gifts) - 1
    await market.done("accounts.sync", OWNER, account_id=account_id)
    assert await market.lane.fetch("SELECT gift_id FROM account_gifts ORDER BY 1") == gifts
    await market.done("accounts.disconnect", OWNER, account_id=account_id)
    assert await market.count("account_gifts") == await market.count("account_channels") == 0
    assert await market.state("telegram_accounts", account_id) == "disconnected"
    assert await market.count("nfts") == 0


@pytest.mark.usefixtures("courier")
async def test_a_channel_is_sold_added_again_and_deleted_with_its_account(market: Market) -> None:
    account_id = await market.connected()
    await market.listed(account_id)
    purchase_id = await market.done("channels.buy", OTHER, channel_id=CHANNEL, price_nano=PRICE)
    assert await market.state("channel_purchases", purchase_id) == "confirmed"
    assert await market.state("channels", CHANNEL) == "sold"
    assert await market.count("deal_items WHERE deal_id = $1", purchase_id) >= 2
    await market.listed(account_id)
    await market.done("accounts.disconnect", OWNER, account_id=account_id)
    assert await market.state("channels", CHANNEL) == "deleted"


@pytest.mark.usefixtures("courier")
async def test_a_channel_whose_gifts_changed_is_refused_and_the_buyer_keeps_the_money(market: Market) -> None:
    await market.listed(await market.connected())
    await set_fault(market.lane, Fault.REFUSE, "channel.transfer", reason="gifts_modified")
    purchase_id = await market.done("channels.buy", OTHER, channel_id=CHANNEL, price_nano=PRICE)
    assert await market.state("channel_purchases", purchase_id) == "failed"
    assert await market.state("channels", CHANNEL) == "refused"
    assert await market.lane.fetchval("SELECT held_nano FROM accounts WHERE id = $1", OTHER) == 0


@pytest.mark.usefixtures("courier")
async def test_a_wrong_code_is_entered_again(market: Market) -> None:
    account_id = await market.done("accounts.connect", OWNER, phone=PHONE)
    await set_fault(market.lane, Fault.REFUSE, "account.sign_in", reason="code_wrong")
    await market.done("accounts.approve", OWNER, account_id=account_id, code="0000", name="main")
    assert await market.state("telegram_accounts", account_id) == "code_sent"
    await market.done("accounts.approve", OWNER, account_id=account_id, code="1111", name="main")
    assert await market.state("telegram_accounts", account_id) == "connected"


@pytest.mark.usefixtures("courier")
async def test_an_item_is_returned_and_received_again(market: Market) -> None:
    await accept(market.journal, market.settings, receive(17, OWNER))
    await market.drain()
    return_id = await market.done("nft.return", OWNER, nft_id=17)
    assert await market.state("returns", return_id) == "confirmed"
    assert await market.state("nfts", 17) == "external"
    again = receive(17, OTHER)
    again["payload"]["message_ref"] = "again"
    await accept(market.journal, market.settings, again)
    await market.drain()
    assert await market.state("nfts", 17) == "held"


# -- an account that is disconnected while it signs in


async def leaving(market: Market, account_id: UUID) -> None:
    await market.send("accounts.disconnect", OWNER, account_id=account_id)
    await market.drain()
    assert await market.state("telegram_accounts", account_id) == "disconnected"


async def assert_left(market: Market) -> None:
    """The account was signed out after all else, and no session is alive."""
    await eventually(market._quiet, 40)
    assert await market.asked(SIGN_OUT) == ("done", 1, 0)
    attempts = await market.lane.fetch("SELECT op FROM gateway_log WHERE call = 'perform' ORDER BY fencing_token")
    assert attempts[-1]["op"] == SIGN_OUT
    assert await signed_in(market.lane) == set()


@pytest.mark.usefixtures("courier")
async def test_a_connected_account_has_a_session_until_it_is_disconnected(market: Market) -> None:
    account_id = await market.connected()
    assert await signed_in(market.lane) == {account_id}
    await leaving(market, account_id)
    await assert_left(market)


async def test_a_sign_in_that_was_not_attempted_is_cancelled_by_a_departure(market: Market) -> None:
    account_id, _ = await market.signing_in()
    await market.drain()
    await leaving(market, account_id)
    async with some_couriers(market.settings):
        await assert_left(market)
    assert await market.asked(SIGN_IN) == ("cancelled", 0, 0)


async def test_a_sign_out_waits_for_the_answer_to_a_sign_in_under_way(market: Market) -> None:
    account_id, _ = await market.signing_in()
    await market.drain()
    await set_fault(market.lane, Fault.SLOW, SIGN_IN, seconds=2)
    async with some_couriers(market.settings, 2):
        await eventually(lambda: signed_in(market.lane))
        await leaving(market, account_id)
        assert await market.asked(SIGN_OUT) == ("pending", 0, 0)
        await assert_left(market)
    assert (await market.asked(SIGN_IN))[:2] == ("done", 1)


async def test_a_sign_out_waits_while_a_sign_in_is_unknown_and_may_be_performed(market: Market) -> None:
    account_id, _ = await market.signing_in()
    await market.drain()
    await set_fault(market.lane, Fault.LOSE_ANSWER, SIGN_IN, times=None)
    async with some_couriers(market.settings, 2):
        await eventually(lambda: market.count("gateway_requests WHERE op = $1 AND state = 'unknown'", SIGN_IN))
        await leaving(market, account_id)
        lookups = (await market.asked(SIGN_IN))[2]
        await eventually(lambda: market.count("gateway_requests WHERE lookups >= $1", lookups + 5))
        assert await market.asked(SIGN_OUT) == ("pending", 0, 0)
        await clear_faults(market.lane)
        await assert_left(market)


@pytest.mark.parametrize("market", [SOON_TOO_LATE], indirect=True)
async def test_a_sign_in_that_stays_unknown_is_signed_out_when_it_is_too_old_to_be_performed(market: Market) -> None:
    account_id, _ = await market.signing_in()
    await market.drain()
    await set_fault(market.lane, Fault.LOSE_ANSWER, SIGN_IN, times=None)
    async with some_couriers(market.settings, 2):
        await eventually(lambda: signed_in(market.lane))
        await leaving(market, account_id)
        await eventually(lambda: market.count("gateway_requests WHERE op = $1 AND state = 'done'", SIGN_OUT), 40)
        assert await signed_in(market.lane) == set()
        waited = "SELECT max(attempted_at) - min(attempted_at) FROM gateway_requests WHERE op IN ($1, $2)"
        assert await market.lane.fetchval(waited, SIGN_IN, SIGN_OUT) >= timedelta(
            seconds=2 * SOON_TOO_LATE["gateway_valid_seconds"]
        )
        await clear_faults(market.lane)
        await assert_left(market)


@pytest.mark.parametrize("market", [SOON_TOO_LATE], indirect=True)
async def test_a_sign_in_that_was_never_seen_is_not_attempted_again_after_a_departure(market: Market) -> None:
    """And when the lost attempt arrives after all, it is refused by its token."""
    account_id, approve_id = await market.signing_in()
    await market.drain()
    await set_fault(market.lane, Fault.LOSE_REQUEST, SIGN_IN, times=None)
    async with some_couriers(market.settings, 2):
        await eventually(lambda: market.count("gateway_log WHERE op = $1 AND outcome = 'never_seen'", SIGN_IN))
        await leaving(market, account_id)
        attempts = (await market.asked(SIGN_IN))[1]
        await clear_faults(market.lane)
        await assert_left(market)
    assert (await market.asked(SIGN_IN))[:2] == ("refused", attempts)
    token = await market.lane.fetchval(
        "SELECT max(fencing_token) FROM gateway_log WHERE op = $1 AND call = 'perform'", SIGN_IN
    )
    late = Call(approve_id, SIGN_IN, (of_account(account_id),), token)
    body = {"account_id": account_id, "phone": PHONE}
    sandbox = Sandbox(market.settings)
    answer = await sandbox.perform(late, body, datetime.now(UTC) + timedelta(hours=1))
    await sandbox.close()
    assert answer == Answer(Outcome.UNKNOWN, "overtaken")
    assert await signed_in(market.lane) == set()


# -- races


@pytest.mark.parametrize("phones", [(PHONE, PHONE), (PHONE, ANOTHER_PHONE)])
async def test_lanes_that_race_for_a_phone_or_a_login_connect_it_once(
    market: Market, other: Connection, phones: tuple[str, str]
) -> None:
    users = {user_id: partition_of(f"user:{user_id}", market.settings.partitions) for user_id in (OWNER, OTHER)}
    assert users[OWNER] != users[OTHER]
    for _ in range(ROUNDS):
        ids = []
        for user_id, phone in zip(users, phones, strict=True):
            ids.append((user_id, *await market.signing_in(user_id, phone)))
        await market.drain()
        for user_id, account_id, approve_id in ids:
            await market.let_in(user_id, account_id, approve_id)
        await asyncio.gather(market.drain(market.lane, (users[OWNER],)), market.drain(other, (users[OTHER],)))
        states = sorted([await market.state("telegram_accounts", account_id) for _, account_id, _ in ids])
        assert states == ["connected", "failed"]
        for user_id, account_id, _ in ids:
            await market.send("accounts.disconnect", user_id, account_id=account_id)
        await market.drain()


async def test_a_purchase_and_a_departure_that_race_exclude_each_other(market: Market, other: Connection) -> None:
    own = partition_of(f"user:{OWNER}", market.settings.partitions)
    channels = partition_of(f"channel:{CHANNEL}", market.settings.partitions)
    assert channels != own
    for _ in range(ROUNDS):
        account_id, approve_id = await market.signing_in()
        await market.let_in(OWNER, account_id, approve_id)
        await market.drain()
        check_id = await market.send("channels.add", OWNER, channel_id=CHANNEL, account_id=account_id)
        names = {"channel_id": CHANNEL, "check_id": check_id}
        gifts = ({"gift": gift(7), "quantity": 1},)
        shown: dict[str, Any] = names | {"title": "Gifts", "is_creator": True, "gifts": gifts, "gifts_hash": "a hash"}
        await market.send("channels.add_confirm", **shown)
        await market.send("channels.set_price", OWNER, channel_id=CHANNEL, price_nano=PRICE)
        await market.drain()
        leave = await market.send("accounts.disconnect", OWNER, account_id=account_id)
        buy = await market.send("channels.buy", OTHER, channel_id=CHANNEL, price_nano=PRICE)
        await asyncio.gather(market.drain(market.lane, (own,)), market.drain(other, (channels,)))
        left, bought = await market.statuses(leave, buy)
        assert {left, bought} == {"rejected", "succeeded"}
        if bought == "succeeded":
            await market.send("channels.buy_fail", channel_id=CHANNEL, purchase_id=buy, reason="refused")
            await market.send("accounts.disconnect", OWNER, account_id=account_id)
            await market.drain()
