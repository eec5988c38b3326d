"""What the reads cost on a marketplace of a million items: every page is found by an index and touches little.

Milliseconds are for docs/performance.md; here it is pages of memory, rows and plans, which no busy machine changes.
"""

from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest

from storage.postgres.connection import engine as make_engine
from tests.api.million import ITEMS, LISTED, RARE, fill
from tests.api.plans import Reader
from tests.installation import Installer, connected

BUFFERS_MAX = 10_000
ROWS_MAX = 20_000
LARGE = {"nfts", "gifts", "traits", "deals", "deal_items", "postings", "offers", "floor_points"}
WHALE, MIDDLING, SMALL = 3, 300, 777
"""Users who own 5,000 items and 15,000 postings, 80, and 50."""


@pytest.fixture(scope="module")
async def million(installer: Installer) -> AsyncIterator[Reader]:
    settings = await installer.install()
    await fill(settings)
    async with connected(settings) as connection:
        counted = await connection.fetchrow("SELECT count(*), count(*) FILTER (WHERE state = 'listed') FROM nfts")
        assert counted is not None
        assert tuple(counted) == (ITEMS, LISTED)
    engine = make_engine(settings)
    yield Reader(engine, settings)
    await engine.dispose()


async def read_cheaply(million: Reader, path: str, user_id: int | None = None, **query: Any) -> int:
    """Read two pages, each within the budget; answers how many items they had."""
    found = 0
    for _ in range(2):
        page, plans = await million.read(path, user_id, **query)
        for plan in plans:
            told = f"{path} {query}: {plan.buffers} buffers, {plan.rows} rows, {plan.text}"
            assert plan.buffers <= BUFFERS_MAX, told
            assert plan.rows <= ROWS_MAX, told
            assert not plan.scanned & LARGE, told
        found += len(page.get("items", ()))
        if page.get("next") is None:
            break
        query["cursor"] = page["next"]
    return found


def names(trait: str, *numbers: int) -> list[str]:
    return [f"{trait} {number}" for number in numbers]


GIFT_FILTERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a common collection": {"collection": "Collection 0"},
    "a rare collection": {"collection": RARE},
    "no such collection": {"collection": "None"},
    "three rare collections": {"collection": names("Collection", 97, 98, 99)},
    "fifty collections": {"collection": names("Collection", *range(50, 100))},
    "a common model": {"model": "Original"},
    "rare models": {"model": [f"Model 90-{number}" for number in range(30, 35)]},
    "a common backdrop": {"backdrop": "Backdrop 0"},
    "rare backdrops": {"backdrop": names("Backdrop", 77, 78, 79)},
    "a rare pattern": {"pattern": "Pattern 249"},
    "rare and common": {"collection": "Collection 0", "backdrop": "Backdrop 79"},
    "many of each": {
        "collection": names("Collection", *range(10)),
        "backdrop": names("Backdrop", *range(70, 80)),
    },
    "one in fifty collections": {"collection": names("Collection", *range(50)), "backdrop": "Backdrop 79"},
    "a number": {"num": 777},
    "few numbers": {"num_min": 1, "num_max": 100},
}
PRICES: dict[str, dict[str, Any]] = {
    "cheap": {"price_max_nano": 50 * 10**9},
    "dear": {"price_min_nano": 2_000 * 10**9},
    "narrow": {"price_min_nano": 100 * 10**9, "price_max_nano": 100 * 10**9 + 10**7},
    "narrow and common": {"collection": "Collection 0", "price_min_nano": 10**11, "price_max_nano": 10**11 + 10**9},
    "cheap and rare": {"backdrop": "Backdrop 79", "price_max_nano": 50 * 10**9},
}


def both_ways(*sorts: str) -> list[str]:
    return [sign + sort for sort in sorts for sign in ("", "-")]


LISTING_SORTS = both_ways("price", "created_at", "num", "model_permille")


@pytest.mark.parametrize(
    ("path", "sorts", "filters"),
    [
        ("/listings", LISTING_SORTS, GIFT_FILTERS | PRICES),
        ("/auctions", both_ways("price", "ends_at", "created_at", "num", "model_permille"), GIFT_FILTERS),
        ("/presales", LISTING_SORTS, GIFT_FILTERS),
        ("/channels", both_ways("price", "created_at"), GIFT_FILTERS),
        ("/trades", both_ways("created_at"), GIFT_FILTERS),
    ],
)
async def test_a_market_page_costs_little_whatever_is_asked_for(
    million: Reader, path: str, sorts: list[str], filters: dict[str, dict[str, Any]]
) -> None:
    for sort, (name, query) in product(sorts, filters.items()):
        found = await read_cheaply(million, path, None, sort=sort, **query)
        assert found or name not in ("nothing", "a common collection", "a common backdrop")


async def test_a_full_page_of_listings_costs_little(million: Reader) -> None:
    for sort, query in product(LISTING_SORTS, GIFT_FILTERS.values()):
        await read_cheaply(million, "/listings", None, sort=sort, limit=100, **query)


@pytest.mark.parametrize(
    "query",
    [
        {"wants_collection": "Collection 5"},
        {"wants_collection": ["Collection 5", "None"]},
        {"wants_collection": "None"},
        {"wants_backdrop": "Backdrop 79"},
        {"wants_backdrop": "Backdrop 79", "wants_collection": "Collection 79", "collection": "Collection 0"},
    ],
)
async def test_trades_are_found_by_what_they_want(million: Reader, query: dict[str, Any]) -> None:
    await read_cheaply(million, "/trades", None, **query)


@pytest.mark.parametrize("user_id", [WHALE, MIDDLING, SMALL])
@pytest.mark.parametrize(
    ("path", "query"),
    [
        *(("/users/me/nfts", {"sort": sort}) for sort in both_ways("received_at", "price", "num", "model_permille")),
        ("/users/me/nfts", {"on_sale": "true", "sort": "price"}),
        ("/users/me/ledger", {}),
        ("/users/me/ledger", {"sort": "id"}),
        ("/users/me/ledger", {"document_id": "0197b0c4-0000-7000-8000-000000000003"}),
        ("/users/me/ledger", {"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}),
        ("/users/me/holds", {}),
        ("/users/me/deposits", {}),
        ("/users/me/withdrawals", {"state": "requested"}),
        ("/users/me/transactions", {}),
        ("/users/me/deals", {}),
        ("/users/me/deals", {"side": "buy", "source": ["offer", "presale"]}),
        ("/users/me/returns", {}),
        ("/auctions/deals", {}),
        ("/auctions/mine", {"role": "seller"}),
        ("/auctions/mine", {"role": "bidder", "sort": "-num"}),
        ("/presales/mine", {}),
        ("/offers", {}),
        ("/offers", {"direction": "received", "state": ["open", "expired"]}),
        ("/trades/mine", {}),
        ("/trades/personal", {}),
        ("/trades/deals", {"side": "sell"}),
        ("/proposals", {}),
        ("/channels/mine", {}),
        ("/channels/mine", {"sort": "-price"}),
        ("/channels/purchases", {}),
        ("/accounts", {}),
        ("/accounts/gifts", {}),
    ],
)
async def test_a_private_page_costs_little_for_whoever_asks(
    million: Reader, user_id: int, path: str, query: dict[str, Any]
) -> None:
    await read_cheaply(million, path, user_id, **query)


@pytest.mark.parametrize("path", ["/models", "/patterns", "/backdrops"])
@pytest.mark.parametrize("query", [{}, {"collection": "Collection 0"}, {"collection": names("Collection", *range(50))}])
async def test_traits_are_not_counted_by_a_read(million: Reader, path: str, query: dict[str, Any]) -> None:
    assert await read_cheaply(million, path, None, limit=100, **query)


async def test_what_is_on_sale_is_counted_once_for_many_reads(million: Reader) -> None:
    await million.read("/collections")
    for limit in (20, 100):
        page, plans = await million.read("/collections", limit=limit)
        assert len(plans) == 1
        assert plans[0].buffers <= BUFFERS_MAX
        assert sum(item["listed"] for item in page["items"]) <= LISTED


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/floor", {"collection": "Collection 5", "model": "Model 5-5"}),
        ("/charts", {"collection": "Collection 5", "days": 30}),
        ("/nfts/7", {}),
        ("/gifts/7", {}),
        ("/gifts/7/deals", {}),
        ("/channels/5", {}),
        ("/auctions/0197b0c4-0000-7000-8000-000000000007/bids", {}),
        ("/ops/deposits", {}),
        ("/ops/requests", {}),
        ("/ops/requests", {"state": "done"}),
        ("/ops/ledger", {}),
    ],
)
async def test_other_reads_cost_little(million: Reader, path: str, query: dict[str, Any]) -> None:
    await read_cheaply(million, path, None, **query)
