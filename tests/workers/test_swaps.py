"""Trades, proposals and presales in the database: what closes and opens in one batch, and what two lanes race for."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from storage.audit import audit
from storage.journal.accept import Journal
from storage.postgres.connection import Connection, connect, engine, is_weather
from storage.settings import Settings
from tests.journal import accept, statuses
from tests.market import TON, buy, fund, gift, receive, register, set_price
from workers.batch import run_batch

OWNER, AUTHOR, OTHER = 1, 2, 3
ROUNDS = 10


@pytest.fixture
async def market(journal: Journal, lane: Connection, settings: Settings) -> AsyncIterator[None]:
    """Three users with 1,000 TON and the items 100n to 100n + 19; every invariant holds in the end."""
    users = (OWNER, AUTHOR, OTHER)
    await accept(journal, settings, *map(register, users), *map(fund, users))
    await accept(journal, settings, *(receive(100 * user + number, user) for user in users for number in range(20)))
    await drain(lane, settings)
    yield
    pool = engine(settings)
    findings = await audit(pool, settings)
    await pool.dispose()
    assert [finding for finding in findings if finding.broken] == []


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Connection]:
    """A second lane's connection."""
    connection = await connect(settings, "other", timeout_seconds=10, pinned_plans=True)
    yield connection
    await connection.close()


async def drain(lane: Connection, settings: Settings, partitions: tuple[int, ...] = (0, 1, 2, 3)) -> list[int]:
    """Execute all that waits in the partitions, again after a collision; the round trips of each batch."""
    round_trips: list[int] = []
    while True:
        try:
            batch = await run_batch(lane, settings, dict.fromkeys(partitions, 0), 1_000)
        except Exception as error:
            # Two lanes that bring in one gift, unknown until then: the later one sees it when it repeats its batch.
            if not is_weather(error) and not isinstance(error, asyncpg.UniqueViolationError):
                raise
            continue
        if not batch.finished:
            return round_trips
        round_trips.append(batch.round_trips)


def send(kind: str, actor: int | None, **payload: Any) -> dict[str, Any]:
    return {"kind": kind, "actor": actor, "payload": payload}


def create(actor: int, *nft_ids: int) -> dict[str, Any]:
    requirements = ({"collection": "Plush Pepe", "backdrop": None},)
    return send("trades.create", actor, nft_ids=nft_ids, requirements=requirements)


def propose(actor: int, trade_id: UUID, *nft_ids: int) -> dict[str, Any]:
    return send("trades.propose", actor, trade_id=trade_id, nft_ids=nft_ids)


def about(verb: str, actor: int, trade_id: UUID, proposal_id: UUID) -> dict[str, Any]:
    return send(f"trades.{verb}", actor, trade_id=trade_id, proposal_id=proposal_id)


async def owners(lane: Connection, *nft_ids: int) -> list[int]:
    rows = await lane.fetch("SELECT owner_id FROM nfts WHERE id = ANY($1) ORDER BY id", nft_ids)
    return [row["owner_id"] for row in rows]


@pytest.mark.usefixtures("market")
async def test_proposals_close_and_open_again_in_one_batch(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    [trade] = await accept(journal, settings, create(OWNER, 100, 101))
    [first] = await accept(journal, settings, propose(AUTHOR, trade.id, 200))
    receipts = await accept(journal, settings, about("withdraw_proposal", AUTHOR, trade.id, first.id))
    receipts += await accept(journal, settings, propose(AUTHOR, trade.id, 200, 201))
    await drain(lane, settings)
    again = receipts[-1]
    receipts += await accept(journal, settings, about("decline", OWNER, trade.id, again.id))
    receipts += await accept(journal, settings, propose(AUTHOR, trade.id, 201))
    receipts += await accept(journal, settings, about("accept", OWNER, trade.id, receipts[-1].id))
    await drain(lane, settings)
    assert await statuses(journal, receipts) == ["succeeded"] * 5
    assert await owners(lane, 100, 101, 200, 201) == [AUTHOR, AUTHOR, AUTHOR, OWNER]


@pytest.mark.usefixtures("market")
async def test_a_batch_of_swaps_makes_the_round_trips_of_one(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    trades = await accept(journal, settings, *(create(OWNER, 100 + number) for number in range(10)))
    proposing = (propose(AUTHOR, trade.id, 200 + number) for number, trade in enumerate(trades))
    proposals = await accept(journal, settings, *proposing)
    await drain(lane, settings)
    swaps = [about("accept", OWNER, trade.id, one.id) for trade, one in zip(trades, proposals, strict=True)]
    receipts = await accept(journal, settings, swaps[0])
    [alone] = await drain(lane, settings)
    receipts += await accept(journal, settings, *swaps[1:])
    assert await drain(lane, settings) == [alone]
    assert await statuses(journal, receipts) == ["succeeded"] * 10


@pytest.mark.usefixtures("market")
async def test_of_a_swap_and_a_sale_of_one_item_in_two_lanes_one_happens(
    journal: Journal, lane: Connection, other: Connection, settings: Settings
) -> None:
    """H11, decided by the locks: the two have different keys."""
    for number in range(ROUNDS):
        given, received = 100 + number, 200 + number
        await accept(journal, settings, set_price(OWNER, given), set_price(AUTHOR, received))
        [trade, own] = await accept(journal, settings, create(OWNER, given), create(AUTHOR, received))
        [proposal] = await accept(journal, settings, propose(AUTHOR, trade.id, received))
        await accept(journal, settings, propose(OWNER, own.id, given))
        await drain(lane, settings)
        receipts = await accept(
            journal,
            settings,
            about("accept", OWNER, trade.id, proposal.id),
            buy(OTHER, given),
            buy(OTHER, received),
        )
        await asyncio.gather(drain(lane, settings, (0, 1)), drain(other, settings, (2, 3)))
        swapped, sold, other_sold = await statuses(journal, receipts)
        if swapped == "succeeded":
            assert (sold, other_sold) == ("rejected", "rejected")
            assert await owners(lane, given, received) == [AUTHOR, OWNER]
        else:
            assert "succeeded" in (sold, other_sold)
            assert await owners(lane, given, received) == [
                OTHER if sold == "succeeded" else OWNER,
                OTHER if other_sold == "succeeded" else AUTHOR,
            ]
        assert await lane.fetchval("SELECT count(*) FROM trades WHERE state = 'open'") == 0


def in_advance(gift_id: int, seller_id: int = OWNER) -> dict[str, Any]:
    movable = datetime.now(UTC) + timedelta(days=1)
    fields = {"gift_id": gift_id, "gift": gift(gift_id), "seller_id": seller_id}
    return send("presale.register", None, **fields, transferable_at=movable)


@pytest.mark.usefixtures("market")
async def test_presales_close_and_open_again_in_one_batch(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    [first] = await accept(journal, settings, in_advance(7))
    ids = {"gift_id": 7, "presale_id": first.id}
    receipts = await accept(journal, settings, send("presale.set_price", OWNER, **ids, price_nano=5 * TON))
    await drain(lane, settings)
    receipts += await accept(journal, settings, send("presale.delete", OWNER, **ids), in_advance(7, AUTHOR))
    ids = {"gift_id": 7, "presale_id": receipts[-1].id}
    receipts += await accept(
        journal,
        settings,
        send("presale.set_price", AUTHOR, **ids, price_nano=5 * TON),
        send("presale.buy", OTHER, **ids, price_nano=5 * TON),
    )
    assert len(await drain(lane, settings)) == 1
    assert await statuses(journal, receipts) == ["succeeded"] * 5
    held = await lane.fetch("SELECT user_id, amount_nano FROM holds ORDER BY user_id")
    assert [tuple(row) for row in held] == [(AUTHOR, TON), (OTHER, 5 * TON)]
    arrival = {"nft_id": 7, "gift": gift(7), "sender_id": AUTHOR, "message_ref": "presale of 7"}
    receipts = await accept(journal, settings, send("presale.deliver", None, **ids, **arrival))
    await drain(lane, settings)
    assert await statuses(journal, receipts) == ["succeeded"]
    assert await owners(lane, 7) == [OTHER]


@pytest.mark.usefixtures("market")
async def test_of_the_intake_and_the_presale_of_a_gift_in_two_lanes_one_happens(
    journal: Journal, lane: Connection, other: Connection, settings: Settings
) -> None:
    """Whether the gift was known before or not."""
    for number in range(ROUNDS):
        receipts = await accept(journal, settings, receive(1_000 + number, OWNER), in_advance(1_000 + number))
        await asyncio.gather(drain(lane, settings, (0, 1)), drain(other, settings, (2, 3)))
        assert sorted(await statuses(journal, receipts)) == ["rejected", "succeeded"]
