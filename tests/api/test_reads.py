"""The reads of the marketplace: what each shows, to whom, in which order, and what they refuse."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.views import READS
from api.views.reads import Audience
from commands.terms import Terms
from commands.users import memo_of
from storage.keys import Role
from tests.api.api import Api, assert_problem, running
from tests.api.bazaar import ADDRESS, ALICE, BOB, CAROL, DAVE, Bazaar
from tests.deadline import eventually
from tests.installation import Installer
from tests.market import TON

UNKNOWN = "01900000-0000-7000-8000-000000000000"
LISTS = [
    path
    for path, _, _ in READS
    if "{" not in path and path not in ("/floor", "/charts", "/settings", "/users/me", "/users/me/topup", "/ops/ledger")
]
PRIVATE = [path for path, audience, _ in READS if audience is Audience.MINE]
ITEM = {"nft_id", "gift", "state", "price_nano", "promoted_until", "received_at"}
GIFT = {
    *("id", "collection", "num", "model", "pattern", "backdrop", "model_permille", "pattern_permille"),
    *("backdrop_permille", "center_color", "edge_color", "pattern_color", "text_color", "slug"),
}
DEAL = {"deal_id", "source", "side", "price_nano", "fee_nano", "made_at"}


@pytest.fixture(scope="module")
async def empty(installer: Installer) -> AsyncIterator[Api]:
    async with running(await installer.install()) as api:
        yield api


def at(path: str) -> str:
    """The path with ids that name nothing."""
    return "/v1" + re.sub(r"{(nft_id|gift_id)}", "5", path).replace("/channels/{id}", "/channels/5").replace(
        "{id}", UNKNOWN
    )


async def sorts_of(api: Api, path: str, actor: dict[str, int]) -> list[str]:
    """The sorts of a list, which it names when asked for another."""
    refused = assert_problem(
        await api.operator.get(f"/v1{path}", params={"sort": "?", **actor}), 422, "invalid", ["sort"]
    )
    names = re.fullmatch(r"must be one of (.*), with - in front for descending", refused["errors"][0]["message"])
    assert names is not None
    return names[1].split(", ")


@pytest.mark.parametrize("path", [path for path in LISTS if path != "/integrations"])
async def test_a_list_may_be_empty_in_every_order(empty: Api, path: str) -> None:
    actor = {"actor": DAVE} if path in PRIVATE else {}
    for sort in await sorts_of(empty, path, actor):
        for sign in ("", "-"):
            response = await empty.operator.get(f"/v1{path}", params={"sort": sign + sort, **actor})
            assert (response.status_code, response.json()) == (200, {"items": [], "next": None})


@pytest.mark.parametrize("path", [path for path in LISTS if path != "/integrations"])
async def test_a_list_is_the_same_in_pages_of_one_and_backwards(bazaar: Bazaar, path: str) -> None:
    for user_id in (ALICE, BOB, CAROL) if path in PRIVATE else (None,):
        actor = {} if user_id is None else {"actor": user_id}
        for sort in await sorts_of(bazaar.api, path, actor):
            whole = timeless(await bazaar.items(path, user_id, sort=sort, limit=100))
            assert whole == timeless(await bazaar.items(path, user_id, sort=f"-{sort}", limit=100))[::-1]
            single: list[dict[str, Any]] = []
            query: dict[str, Any] = {"sort": sort, "limit": 1}
            while True:
                page = await bazaar.get(path, user_id, **query)
                single += page["items"]
                if page["next"] is None:
                    break
                query["cursor"] = page["next"]
            assert timeless(single) == whole


def timeless(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what grows from one reading to the next."""
    return [{name: value for name, value in item.items() if name != "age_seconds"} for item in items]


@pytest.mark.parametrize(("path", "audience"), [(path, audience) for path, audience, _ in READS])
async def test_a_parameter_that_is_not_known_is_refused(empty: Api, path: str, audience: Audience) -> None:
    query: dict[str, Any] = {"nonsense": "1", "collection": "x"} if path in ("/floor", "/charts") else {"nonsense": "1"}
    actor = {"actor": DAVE} if audience is Audience.MINE else {}
    assert_problem(await empty.operator.get(at(path), params=query | actor), 422, "invalid", ["nonsense"])


@pytest.mark.parametrize("path", PRIVATE)
async def test_what_is_private_needs_a_name_and_no_feed_reads_it(empty: Api, path: str) -> None:
    assert_problem(await empty.operator.get(at(path)), 422, "invalid", ["actor"])
    feed = await empty.as_role(Role.FEED)
    assert_problem(await feed.get(at(path), params={"actor": ALICE}), 403, "forbidden")
    assert_problem(await empty.anonymous.get(at(path)), 401, "unauthenticated")


@pytest.mark.parametrize("path", [path for path in LISTS if path in PRIVATE])
async def test_a_user_who_names_another_sees_ones_own(bazaar: Bazaar, path: str) -> None:
    for user_id in (ALICE, BOB, CAROL, DAVE):
        client = await bazaar.api.as_role(Role.USER, user_id)
        own = (await client.get(f"/v1{path}")).json()
        assert own == await bazaar.get(path, user_id)
        for other in (ALICE, BOB):
            assert (await client.get(f"/v1{path}", params={"actor": other})).json() == own


async def test_no_read_changes_anything(bazaar: Bazaar) -> None:
    client = await bazaar.api.as_role(Role.OPERATOR)
    query = {"actor": ALICE, "collection": "Plush Pepe"}
    async with bazaar.api.unchanged():
        for path, _, _ in READS:
            needed: dict[str, Any] = query if path in ("/floor", "/charts") else {"actor": ALICE}
            assert (await client.get(at(path), params=needed)).status_code in (200, 404)


@pytest.mark.parametrize("path", [path for path, audience, _ in READS if audience is Audience.OPERATORS])
@pytest.mark.parametrize("role", [Role.USER, Role.SERVICE, Role.FEED])
async def test_what_operators_look_at_is_theirs(empty: Api, path: str, role: Role) -> None:
    client = await empty.as_role(role, ALICE if role is Role.USER else None)
    assert_problem(await client.get(at(path)), 403, "forbidden")


@pytest.mark.parametrize("path", [path for path, _, _ in READS if "{" in path and not path.endswith(("deals", "bids"))])
async def test_what_is_not_there_is_not_found(empty: Api, path: str) -> None:
    if path.endswith("/channels"):
        return
    assert_problem(await empty.operator.get(at(path), params={"actor": DAVE}), 404, "not_found")
    if "nft_id" not in path and "gift_id" not in path and "/channels/" not in path:
        nameless = at(path).replace(UNKNOWN, "no-id")
        assert_problem(await empty.operator.get(nameless, params={"actor": DAVE}), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "query", "wrong"),
    [
        ("/users/me/nfts", {"on_sale": "perhaps"}, "on_sale"),
        ("/users/me/nfts", {"state": "eaten"}, "state"),
        ("/users/me/ledger", {"from": "yesterday"}, "from"),
        ("/users/me/ledger", {"to": "9999-12-31T23:59:59-23:00"}, "to"),
        ("/users/me/ledger", {"document_id": "x"}, "document_id"),
        ("/users/me/deposits", {"state": "unclaimed"}, "state"),
        ("/users/me/deals", {"source": "theft"}, "source"),
        ("/users/me/topup", {"amount_nano": 1}, "amount_nano"),
        ("/auctions/deals", {"source": "sale"}, "source"),
        ("/offers", {"direction": "up"}, "direction"),
        ("/offers", {"state": ["open", "shut"]}, "state"),
        ("/offers", {"limit": [1, 2]}, "limit"),
        ("/presales/mine", {"role": "bidder"}, "role"),
        ("/presales", {"state": "sold"}, "state"),
        ("/auctions", {"price_max_nano": "-1"}, "price_max_nano"),
        ("/auctions/mine", {"role": "buyer"}, "role"),
        ("/trades", {"wants_collection": "\0"}, "wants_collection"),
        ("/trades", {"num": "one"}, "num"),
        ("/proposals", {"trade_id": "x"}, "trade_id"),
        ("/channels", {"model": ["x"] * 51}, "model"),
        ("/models", {"collection": "\0"}, "collection"),
        ("/floor", {}, "collection"),
        ("/floor", {"collection": ["a", "b"]}, "collection"),
        ("/floor", {"collection": "\0"}, "collection"),
        ("/charts", {"collection": "a", "days": 2}, "days"),
        ("/ops/requests", {"state": "lost"}, "state"),
        (f"/trades/{UNKNOWN}", {"proposal_id": "x"}, "proposal_id"),
        ("/channels/0", {}, "id"),
    ],
)
async def test_a_bad_filter_is_refused(empty: Api, path: str, query: dict[str, Any], wrong: str) -> None:
    actor = {} if path.startswith("/ops") else {"actor": DAVE}
    assert_problem(await empty.operator.get(f"/v1{path}", params=query | actor), 422, "invalid", [wrong])


# -- the market


async def test_an_item_names_its_auction_and_a_gift_its_item_and_presale(bazaar: Bazaar) -> None:
    on_auction = await bazaar.get("/nfts/3")
    assert on_auction.keys() == ITEM | {"auction_id"}
    assert (on_auction["state"], on_auction["auction_id"]) == ("on_auction", bazaar.ids["auction"])
    assert (await bazaar.get("/nfts/1"))["auction_id"] is None
    gift = await bazaar.get("/gifts/1")
    assert gift.keys() == GIFT | {"nft_id", "presale_id"}
    assert (gift["nft_id"], gift["presale_id"]) == ("1", None)
    sold_ahead = await bazaar.get("/gifts/102")
    assert (sold_ahead["nft_id"], sold_ahead["presale_id"]) == (None, bazaar.ids["sold presale"])


async def test_deals_of_a_gift_name_nobody(bazaar: Bazaar) -> None:
    [deal] = await bazaar.items("/gifts/11/deals")
    assert deal.pop("made_at")
    assert deal == {"deal_id": bazaar.ids["sale"], "source": "sale", "price_nano": 5 * TON}
    assert await bazaar.items("/gifts/404/deals") == []


async def test_traits_are_counted_while_in_custody(bazaar: Bazaar) -> None:
    assert await bazaar.items("/collections") == [
        {"name": "Plush Pepe", "count": 9, "floor_nano": 2 * TON, "listed": 2},
        {"name": "Swiss Watch", "count": 6, "floor_nano": None, "listed": 0},
    ]
    assert await bazaar.items("/models") == [
        {"name": "Cozy", "count": 9, "permille": 12},
        {"name": "Gold", "count": 6, "permille": 12},
    ]
    assert await bazaar.items("/models", collection="Swiss Watch") == [{"name": "Gold", "count": 6, "permille": 12}]
    assert await bazaar.items("/patterns", collection=["Swiss Watch", "Plush Pepe"]) == [
        {"name": "Stars", "count": 15, "permille": 5}
    ]
    colors = {"center_color": 0x112233, "edge_color": 0x445566, "pattern_color": 0x778899, "text_color": 0xFFFFFF}
    assert (await bazaar.items("/backdrops"))[0] == {"name": "Black", "count": 6, "permille": 20, **colors}
    assert await bazaar.items("/models", collection="Nothing") == []


async def test_traits_follow_gifts_that_leave_and_come_back(installer: Installer) -> None:
    async with running(await installer.install()) as api:
        bazaar = Bazaar(api)
        await bazaar.open()
        returned = {"nft_id": "21", "return_id": bazaar.ids["return"]}
        await bazaar.do("nft.return_confirm", **returned)
        assert (await bazaar.items("/collections"))[0]["count"] == 8
        await bazaar.do("nft.set_price", ALICE, nft_id=1, price_nano=None)

        async def counted() -> bool:  # a busy machine may take the last count for a slow one, and use it again
            return bool((await bazaar.items("/collections"))[0]["listed"] == 1)

        await eventually(counted)
        again = {"nft_id": 21, "sender_id": CAROL, "message_ref": "again"}
        await bazaar.do("nft.receive", **again, gift=(await gift_facts(bazaar, 21)))
        assert (await bazaar.items("/collections"))[0]["count"] == 9


async def gift_facts(bazaar: Bazaar, gift_id: int) -> dict[str, Any]:
    shown: dict[str, Any] = await bazaar.get(f"/gifts/{gift_id}")
    return {name: shown[name] for name in GIFT}


async def test_the_floor_is_the_models_or_else_the_collections(bazaar: Bazaar) -> None:
    async def floor(**query: Any) -> Any:
        return (await bazaar.get("/floor", **query))["price_nano"]

    found = await bazaar.get("/floor", collection="Swiss Watch")
    assert found.keys() == {"collection", "model", "price_nano", "market", "recorded_at"}
    assert (found["price_nano"], found["market"]) == (3 * TON, "souk")
    assert await floor(collection="Swiss Watch", model="Gold") == 4 * TON
    assert await floor(collection="Swiss Watch", model="Silver") == 3 * TON
    unknown = await bazaar.get("/floor", collection="Test Model")
    assert unknown == dict.fromkeys(("model", "price_nano", "market", "recorded_at")) | {"collection": "Test Model"}


@pytest.mark.parametrize("days", [1, 7, 30])
async def test_a_chart_has_the_lowest_of_each_bucket(bazaar: Bazaar, days: int) -> None:
    chart = await bazaar.get("/charts", collection="Swiss Watch", days=days)
    assert chart.keys() == {"collection", "model", "points"}
    [point] = chart["points"]
    assert point["price_nano"] == 3 * TON
    assert point["at"].endswith(":00:00Z")
    unknown = await bazaar.get("/charts", collection="Test Model", days=days)
    assert (unknown["collection"], unknown["points"]) == ("Test Model", [])


async def test_the_terms_are_told(bazaar: Bazaar) -> None:
    settings = await bazaar.get("/settings")
    terms = Terms()
    assert settings == {name: value for name, value in dict(terms).items() if isinstance(value, int)}
    assert settings["market_fee_bp"] == 100
    assert await bazaar.get("/integrations") == {"items": [], "next": None}


async def test_integrations_are_those_of_the_settings(installer: Installer) -> None:
    shown = [{"id": "fragment", "title": "Fragment", "logo": "https://example.org/logo.png"}]
    async with running(await installer.install(integrations=shown)) as api:
        assert await Bazaar(api).items("/integrations") == shown


# -- one's own money


async def test_a_deposit_is_sent_with_the_users_memo(bazaar: Bazaar) -> None:
    assert await bazaar.get("/users/me/topup", BOB, amount_nano=10 * TON) == {
        "wallet": "souk-wallet",
        "memo": memo_of(BOB),
        "amount_nano": 10 * TON,
    }
    assert (await bazaar.get("/users/me/topup", BOB))["amount_nano"] is None
    assert await bazaar.status("/users/me/topup", 404) == 404


@pytest.mark.parametrize("user_id", [ALICE, BOB, CAROL, DAVE])
async def test_holds_add_up_and_the_ledger_ends_with_the_balance(bazaar: Bazaar, user_id: int) -> None:
    me = await bazaar.get("/users/me", user_id)
    holds = await bazaar.items("/users/me/holds", user_id)
    assert sum(hold["amount_nano"] for hold in holds) == me["held_nano"]
    assert all(hold.keys() == {"document_kind", "document_id", "amount_nano"} for hold in holds)
    entries = await bazaar.items("/users/me/ledger", user_id, limit=100)
    assert [entry["id"] for entry in entries] == sorted((entry["id"] for entry in entries), reverse=True)
    for side in ("available", "held"):
        of_side = [entry for entry in entries if entry["side"] == side]
        assert sum(entry["change_nano"] for entry in of_side) == me[f"{side}_nano"]
        if of_side:
            assert of_side[0]["balance_after_nano"] == me[f"{side}_nano"]
    assert all(
        entry.keys()
        == {
            *("id", "at", "side", "change_nano", "balance_after_nano", "kind"),
            *("command_id", "document_kind", "document_id"),
        }
        for entry in entries
    )


async def test_the_ledger_is_filtered_by_document_and_time(bazaar: Bazaar) -> None:
    of_offer = await bazaar.items("/users/me/ledger", BOB, document_id=bazaar.ids["offer"])
    assert sorted((entry["side"], entry["change_nano"]) for entry in of_offer) == [("available", -TON), ("held", TON)]
    assert {entry["kind"] for entry in of_offer} == {"offers.create"}
    of_sale = await bazaar.items("/users/me/ledger", CAROL, document_id=bazaar.ids["sale"])
    assert sum(entry["change_nano"] for entry in of_sale) == -5 * TON
    assert {entry["kind"] for entry in of_sale} == {"nft.buy"}
    assert await bazaar.items("/users/me/ledger", DAVE, document_id=bazaar.ids["sale"]) == []
    whole = await bazaar.items("/users/me/ledger", BOB)
    moments = sorted(entry["at"] for entry in whole)
    assert await bazaar.items("/users/me/ledger", BOB, **{"from": moments[0]}) == whole
    assert await bazaar.items("/users/me/ledger", BOB, to=moments[0]) == []


async def test_money_in_and_out_is_shown_with_its_state(bazaar: Bazaar) -> None:
    [deposit] = await bazaar.items("/users/me/deposits", BOB)
    assert (deposit["amount_nano"], deposit["state"]) == (1_000 * TON, "credited")
    [withdrawal] = await bazaar.items("/users/me/withdrawals", BOB)
    assert withdrawal.pop("opened_at")
    assert withdrawal == {
        "withdrawal_id": bazaar.ids["withdrawal"],
        "amount_nano": 2 * TON,
        "fee_nano": TON // 100,
        "net_nano": 2 * TON - TON // 100,
        "address": ADDRESS,
        "state": "requested",
        "request_state": "pending",
        "tx_hash": None,
        "reason": None,
    }
    both = await bazaar.items("/users/me/transactions", BOB)
    assert [(entry["type"], entry["amount_nano"], entry["state"]) for entry in both] == [
        ("withdrawal", 2 * TON, "requested"),
        ("deposit", 1_000 * TON, "credited"),
    ]
    assert len(await bazaar.items("/users/me/transactions", BOB, state="requested")) == 1
    assert await bazaar.items("/users/me/withdrawals", BOB, state="failed") == []
    [returned] = await bazaar.items("/users/me/returns", CAROL)
    assert (returned["return_id"], returned["nft_id"], returned["state"]) == (bazaar.ids["return"], "21", "requested")


async def test_own_items_are_filtered(bazaar: Bazaar) -> None:
    async def found(**query: Any) -> list[int]:
        return sorted(int(item["nft_id"]) for item in await bazaar.items("/users/me/nfts", ALICE, **query))

    assert await found() == [1, 2, 3, 4, 5, 6, 8, 15]
    assert await found(on_sale="true") == await found(state="listed") == [1, 2]
    assert await found(on_sale="false") == [3, 4, 5, 6, 8, 15]
    assert await found(state=["on_auction", "listed"]) == [1, 2, 3]
    assert await found(collection="Swiss Watch") == [15]
    assert await found(num=[1, 8]) == [1, 8]
    prices = [item["price_nano"] for item in await bazaar.items("/users/me/nfts", ALICE, sort="price")]
    assert prices == [2 * TON, 3 * TON, *[None] * 6]
    [reserved] = await bazaar.items("/users/me/nfts", ALICE, state="on_auction")
    assert reserved.keys() == ITEM | {"reserved_by", "reserved_kind"}
    assert reserved["reserved_by"] == bazaar.ids["auction"]


async def test_deals_show_their_items_and_the_side_one_was_on(bazaar: Bazaar) -> None:
    [bought] = await bazaar.items("/users/me/deals", CAROL)
    assert bought.keys() == DEAL | {"items"}
    assert (bought["side"], bought["source"], bought["price_nano"], bought["fee_nano"]) == (
        "buy",
        "sale",
        5 * TON,
        TON // 20,
    )
    [item] = bought["items"]
    assert (item["nft_id"], item["gift"]["collection"], item["direction"], item["quantity"]) == (
        "11",
        "Swiss Watch",
        "to_buyer",
        1,
    )
    assert item["gift"].keys() == GIFT
    sources = [deal["source"] for deal in await bazaar.items("/users/me/deals", BOB)]
    assert sources == ["trade", "sale"]
    assert [deal["side"] for deal in await bazaar.items("/users/me/deals", BOB, source=["sale", "offer"])] == ["sell"]
    assert await bazaar.items("/users/me/deals", BOB, side="buy", source="sale") == []


async def test_a_swap_is_seen_from_ones_own_side(bazaar: Bazaar) -> None:
    for user_id, side, sent, received in ((ALICE, "sell", "7", "15"), (BOB, "buy", "15", "7")):
        [deal] = await bazaar.items("/trades/deals", user_id)
        assert deal.keys() == DEAL | {"sent", "received"}
        assert (deal["deal_id"], deal["side"], deal["price_nano"]) == (bazaar.ids["swap"], side, None)
        assert [item["nft_id"] for item in deal["sent"]] == [sent]
        assert [item["nft_id"] for item in deal["received"]] == [received]
        assert deal["fee_nano"] == 4 * TON * 200 // 10_000
