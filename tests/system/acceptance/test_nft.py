"""Items in custody."""

from tests.market import TON
from tests.system.marketplace import Marketplace


async def test_get_my_nfts_200(marketplace: Marketplace, me: int) -> None:
    assert await marketplace.read_list(me, "/users/me/nfts") == []
    item = await marketplace.item(me)
    assert [found["nft_id"] for found in await marketplace.read_list(me, "/users/me/nfts")] == [str(item)]


async def test_get_sells_200(marketplace: Marketplace, me: int, other: int) -> None:
    assert await marketplace.read_list(me, "/users/me/deals", side="sell") == []
    item = await marketplace.item(me, TON)
    await marketplace.do("nft.buy", other, nft_id=item, price_nano=TON)
    [deal] = await marketplace.read_list(me, "/users/me/deals", side="sell")
    assert (deal["side"], deal["source"], deal["price_nano"]) == ("sell", "sale", TON)


async def test_get_buys_200(marketplace: Marketplace, me: int, other: int) -> None:
    assert await marketplace.read_list(me, "/users/me/deals", side="buy") == []
    item = await marketplace.item(other, TON)
    await marketplace.do("nft.buy", me, nft_id=item, price_nano=TON)
    [deal] = await marketplace.read_list(me, "/users/me/deals", side="buy")
    assert (deal["side"], deal["source"], deal["price_nano"]) == ("buy", "sale", TON)


async def test_get_deals_200(marketplace: Marketplace, me: int, other: int) -> None:
    assert await marketplace.read_list(me, "/gifts/1/deals") == []
    item = await marketplace.item(other, TON)
    bought = await marketplace.do("nft.buy", me, nft_id=item, price_nano=TON)
    [deal] = await marketplace.read_list(me, f"/gifts/{item}/deals")
    assert (deal["deal_id"], deal["source"], deal["price_nano"]) == (bought["id"], "sale", TON)


async def test_set_price_200(marketplace: Marketplace, me: int) -> None:
    item = await marketplace.item(me)
    receipt = await marketplace.do("nft.set_price", me, nft_id=item, price_nano=5 * TON)
    assert receipt["result"] == {"nft_id": str(item), "state": "listed", "price_nano": 5_000_000_000}
    assert await marketplace.document("nfts", item, "owner_id", "state", "price_nano", "fee_bp") == (
        me,
        "listed",
        5_000_000_000,
        100,
    )
    assert await marketplace.balance(me) == (10 * TON, 0)


async def test_buy_nft_insufficient_balance(marketplace: Marketplace, me: int, other: int) -> None:
    item = await marketplace.item(other, 1_000 * TON)
    rejection = await marketplace.refused("INSUFFICIENT_BALANCE", "nft.buy", me, nft_id=item, price_nano=1_000 * TON)
    assert (rejection["required_nano"], rejection["available_nano"]) == (1_000 * TON, 10 * TON)
    assert await marketplace.nft(item) == (other, "listed")
    assert await marketplace.balance(me) == await marketplace.balance(other) == (10 * TON, 0)


async def test_back_nft_insufficient_balance(marketplace: Marketplace, poor: int) -> None:
    item = await marketplace.item(poor)
    rejection = await marketplace.refused("INSUFFICIENT_BALANCE", "nft.return", poor, nft_id=item)
    assert (rejection["required_nano"], rejection["available_nano"]) == (100_000_000, 0)
    assert await marketplace.nft(item) == (poor, "held")
    assert await marketplace.balance(poor) == (0, 0)
