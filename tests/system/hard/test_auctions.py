"""Auctions: bids against cancels, against the end, and against each other."""

import asyncio
from datetime import timedelta
from typing import Any

from tests.deadline import eventually
from tests.market import TON
from tests.system.hard import ROUNDS
from tests.system.marketplace import Marketplace, command

HOUR = 3_600
WINDOW = timedelta(seconds=300)
EXTENSION = timedelta(seconds=3_600)


async def open_auction(marketplace: Marketplace, start_nano: int = TON) -> tuple[int, dict[str, Any]]:
    """The seller, and what names the auction."""
    seller = await marketplace.person(0)
    return seller, await marketplace.auction(seller, await marketplace.item(seller), start_nano)


async def test_of_a_bid_and_a_cancel_the_first_wins(marketplace: Marketplace) -> None:
    """H14."""
    for number in range(ROUNDS):
        seller, auction = await open_auction(marketplace)
        bidder = await marketplace.person()
        bid = command("auctions.place_bid", bidder, **auction, amount_nano=TON)
        cancel = command("auctions.cancel", seller, **auction)
        order = [bid, cancel] if number % 2 else [cancel, bid]
        if number % 5:
            first, second = await marketplace.in_order(order)
        else:
            receipts = await marketplace.race(order)
            places = await asyncio.gather(*(marketplace.seq(receipt) for receipt in receipts))
            first, second = receipts if places[0] < places[1] else reversed(receipts)
        assert first["status"] == "succeeded"
        if first["kind"] == "auctions.place_bid":
            await marketplace.assert_refused(second, "AUCTION_HAS_BIDS")
            assert await marketplace.balance(bidder) == (9 * TON, TON)
            assert await marketplace.nft(auction["nft_id"]) == (seller, "on_auction")
        else:
            await marketplace.assert_refused(second, "AUCTION_NOT_ACTIVE")
            assert await marketplace.balance(bidder) == (10 * TON, 0)
            assert await marketplace.nft(auction["nft_id"]) == (seller, "held")


async def test_an_auction_that_is_over_cannot_be_cancelled(marketplace: Marketplace) -> None:
    """H15."""
    for _ in range(ROUNDS):
        seller, auction = await open_auction(marketplace)
        async with marketplace.hold_back() as connection:
            await marketplace.age("auctions", auction["auction_id"], HOUR + 60, connection=connection)
            late = await marketplace.submit(command("auctions.cancel", seller, **auction))
        await marketplace.assert_refused(await marketplace.final(late), "AUCTION_EXPIRED")
        await marketplace.until_final("auctions.settle", auction["auction_id"])
        assert await marketplace.document("auctions", auction["auction_id"], "state") == ("unsold",)
        await marketplace.refused("AUCTION_NOT_ACTIVE", "auctions.cancel", seller, **auction)
        assert await marketplace.nft(auction["nft_id"]) == (seller, "held")


async def test_a_bid_counts_when_it_was_accepted_in_time_however_late_it_is_executed(marketplace: Marketplace) -> None:
    """H16."""
    for number in range(ROUNDS):
        seller, auction = await open_auction(marketplace)
        bidder = await marketplace.person()
        early = "interval '1 millisecond'" if number % 2 else "interval '0'"
        async with marketplace.hold_back() as connection:
            receipt = await marketplace.submit(command("auctions.place_bid", bidder, **auction, amount_nano=TON))
            # It was over 30 s ago, and its timer is due.
            await marketplace.age("auctions", auction["auction_id"], HOUR + 30, connection=connection)
            ends_at = f"SELECT ends_at - {early} FROM auctions WHERE id = '{auction['auction_id']}'"
            await marketplace.set_acceptance(receipt, ends_at, connection)
        receipt = await marketplace.final(receipt)
        await marketplace.until_final("auctions.settle", auction["auction_id"])
        if number % 2 == 0:
            await marketplace.assert_refused(receipt, "AUCTION_EXPIRED")
            assert await marketplace.document("auctions", auction["auction_id"], "state") == ("unsold",)
            assert await marketplace.balance(bidder) == (10 * TON, 0)
            continue
        assert receipt["status"] == "succeeded"
        # A bid in the last minutes moves the end; the timer of the old end came after it, and saw it.
        assert await marketplace.timers("auctions.settle", auction["auction_id"]) == ["rejected", "scheduled"]
        await marketplace.age("auctions", auction["auction_id"], 300)
        await marketplace.until_final("auctions.settle", auction["auction_id"], 2)
        assert await marketplace.nft(auction["nft_id"]) == (bidder, "held")
        assert await marketplace.balance(bidder) == (9 * TON, 0)
        assert await marketplace.balance(seller) == (TON * 95 // 100, 0)


async def test_an_auction_is_settled_once_whoever_settles_it(marketplace: Marketplace) -> None:
    """H17."""
    for number in range(ROUNDS):
        seller, auction = await open_auction(marketplace, 3 * TON)
        bidder = await marketplace.person()
        await marketplace.do("auctions.place_bid", bidder, **auction, amount_nano=3 * TON)
        async with marketplace.hold_back():
            await marketplace.age("auctions", auction["auction_id"], HOUR + 60)
            if number % 2:
                await marketplace.until_accepted("auctions.settle", auction["auction_id"])
            by_user = await marketplace.submit(command("auctions.settle", bidder, **auction))
            await marketplace.until_accepted("auctions.settle", auction["auction_id"])
        by_user = await marketplace.final(by_user)
        await marketplace.until_final("auctions.settle", auction["auction_id"])
        [by_timer] = await marketplace.timers("auctions.settle", auction["auction_id"])
        assert {by_user["status"], by_timer} == {"succeeded", "rejected"}
        if by_user["status"] == "rejected":
            await marketplace.assert_refused(by_user, "AUCTION_NOT_ACTIVE")
        else:
            assert (by_user["result"]["fee_nano"], by_user["result"]["price_nano"]) == (150_000_000, 3 * TON)
            assert await marketplace.timer_codes("auctions.settle", auction["auction_id"]) == ["AUCTION_NOT_ACTIVE"]
        assert await marketplace.nft(auction["nft_id"]) == (bidder, "held")
        assert await marketplace.balance(seller) == (2_850_000_000, 0)
        assert await marketplace.balance(bidder) == (7 * TON, 0)
        assert await marketplace.fees(seller, bidder) == 150_000_000


async def bidding_war(marketplace: Marketplace) -> None:
    seller, auction = await open_auction(marketplace)
    rivals = await marketplace.people(20)
    elsewhere = await marketplace.item(seller, 10 * TON)
    previous, amount, extensions, spent = None, TON, 0, []
    for number, rival in enumerate(rivals):
        await marketplace.nearly_end(auction["auction_id"], seconds=30)
        moments = ("planned_ends_at", "ends_at")
        planned, before = await marketplace.document("auctions", auction["auction_id"], *moments)
        amount += amount // 10 if number else 0
        bid = await marketplace.do("auctions.place_bid", rival, **auction, amount_nano=amount)
        accepted_at = await marketplace.site.value(f"SELECT accepted_at FROM commands WHERE id = '{bid['id']}'")
        [ends_at] = await marketplace.document("auctions", auction["auction_id"], "ends_at")
        assert ends_at == max(before, min(accepted_at + WINDOW, planned + EXTENSION))
        extensions += ends_at > before
        if previous is not None:
            await marketplace.offer(previous, elsewhere, 10 * TON)
            spent.append(previous)
        previous = rival
    assert 0 < extensions < 20, "the extension has no end"
    winner = rivals[-1]
    await marketplace.until_final("auctions.settle", auction["auction_id"], extensions)
    await marketplace.age("auctions", auction["auction_id"], 400)
    await marketplace.until_final("auctions.settle", auction["auction_id"], extensions + 1)
    timers = await marketplace.timers("auctions.settle", auction["auction_id"])
    assert sorted(timers) == [*["rejected"] * extensions, "succeeded"]
    codes = await marketplace.timer_codes("auctions.settle", auction["auction_id"])
    assert codes == ["AUCTION_NOT_EXPIRED"] * extensions
    assert await marketplace.nft(auction["nft_id"]) == (winner, "held")
    assert await marketplace.balance(winner) == (10 * TON - amount, 0)
    for loser in spent:
        assert await marketplace.balance(loser) == (0, 10 * TON)


async def test_twenty_rivals_in_the_last_minute_move_the_end_and_only_so_far(marketplace: Marketplace) -> None:
    """H18."""
    for _ in range(ROUNDS // 5):
        await asyncio.gather(*(bidding_war(marketplace) for _ in range(5)))


async def test_a_leader_who_raises_pays_the_difference_and_moves_nothing(marketplace: Marketplace) -> None:
    """H19."""
    for _ in range(ROUNDS):
        _, auction = await open_auction(marketplace, 10 * TON)
        leader = await marketplace.person(12 * TON)
        await marketplace.do("auctions.place_bid", leader, **auction, amount_nano=10 * TON)
        assert await marketplace.balance(leader) == (2 * TON, 10 * TON)
        await marketplace.nearly_end(auction["auction_id"], seconds=60)
        before = await marketplace.document("auctions", auction["auction_id"], "ends_at")
        raised = await marketplace.do("auctions.place_bid", leader, **auction, amount_nano=12 * TON)
        assert await marketplace.document("auctions", auction["auction_id"], "ends_at") == before
        assert await marketplace.balance(leader) == (0, 12 * TON)
        rejection = await marketplace.refused(
            "BID_TOO_LOW", "auctions.place_bid", leader, **auction, amount_nano=12 * TON
        )
        assert rejection["minimum_nano"] == 13_200_000_000
        bids = await marketplace.site.rows(
            f"SELECT state, held_nano FROM bids WHERE auction_id = '{auction['auction_id']}' ORDER BY amount_nano"
        )
        assert bids == [("raised", 0), ("leading", 12 * TON)]
        assert await marketplace.document("bids", raised["id"], "state") == ("leading",)


async def test_an_auction_settles_by_itself(marketplace: Marketplace) -> None:
    """Twenty at once, all due at the same moment."""
    auctions = [await open_auction(marketplace) for _ in range(ROUNDS)]
    await asyncio.gather(*(marketplace.age("auctions", auction["auction_id"], HOUR + 3) for _, auction in auctions))

    async def all_settled() -> bool:
        ids = ", ".join(f"'{auction['auction_id']}'" for _, auction in auctions)
        return bool(
            await marketplace.site.value(f"SELECT bool_and(state = 'unsold') FROM auctions WHERE id IN ({ids})")
        )

    await eventually(all_settled)
