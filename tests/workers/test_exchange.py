"""Offers and auctions in the database: what one batch does to documents of which only one may be open at a time."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from storage.audit import audit
from storage.journal.accept import Journal
from storage.postgres.connection import Connection, engine
from storage.settings import Settings
from tests.journal import accept, statuses
from tests.market import TON, buy, fund, receive, register, set_price
from workers.batch import run_batch

ALL = dict.fromkeys(range(4), 0)
SELLER, ANN, BOB = 1, 2, 3
ITEM = 17


@pytest.fixture
async def market(journal: Journal, lane: Connection, settings: Settings) -> AsyncIterator[None]:
    """A seller's item, listed at 8 TON, and two users with money; every invariant holds in the end."""
    await accept(journal, settings, *map(register, (SELLER, ANN, BOB)), fund(ANN), fund(BOB), receive(ITEM, SELLER))
    await drain(lane, settings)
    await accept(journal, settings, set_price(SELLER, ITEM, 8 * TON))
    await drain(lane, settings)
    yield
    pool = engine(settings)
    findings = await audit(pool, settings)
    await pool.dispose()
    assert [finding for finding in findings if finding.broken] == []


async def drain(lane: Connection, settings: Settings) -> int:
    """Execute all that waits; the number of batches."""
    batches = 0
    while (await run_batch(lane, settings, ALL, 1_000)).finished:
        batches += 1
    return batches


def send(kind: str, actor: int, **payload: Any) -> dict[str, Any]:
    return {"kind": kind, "actor": actor, "payload": {"nft_id": ITEM} | payload}


def offer(actor: int, price_nano: int = 5 * TON) -> dict[str, Any]:
    return send("offers.create", actor, price_nano=price_nano)


async def balances(lane: Connection) -> dict[int, tuple[int, int]]:
    rows = await lane.fetch("SELECT id, available_nano, held_nano FROM accounts WHERE id > 0")
    return {row["id"]: (row["available_nano"], row["held_nano"]) for row in rows}


@pytest.mark.usefixtures("market")
async def test_offers_close_and_open_again_in_one_batch(journal: Journal, lane: Connection, settings: Settings) -> None:
    [first, _] = await accept(journal, settings, offer(ANN), offer(BOB))
    await drain(lane, settings)
    receipts = await accept(journal, settings, send("offers.withdraw", ANN, offer_id=first.id), offer(ANN, 6 * TON))
    receipts += await accept(
        journal, settings, send("offers.counter", SELLER, offer_id=receipts[1].id, price_nano=7 * TON)
    )
    receipts += await accept(journal, settings, send("offers.withdraw", ANN, offer_id=receipts[1].id), offer(ANN))
    assert await drain(lane, settings) == 1
    assert await statuses(journal, receipts) == ["succeeded"] * 5
    held = await lane.fetch("SELECT user_id, amount_nano FROM holds WHERE document_kind = 'offer' ORDER BY user_id")
    assert [tuple(row) for row in held] == [(ANN, 5 * TON), (BOB, 5 * TON)]


@pytest.mark.usefixtures("market")
async def test_a_sale_closes_every_offer_in_its_transaction(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    [of_ann, of_bob] = await accept(journal, settings, offer(ANN), offer(BOB))
    await drain(lane, settings)
    receipts = await accept(journal, settings, buy(ANN, ITEM, 8 * TON))
    receipts += await accept(journal, settings, send("offers.accept", SELLER, offer_id=of_bob.id, price_nano=5 * TON))
    assert await drain(lane, settings) == 1
    assert await statuses(journal, receipts) == ["succeeded", "rejected"]
    rows = await lane.fetch("SELECT id, state, reason, held_nano FROM offers")
    assert {tuple(row) for row in rows} == {(of_ann.id, "closed", "sold", 0), (of_bob.id, "closed", "sold", 0)}
    assert (await balances(lane))[BOB] == (1_000 * TON, 0)


@pytest.mark.usefixtures("market")
async def test_one_bid_leads_after_a_batch_of_bids(journal: Journal, lane: Connection, settings: Settings) -> None:
    await accept(journal, settings, set_price(SELLER, ITEM, None))
    [opening] = await accept(journal, settings, send("auctions.create", SELLER, start_nano=TON))
    await drain(lane, settings)

    def bid(actor: int, ton: int) -> dict[str, Any]:
        return send("auctions.place_bid", actor, auction_id=opening.id, amount_nano=ton * TON)

    for bids in ([bid(ANN, 1)], [bid(BOB, 2), bid(BOB, 3), bid(ANN, 5)], [bid(ANN, 6), bid(BOB, 8), bid(ANN, 10)]):
        receipts = await accept(journal, settings, *bids)
        assert await drain(lane, settings) == 1
        assert set(await statuses(journal, receipts)) == {"succeeded"}
    rows = await lane.fetch("SELECT bidder_id, amount_nano, state FROM bids ORDER BY amount_nano")
    assert [tuple(row) for row in rows] == [
        (ANN, 1 * TON, "outbid"),
        (BOB, 2 * TON, "raised"),
        (BOB, 3 * TON, "outbid"),
        (ANN, 5 * TON, "raised"),
        (ANN, 6 * TON, "outbid"),
        (BOB, 8 * TON, "outbid"),
        (ANN, 10 * TON, "leading"),
    ]
    assert await balances(lane) == {SELLER: (0, 0), ANN: (990 * TON, 10 * TON), BOB: (1_000 * TON, 0)}
    await end(lane, opening.id)
    receipts = await accept(journal, settings, send("auctions.settle", BOB, auction_id=opening.id))
    assert await drain(lane, settings) == 1
    assert await statuses(journal, receipts) == ["succeeded"]
    assert await lane.fetchval("SELECT owner_id FROM nfts") == ANN
    assert (await balances(lane))[SELLER] == (9_500_000_000, 0)


async def end(lane: Connection, auction_id: UUID) -> None:
    """As if the auction had been opened a day ago."""
    day = "interval '1 day'"
    await lane.execute(
        f"UPDATE auctions SET ends_at = ends_at - {day}, planned_ends_at = planned_ends_at - {day} WHERE id = $1",
        auction_id,
    )
    await lane.execute(f"UPDATE commands SET run_at = run_at - {day} WHERE kind = 'auctions.settle'")
