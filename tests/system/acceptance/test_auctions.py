"""Auctions."""

from tests.market import TON
from tests.system.marketplace import Marketplace

DAY = 86_400


async def test_get_auctions_200(marketplace: Marketplace, me: int, other: int) -> None:
    item = await marketplace.item(other)
    auction = await marketplace.do("auctions.create", other, nft_id=item, start_nano=90_000 * TON)
    found = await marketplace.read_list(me, "/auctions", sort="-price", limit=20)
    prices = [auction["current_nano"] for auction in found]
    assert prices == sorted(prices, reverse=True)
    assert auction["id"] in [one["auction_id"] for one in found]


async def test_get_my_auctions_200(marketplace: Marketplace, me: int) -> None:
    assert await marketplace.read_list(me, "/auctions/mine") == []


async def test_get_deals_200(marketplace: Marketplace, me: int) -> None:
    assert await marketplace.read_list(me, "/auctions/deals") == []


async def test_new_auction_200(marketplace: Marketplace, me: int) -> None:
    item = await marketplace.item(me)
    receipt = await marketplace.do("auctions.create", me, nft_id=item, start_nano=5 * TON, duration_seconds=DAY)
    assert receipt["result"]["auction_id"] == receipt["id"]
    assert await marketplace.nft(item) == (me, "on_auction")
    facts = ("nft_id", "seller_id", "start_nano", "step_bp", "fee_bp", "state", "ends_at = planned_ends_at")
    assert await marketplace.document("auctions", receipt["id"], *facts) == (
        item,
        me,
        5 * TON,
        1_000,
        500,
        "active",
        True,
    )
    assert await marketplace.timers("auctions.settle", receipt["id"]) == ["scheduled"]
    [found] = await marketplace.read_list(me, "/auctions/mine")
    assert found["auction_id"] == receipt["id"]


async def test_delete_auction_200(marketplace: Marketplace, me: int) -> None:
    item = await marketplace.item(me)
    auction = await marketplace.do("auctions.create", me, nft_id=item, start_nano=3 * TON)
    await marketplace.do("auctions.cancel", me, nft_id=item, auction_id=auction["id"])
    assert await marketplace.nft(item) == (me, "held")
    assert await marketplace.document("auctions", auction["id"], "state", "leader_bid_id") == ("cancelled", None)
    assert await marketplace.balance(me) == (10 * TON, 0)


async def test_new_bid_insufficient_balance(marketplace: Marketplace, poor: int, other: int) -> None:
    item = await marketplace.item(other)
    auction = await marketplace.do("auctions.create", other, nft_id=item, start_nano=1_000 * TON)
    named = {"nft_id": item, "auction_id": auction["id"]}
    rejection = await marketplace.refused(
        "INSUFFICIENT_BALANCE", "auctions.place_bid", poor, **named, amount_nano=1_001 * TON
    )
    assert (rejection["required_nano"], rejection["available_nano"]) == (1_001 * TON, 0)
    assert await marketplace.document("auctions", auction["id"], "state", "leader_bid_id") == ("active", None)
    assert await marketplace.balance(poor) == (0, 0)
