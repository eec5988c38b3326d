"""Channels with gifts."""

import pytest

from tests.market import TON
from tests.system.marketplace import NOWHERE, Marketplace


@pytest.fixture
async def mine(marketplace: Marketplace, me: int) -> str:
    """An unlisted channel, of an account that was connected two days ago."""
    return await marketplace.channel(me, await marketplace.old_account(me))


async def test_get_sale_channels_200(marketplace: Marketplace, me: int, mine: str) -> None:
    await marketplace.do("channels.set_price", me, channel_id=mine, price_nano=10 * TON)
    found = await marketplace.read_list(me, "/channels", sort="-created_at")
    assert mine in [channel["channel_id"] for channel in found]


async def test_get_my_channels_200(marketplace: Marketplace, me: int, mine: str) -> None:
    [found] = await marketplace.read_list(me, "/channels/mine")
    assert (found["channel_id"], found["state"]) == (mine, "unlisted")


async def test_get_buys_200(marketplace: Marketplace, me: int) -> None:
    assert await marketplace.read_list(me, "/channels/deals", side="buy") == []


async def test_get_sells_200(marketplace: Marketplace, me: int, other: int, mine: str) -> None:
    assert await marketplace.read_list(me, "/channels/deals", side="sell") == []
    await marketplace.do("channels.set_price", me, channel_id=mine, price_nano=10 * TON)
    bought = await marketplace.do("channels.buy", other, channel_id=mine, price_nano=10 * TON)
    await marketplace.until_answered(bought["id"])
    [sold] = await marketplace.read_list(me, "/channels/deals", side="sell")
    assert (sold["deal_id"], sold["price_nano"]) == (bought["id"], 10 * TON)
    assert await marketplace.balance(me) == (10 * TON + 10 * TON * 99 // 100, 0)
    assert await marketplace.balance(other) == (0, 0)


async def test_set_price_200(marketplace: Marketplace, me: int, mine: str) -> None:
    receipt = await marketplace.do("channels.set_price", me, channel_id=mine, price_nano=10 * TON)
    assert receipt["result"] == {"channel_id": mine, "state": "listed", "price_nano": 10 * TON}
    facts = ("owner_id", "state", "price_nano", "fee_bp")
    assert await marketplace.document("channels", mine, *facts) == (me, "listed", 10 * TON, 100)
    assert await marketplace.balance(me) == (10 * TON, 0)


async def test_delete_channel_200(marketplace: Marketplace, me: int, mine: str) -> None:
    await marketplace.do("channels.set_price", me, channel_id=mine, price_nano=10 * TON)
    await marketplace.do("channels.delete", me, channel_id=mine)
    assert await marketplace.read_list(me, "/channels/mine") == []
    found = await marketplace.read_list(me, "/channels", sort="-created_at")
    assert mine not in [channel["channel_id"] for channel in found]
    assert await marketplace.document("channels", mine, "state", "price_nano") == ("deleted", None)


async def test_buy_channel_not_found(marketplace: Marketplace, me: int) -> None:
    await marketplace.refused("CHANNEL_NOT_FOUND", "channels.buy", me, channel_id=999_999_999, price_nano=TON)
    assert await marketplace.balance(me) == (10 * TON, 0)


async def test_new_channel_account_not_found(marketplace: Marketplace, me: int) -> None:
    unknown = str(marketplace.new_id())
    await marketplace.refused("ACCOUNT_NOT_FOUND", "channels.add", me, channel_id=unknown, account_id=NOWHERE)
    assert await marketplace.site.rows(f"SELECT 1 FROM channels WHERE id = {unknown}") == []
