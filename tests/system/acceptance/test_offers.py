"""Offers on listed items."""

import pytest

from tests.market import TON
from tests.system.marketplace import NOWHERE, Marketplace


@pytest.fixture
async def mine(marketplace: Marketplace, me: int) -> int:
    """An item that is listed at 4 TON."""
    return await marketplace.item(me, 4 * TON)


async def test_get_my_offers_200(marketplace: Marketplace, me: int) -> None:
    assert await marketplace.read_list(me, "/offers", direction="received") == []
    assert await marketplace.read_list(me, "/offers", direction="sent") == []


async def test_get_my_offers_works(marketplace: Marketplace, me: int, other: int, mine: int) -> None:
    theirs = await marketplace.item(other, 4 * TON)
    received = await marketplace.do("offers.create", other, nft_id=mine, price_nano=3 * TON)
    sent = await marketplace.do("offers.create", me, nft_id=theirs, price_nano=2 * TON)
    for direction, offer, price in (("received", received, 3 * TON), ("sent", sent, 2 * TON)):
        [found] = await marketplace.read_list(me, "/offers", direction=direction)
        assert (found["offer_id"], found["direction"], found["price_nano"]) == (offer["id"], direction, price)
    assert await marketplace.document("offers", sent["id"], "author_id", "state", "held_nano") == (me, "open", 2 * TON)
    assert await marketplace.balance(me) == (8 * TON, 2 * TON)
    assert await marketplace.balance(other) == (7 * TON, 3 * TON)


async def test_refuse_offer_not_found(marketplace: Marketplace, me: int, mine: int) -> None:
    await marketplace.refused("OFFER_NOT_FOUND", "offers.refuse", me, nft_id=mine, offer_id=NOWHERE)
    assert await marketplace.nft(mine) == (me, "listed")


async def test_accept_offer_not_found(marketplace: Marketplace, me: int, mine: int) -> None:
    await marketplace.refused("OFFER_NOT_FOUND", "offers.accept", me, nft_id=mine, offer_id=NOWHERE, price_nano=TON)
    assert await marketplace.nft(mine) == (me, "listed")


async def test_set_price_not_found(marketplace: Marketplace, me: int, mine: int) -> None:
    await marketplace.refused("OFFER_NOT_FOUND", "offers.counter", me, nft_id=mine, offer_id=NOWHERE, price_nano=TON)
    assert await marketplace.nft(mine) == (me, "listed")
