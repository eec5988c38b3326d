"""The market and its catalogue."""

from commands.users import memo_of
from tests.market import TON
from tests.system.marketplace import Marketplace


async def test_get_salings_200(marketplace: Marketplace, me: int, other: int) -> None:
    item = await marketplace.item(other, TON // 100, collection="Salings")
    [found] = await marketplace.read_list(me, "/listings", collection="Salings")
    assert (found["nft_id"], found["state"], found["price_nano"]) == (str(item), "listed", TON // 100)
    assert all(found["state"] == "listed" for found in await marketplace.read_list(me, "/listings"))


async def test_get_collections_200(marketplace: Marketplace, me: int) -> None:
    await marketplace.item(me, TON, collection="Collections")
    found = await marketplace.read_list(me, "/collections", limit=100)
    assert "Collections" in [collection["name"] for collection in found]


async def test_get_models_200(marketplace: Marketplace, me: int) -> None:
    await marketplace.item(me)
    assert "Cozy" in [model["name"] for model in await marketplace.read_list(me, "/models")]


async def test_get_patterns_200(marketplace: Marketplace, me: int) -> None:
    await marketplace.item(me)
    assert "Stars" in [pattern["name"] for pattern in await marketplace.read_list(me, "/patterns")]


async def test_get_backdrops_200(marketplace: Marketplace, me: int) -> None:
    await marketplace.item(me)
    assert "Onyx" in [backdrop["name"] for backdrop in await marketplace.read_list(me, "/backdrops")]


async def test_get_integrations_200(marketplace: Marketplace, me: int) -> None:
    await marketplace.read_list(me, "/integrations")


async def test_topup_balance_200(marketplace: Marketplace, me: int) -> None:
    topup = await marketplace.read(me, "/users/me/topup", amount_nano=10_000_000_000)
    assert topup["amount_nano"] == 10_000_000_000
    assert (topup["wallet"], topup["memo"]) == (marketplace.site.settings.wallet, memo_of(me))
    assert await marketplace.balance(me) == (10 * TON, 0)


async def test_get_floor_200(marketplace: Marketplace, me: int) -> None:
    floor = await marketplace.read(me, "/floor", collection="Test Model")
    assert (floor["collection"], floor["price_nano"]) == ("Test Model", None)


async def test_get_charts_200(marketplace: Marketplace, me: int) -> None:
    charts = await marketplace.read(me, "/charts", collection="Test Model", days=7)
    assert (charts["collection"], charts["points"]) == ("Test Model", [])
