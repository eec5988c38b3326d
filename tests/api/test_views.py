"""The reads: what is on the market for everybody, what is private for its owner."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from commands.users import memo_of
from storage.keys import Role
from tests.api.api import Api, assert_problem, running
from tests.installation import Installer
from tests.market import TON, buy, fund, receive, register, set_price, transfer

ALICE, BOB, CAROL = 1, 2, 3
HUGE = 2**63 - 1
COLLECTIONS = ("Plush Pepe", "Swiss Watch", "Toy Bear")
LISTED = range(1, 31)


@pytest.fixture(scope="module")
async def market(installer: Installer) -> AsyncIterator[Api]:
    """Alice has items 1 to 30 on sale, in pairs of one price, and item 40 not; Bob bought 50; Carol was given 60."""
    async with running(await installer.install()) as api:
        await api.settle([register(ALICE), register(BOB), register(CAROL), fund(ALICE), fund(BOB)])
        await api.settle(
            receive(number, ALICE, collection=COLLECTIONS[number % 3], num=1_000 - number, model_permille=number // 5)
            for number in (*LISTED, 40, 50, 60)
        )
        await api.settle([receive(HUGE, ALICE)])
        await api.settle(set_price(ALICE, number, TON + number // 2) for number in (*LISTED, 50))
        sold, given = await api.settle([buy(BOB, 50, TON + 25), transfer(ALICE, 60, CAROL)])
        assert (sold["status"], given["status"]) == ("succeeded", "succeeded")
        yield api


async def pages(client: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while True:
        response = await client.get(path, params=query)
        assert response.status_code == 200, response.text
        items += response.json()["items"]
        if response.json()["next"] is None:
            return items
        query["cursor"] = response.json()["next"]


def ids(items: list[dict[str, Any]]) -> list[int]:
    return [int(item["nft_id"]) for item in items]


async def test_listings_are_what_is_on_sale_and_tell_nothing_of_who_sells(market: Api) -> None:
    listed = await pages(market.operator, "/v1/listings", limit=100)
    assert set(ids(listed)) == set(LISTED)
    assert {item["state"] for item in listed} == {"listed"}
    assert listed[0].keys() == {"nft_id", "gift", "state", "price_nano", "promoted_until", "received_at"}
    assert not {key for item in listed for key in (*item, *item["gift"])} & {"owner_id", "user_id", "seller_id"}


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("price", lambda item: (item["price_nano"], int(item["nft_id"]))),
        ("created_at", lambda item: (item["received_at"], int(item["nft_id"]))),
        ("num", lambda item: (item["gift"]["num"], int(item["nft_id"]))),
        ("model_permille", lambda item: (item["gift"]["model_permille"], int(item["nft_id"]))),
    ],
)
@pytest.mark.parametrize("limit", [1, 7, 30, 100])
async def test_pages_in_any_order_are_the_whole_list(market: Api, sort: str, key: Any, limit: int) -> None:
    up = await pages(market.operator, "/v1/listings", sort=sort, limit=limit)
    down = await pages(market.operator, "/v1/listings", sort=f"-{sort}", limit=limit)
    assert len(up) == len(LISTED)
    assert up == sorted(up, key=key) == down[::-1]


async def test_the_order_is_by_price_unless_said_otherwise(market: Api) -> None:
    default = await market.operator.get("/v1/listings")
    assert default.json() == (await market.operator.get("/v1/listings", params={"sort": "price"})).json()
    assert len(default.json()["items"]) == 20


async def test_pages_neither_repeat_nor_skip_while_prices_change(market: Api) -> None:
    """Between any two pages some items leave, come back and change their price; the others are seen exactly once."""
    moving = [number for number in LISTED if number % 3 == 0]
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 4}
    try:
        while True:
            page = (await market.operator.get("/v1/listings", params=query)).json()
            seen += ids(page["items"])
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
            turn = len(seen) % 5
            await market.settle(set_price(ALICE, item, None if turn == 0 else TON + turn) for item in moving[turn::5])
        still = [number for number in seen if number not in moving]
        assert sorted(still) == [number for number in LISTED if number not in moving]
    finally:
        await market.settle(set_price(ALICE, number, TON + number // 2) for number in moving)


async def test_filters_pass_any_value_of_one_and_all_filters(market: Api) -> None:
    async def found(**query: Any) -> set[int]:
        return set(ids(await pages(market.operator, "/v1/listings", limit=100, **query)))

    pepes = {number for number in LISTED if number % 3 == 0}
    watches = {number for number in LISTED if number % 3 == 1}
    assert await found(collection="Plush Pepe") == pepes
    assert await found(collection=["Plush Pepe", "Swiss Watch"]) == pepes | watches
    assert await found(collection="Plush Pepe", price_min_nano=TON + 10) == {n for n in pepes if n // 2 >= 10}
    assert await found(price_min_nano=TON + 5, price_max_nano=TON + 6) == {10, 11, 12, 13}
    assert await found(num=[990, 991]) == {9, 10}
    assert await found(num_min=995, num_max=997) == {3, 4, 5}
    assert await found(model="Cozy", pattern="Stars", backdrop="Onyx") == set(LISTED)
    assert await found(collection="' OR 1=1 --") == set()
    assert await found(num=2**31) == await found(num_min=2**31) == set()
    assert await found(num_max=2**62) == set(LISTED)


def cursor(*values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


BAD_QUERIES: list[tuple[str, dict[str, Any]]] = [
    ("limit", {"limit": 0}),
    ("limit", {"limit": 101}),
    ("limit", {"limit": "many"}),
    ("sort", {"sort": "owner_id"}),
    ("sort", {"sort": "price,num"}),
    ("cursor", {"cursor": "x"}),
    ("cursor", {"cursor": cursor("price", 1)}),
    ("cursor", {"cursor": cursor("price", 1, 2, 3)}),
    ("cursor", {"cursor": cursor("price", "x", 1)}),
    ("cursor", {"cursor": cursor("price", None, 1)}),
    ("cursor", {"cursor": cursor("price", 2**63, 1)}),
    ("cursor", {"cursor": cursor("price", 1.5, 1)}),
    ("cursor", {"cursor": cursor("num", 1, 1)}),  # of another order
    ("cursor", {"cursor": cursor("price", 1, 1), "sort": "-num"}),
    ("cursor", {"cursor": cursor("created_at", 1, 1), "sort": "created_at"}),
    ("cursor", {"cursor": cursor("created_at", "\0", 1), "sort": "created_at"}),
    ("cursor", {"cursor": cursor("created_at", "9999-12-31T23:59:59-23:00", 1), "sort": "created_at"}),
    ("num", {"num": "x"}),
    ("num", {"num": 2**63}),
    ("num_min", {"num_min": -1}),
    ("num_max", {"num_max": "1.5"}),
    ("price_min_nano", {"price_min_nano": "x"}),
    ("price_max_nano", {"price_max_nano": 2**63}),
    ("collection", {"collection": "a\0"}),
    ("collection", {"collection": ["x"] * 51}),
    ("num", {"num": [1] * 51}),
    ("state", {"state": "listed"}),
    ("owner_id", {"owner_id": 1}),
]


@pytest.mark.parametrize(("path", "query"), BAD_QUERIES)
async def test_a_bad_query_is_refused(market: Api, path: str, query: dict[str, Any]) -> None:
    assert_problem(await market.operator.get("/v1/listings", params=query), 422, "invalid", [path])


async def test_an_item_is_shown_with_its_gift(market: Api) -> None:
    shown = (await market.operator.get("/v1/nfts/7")).json()
    assert (shown["nft_id"], shown["state"], shown["price_nano"]) == ("7", "listed", TON + 3)
    assert shown["gift"] == {
        "id": "7",
        "collection": "Swiss Watch",
        "num": 993,
        "model": "Cozy",
        "pattern": "Stars",
        "backdrop": "Onyx",
        "model_permille": 1,
        "pattern_permille": 5,
        "backdrop_permille": 20,
        "center_color": 0x112233,
        "edge_color": 0x445566,
        "pattern_color": 0x778899,
        "text_color": 0xFFFFFF,
        "slug": "PlushPepe-7",
    }
    assert (await market.operator.get("/v1/nfts/40")).json()["price_nano"] is None


async def test_large_ids_are_decimal_strings(market: Api) -> None:
    shown = (await market.operator.get(f"/v1/nfts/{HUGE}")).json()
    assert (shown["nft_id"], shown["gift"]["id"]) == (str(HUGE), str(HUGE))


async def test_an_unknown_item_is_not_found(market: Api) -> None:
    assert_problem(await market.operator.get("/v1/nfts/404"), 404, "not_found")


@pytest.mark.parametrize("name", ["0", "-1", "x", str(2**63), "1.0", "%00", "\u0661"])
async def test_what_is_no_item_id_is_refused(market: Api, name: str) -> None:
    assert_problem(await market.operator.get(f"/v1/nfts/{name}"), 422, "invalid", ["nft_id"])


async def test_users_see_their_own_money_and_items(market: Api) -> None:
    bob = await market.as_role(Role.USER, BOB)
    price = TON + 25
    me = (await bob.get("/v1/users/me")).json()
    assert me.pop("registered_at")
    assert me == {
        "user_id": BOB,
        "language": "en",
        "available_nano": 1_000 * TON - price,
        "held_nano": 0,
        "blocked": False,
        "memo": memo_of(BOB),
    }
    assert ids(await pages(bob, "/v1/users/me/nfts")) == [50]
    [deal] = await pages(bob, "/v1/users/me/deals")
    assert (deal["side"], deal["price_nano"], deal["fee_nano"]) == ("buy", price, price // 100)
    alice = await market.as_role(Role.USER, ALICE)
    assert set(ids(await pages(alice, "/v1/users/me/nfts"))) == {*LISTED, 40, HUGE}
    [sale] = await pages(alice, "/v1/users/me/deals", side="sell")
    assert (sale["side"], sale["deal_id"]) == ("sell", deal["deal_id"])
    assert (await alice.get("/v1/users/me")).json()["available_nano"] == 1_000 * TON + price - price // 100


@pytest.mark.parametrize("path", ["/v1/users/me", "/v1/users/me/nfts", "/v1/users/me/deals"])
async def test_private_things_are_their_owners(market: Api, path: str) -> None:
    carol = await market.as_role(Role.USER, CAROL)
    own = await carol.get(path)
    assert own.status_code == 200
    for other in (ALICE, BOB):  # naming somebody else shows no more
        assert (await carol.get(path, params={"actor": other})).json() == own.json()
    for role in (Role.SERVICE, Role.OPERATOR):
        client = await market.as_role(role)
        assert (await client.get(path, params={"actor": CAROL})).json() == own.json()
        assert_problem(await client.get(path), 422, "invalid", ["actor"])
        for bad in ("", "x", "0", "-1", str(2**63)):
            assert_problem(await client.get(path, params={"actor": bad}), 422, "invalid", ["actor"])
    feed = await market.as_role(Role.FEED)
    assert_problem(await feed.get(path, params={"actor": CAROL}), 403, "forbidden")


async def test_a_user_not_registered_has_nothing(market: Api) -> None:
    nobody = await market.as_role(Role.USER, 404)
    assert_problem(await nobody.get("/v1/users/me"), 404, "not_found")
    assert await pages(nobody, "/v1/users/me/nfts") == await pages(nobody, "/v1/users/me/deals") == []


@pytest.mark.parametrize(
    ("path", "query", "wrong"),
    [
        ("/v1/users/me/deals", {"side": "both"}, "side"),
        ("/v1/users/me/deals", {"sort": "price"}, "sort"),
        ("/v1/users/me/deals", {"source": "\0"}, "source"),
        ("/v1/users/me/deals", {"cursor": cursor("made_at", "2030-01-01T00:00:00Z", 7)}, "cursor"),
        ("/v1/users/me/nfts", {"state": "\0"}, "state"),
        ("/v1/users/me/nfts", {"sort": "created_at"}, "sort"),
        ("/v1/users/me/nfts", {"price_min_nano": 1}, "price_min_nano"),
    ],
)
async def test_a_bad_private_query_is_refused(market: Api, path: str, query: dict[str, Any], wrong: str) -> None:
    alice = await market.as_role(Role.USER, ALICE)
    assert_problem(await alice.get(path, params=query), 422, "invalid", [wrong])


async def test_reads_change_nothing(market: Api) -> None:
    alice = await market.as_role(Role.USER, ALICE)
    async with market.unchanged():
        for path in ("/v1/listings", "/v1/nfts/1", "/v1/users/me", "/v1/users/me/nfts", "/v1/users/me/deals"):
            assert (await alice.get(path)).status_code == 200
