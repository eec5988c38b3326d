"""Floors: recorded in the order of observation, and the lowest fresh one found."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commands.book import Book
from commands.command import Command, Invalid
from commands.market.floors import Floor, FloorPoint, floor_nano
from commands.outcome import Code, Status
from commands.terms import TON, Integration, Terms
from tests.commands.test_nft import refuse
from tests.commands.world import START, World, code_of, command

PEPE = "Plush Pepe"
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
TWO_MARKETS = (Integration(id="tonnel", title="Tonnel", logo="https://example.org/tonnel.svg"),)


def record(
    price_nano: int,
    observed_at: datetime = START,
    *,
    market: str = "souk",
    collection: str = PEPE,
    model: str | None = None,
) -> Command:
    return command(
        "market.record_floor",
        market=market,
        collection=collection,
        price_nano=price_nano,
        observed_at=observed_at,
        model=model,
    )


def floor_of(world: World, model: str, now: datetime = START, collection: str = PEPE) -> int:
    """What a rule would find."""
    book = Book(world.terms, now)
    rows = [row for (kind, _), row in world.rows.items() if kind is Floor and Floor._make(row).collection == collection]
    book.load_found(Floor, "collection", [collection], rows)
    return floor_nano(book, collection, model)


# -- market.record_floor


@pytest.mark.parametrize(("model", "kept"), [(None, ""), ("Gold", "Gold")])
def test_a_floor_is_kept_charted_and_told(model: str | None, kept: str) -> None:
    world = World()
    assert world.one(record(5 * TON, model=model)).result == {}
    row = ("souk", PEPE, kept, 5 * TON, START)
    assert world.get(Floor, row[:3]) == row
    assert world.of(FloorPoint) == [row]
    [event] = world.events("floor.recorded")
    assert event.topics == ("collection:Plush Pepe",)
    assert event.fields == {
        "market": "souk",
        "collection": PEPE,
        "model": model,
        "price_nano": 5 * TON,
    }


def test_a_newer_floor_takes_the_place_of_the_older_and_both_are_charted() -> None:
    world = World()
    first, second = world.run((record(5 * TON), None), (record(7 * TON, START + SECOND), None))
    assert first.status is second.status is Status.SUCCEEDED
    assert world.get(Floor, ("souk", PEPE, "")).price_nano == 7 * TON
    assert [point.price_nano for point in world.of(FloorPoint)] == [5 * TON, 7 * TON]


@pytest.mark.parametrize("observed_at", [START, START - SECOND])
def test_a_floor_that_is_not_newer_is_out_of_date(observed_at: datetime) -> None:
    world = World()
    world.one(record(5 * TON))
    refuse(world, Code.FLOOR_OUT_OF_DATE, lambda: world.one(record(7 * TON, observed_at)))


def test_a_floor_of_another_market_or_model_does_not_make_one_out_of_date() -> None:
    world = World(Terms(integrations=TWO_MARKETS))
    outcomes = world.run(
        (record(1), None),
        (record(2, market="tonnel"), None),
        (record(3, model="Gold"), None),
        (record(4, collection="Durov's Cap"), None),
    )
    assert {outcome.status for outcome in outcomes} == {Status.SUCCEEDED}


def test_a_feeds_clock_may_be_a_minute_ahead() -> None:
    ahead = START + timedelta(seconds=60)
    assert code_of(World().one(record(TON, ahead + timedelta(microseconds=1)))) == "FLOOR_OUT_OF_DATE"
    assert World().one(record(TON, ahead)).status is Status.SUCCEEDED


def test_only_known_markets_are_recorded() -> None:
    terms = Terms(integrations=TWO_MARKETS)
    for market in ("souk", "tonnel"):
        record(TON, market=market).check(terms)
    with pytest.raises(Invalid, match=r"payload\.market: must be one of souk, tonnel"):
        record(TON, market="portals").check(terms)
    with pytest.raises(Invalid, match=r"payload\.market: must be one of souk$"):
        record(TON, market="tonnel").check(Terms())


@pytest.mark.parametrize(
    "changes", [{"price_nano": 0}, {"collection": ""}, {"model": ""}, {"observed_at": START.replace(tzinfo=None)}]
)
def test_a_floor_has_bounds(changes: dict[str, Any]) -> None:
    fields = {"market": "souk", "collection": PEPE, "price_nano": TON, "observed_at": START}
    with pytest.raises(ValidationError):
        command("market.record_floor", **(fields | changes))


def test_floors_are_ordered_by_collection() -> None:
    assert record(TON).asset(UUID(int=1), None) == "collection:Plush Pepe"


# -- the floor


def test_the_floor_is_the_lowest_over_all_markets() -> None:
    world = World(Terms(integrations=TWO_MARKETS))
    world.run((record(5 * TON, model="Gold"), None), (record(4 * TON, market="tonnel", model="Gold"), None))
    assert floor_of(world, "Gold") == 4 * TON


def test_the_models_floor_goes_before_the_collections_though_it_is_higher() -> None:
    world = World()
    world.run((record(TON), None), (record(9 * TON, model="Gold"), None))
    assert floor_of(world, "Gold") == 9 * TON
    assert floor_of(world, "Silver") == TON


def test_a_stale_floor_of_the_model_gives_way_to_a_fresh_one_of_the_collection() -> None:
    world = World()
    world.run((record(9 * TON, model="Gold"), None), (record(TON, START + SECOND), None))
    assert floor_of(world, "Gold", START + DAY) == 9 * TON
    assert floor_of(world, "Gold", START + DAY + SECOND) == TON
    assert floor_of(world, "Gold", START + DAY + 2 * SECOND) == 0


def test_a_stale_floor_of_one_market_does_not_hide_a_fresh_one_of_another() -> None:
    world = World(Terms(integrations=TWO_MARKETS))
    world.run((record(TON), None), (record(4 * TON, START + SECOND, market="tonnel"), None))
    assert floor_of(world, "Gold", START + DAY + SECOND) == 4 * TON


def test_what_has_no_floor_has_none_of_others() -> None:
    world = World()
    world.one(record(TON))
    assert floor_of(world, "Gold", collection="Durov's Cap") == 0


FLOORS = st.lists(
    st.tuples(
        st.sampled_from(["souk", "tonnel"]), st.sampled_from([None, "Gold"]), st.integers(1, 9), st.integers(0, 40)
    ),
    max_size=12,
)


@given(FLOORS, st.sampled_from(["Gold", "Silver"]), st.integers(0, 60))
def test_the_floor_is_what_its_definition_says(seen: list[Any], model: str, now_hours: int) -> None:
    world = World(Terms(integrations=TWO_MARKETS))
    world.now = START + timedelta(hours=48)
    kept: dict[tuple[str, str | None], tuple[int, int]] = {}
    for market, of_model, price, hours in seen:
        outcome = world.one(record(price, START + timedelta(hours=hours), market=market, model=of_model))
        newer = (market, of_model) not in kept or hours > kept[market, of_model][0]
        assert (outcome.status is Status.SUCCEEDED) == newer
        if newer:
            kept[market, of_model] = hours, price
    fresh = [(key[1], price) for key, (hours, price) in kept.items() if now_hours - hours <= 24]
    of_the_model = [price for of_model, price in fresh if of_model == model]
    of_all = [price for of_model, price in fresh if of_model is None]
    assert floor_of(world, model, START + timedelta(hours=now_hours)) == min(of_the_model or of_all or [0])


# -- terms


def test_a_penalty_is_paid_out_of_the_deposit() -> None:
    with pytest.raises(ValidationError, match="presale_penalty_bp is larger than presale_deposit_bp"):
        Terms(presale_deposit_bp=999)
    Terms(presale_deposit_bp=1_000)
