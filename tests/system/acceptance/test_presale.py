"""Presales: gifts sold before they can be moved."""

import pytest

from tests.market import TON
from tests.system.marketplace import NOWHERE, Marketplace


@pytest.fixture
async def gift_id(marketplace: Marketplace) -> int:
    return marketplace.new_id()


async def test_get_presales_200(marketplace: Marketplace, me: int, other: int, gift_id: int) -> None:
    presale = await marketplace.presale(other, gift_id, 2 * TON)
    found = await marketplace.read_list(me, "/presales", sort="-created_at")
    assert presale["presale_id"] in [one["presale_id"] for one in found]


async def test_get_my_presales_200(marketplace: Marketplace, me: int, gift_id: int) -> None:
    assert await marketplace.read_list(me, "/presales/mine") == []
    presale = await marketplace.presale(me, gift_id)
    assert [found["presale_id"] for found in await marketplace.read_list(me, "/presales/mine")] == [
        presale["presale_id"]
    ]


async def test_set_price_insufficient_balance(marketplace: Marketplace, poor: int, gift_id: int) -> None:
    named = await marketplace.presale(poor, gift_id)
    rejection = await marketplace.refused(
        "INSUFFICIENT_BALANCE", "presale.set_price", poor, **named, price_nano=100 * TON
    )
    assert (rejection["required_nano"], rejection["available_nano"]) == (20 * TON, 0)
    facts = ("state", "price_nano", "deposit_held_nano")
    assert await marketplace.document("presales", named["presale_id"], *facts) == ("registered", None, 0)


async def test_delete_presale_200(marketplace: Marketplace, me: int, gift_id: int) -> None:
    named = await marketplace.presale(me, gift_id, 5 * TON)
    assert await marketplace.balance(me) == (9 * TON, TON)
    receipt = await marketplace.do("presale.delete", me, **named)
    assert receipt["result"]["released_nano"] == TON
    assert await marketplace.document("presales", named["presale_id"], "state", "deposit_held_nano") == ("deleted", 0)
    assert await marketplace.balance(me) == (10 * TON, 0)


async def test_buy_presale_not_found(marketplace: Marketplace, me: int, gift_id: int) -> None:
    await marketplace.refused(
        "PRESALE_NOT_FOUND", "presale.buy", me, gift_id=gift_id, presale_id=NOWHERE, price_nano=TON
    )
    assert await marketplace.balance(me) == (10 * TON, 0)
