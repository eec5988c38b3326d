"""Offers: money set aside once, given back or paid once, whoever ends them and how."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.book import FEES, Account, Event, Posting
from commands.command import Command, Invalid, Sender
from commands.deals import Deal, DealItem
from commands.nft.items import Nft, NftState
from commands.offers import Accept, Counter, Create, Expire, Offer, Refuse, Withdraw
from commands.outcome import Code, Outcome, Status
from commands.terms import TON, Terms, fee_nano
from commands.users import User
from tests.commands import histories
from tests.commands.world import World, buy, code_of, set_price, transfer

OWNER, AUTHOR, OTHER, STRANGER = 1, 2, 3, 4
ITEM, ELSEWHERE = 17, 18
PRICE = 8 * TON
UNKNOWN = UUID(int=404)
DAY = timedelta(days=1)


@pytest.fixture
def world() -> World:
    """An owner without money and a listed item at 8 TON; three users with 10 TON each."""
    world = World()
    world.user(OWNER, ton=0)
    for user_id in (AUTHOR, OTHER, STRANGER):
        world.user(user_id)
    world.item(ITEM, OWNER)
    world.item(ELSEWHERE, OWNER)
    assert world.one(set_price(ITEM, PRICE), OWNER).status is Status.SUCCEEDED
    return world


def create(price_nano: int = 5 * TON, nft_id: int = ITEM) -> Command:
    return Create(nft_id=nft_id, price_nano=price_nano)


def withdraw(offer_id: UUID, nft_id: int = ITEM) -> Command:
    return Withdraw(nft_id=nft_id, offer_id=offer_id)


def refuse_offer(offer_id: UUID, nft_id: int = ITEM) -> Command:
    return Refuse(nft_id=nft_id, offer_id=offer_id)


def counter(offer_id: UUID, price_nano: int = 7 * TON, nft_id: int = ITEM) -> Command:
    return Counter(nft_id=nft_id, offer_id=offer_id, price_nano=price_nano)


def accept(offer_id: UUID, price_nano: int = 5 * TON, nft_id: int = ITEM) -> Command:
    return Accept(nft_id=nft_id, offer_id=offer_id, price_nano=price_nano)


def expire(offer_id: UUID, nft_id: int = ITEM) -> Command:
    return Expire(nft_id=nft_id, offer_id=offer_id)


def done(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status is Status.SUCCEEDED, outcome
    assert outcome.result is not None
    return outcome.result


def offered(world: World, price_nano: int = 5 * TON, author: int = AUTHOR) -> UUID:
    return UUID(done(world.one(create(price_nano), author))["offer_id"])


def refused(world: World, code: Code, command: Command, actor: int | None) -> dict[str, Any]:
    """The command is refused with the code, and leaves nothing behind."""
    before = world.snapshot()
    outcome = world.one(command, actor)
    assert outcome.status is Status.REJECTED, outcome
    assert outcome.rejection is not None
    assert outcome.rejection["code"] == code.name
    assert world.snapshot() == before
    return outcome.rejection


def money(world: World, user_id: int) -> tuple[int, int]:
    account = world.get(Account, user_id)
    return account.available_nano, account.held_nano


def told(world: World, name: str) -> dict[tuple[str, ...], dict[str, Any]]:
    return {event.topics: event.fields for event in world.events(name)}


def put(world: World, **changes: Any) -> None:
    world.rows[Nft, ITEM] = world.get(Nft, ITEM)._replace(**changes)


def block(world: World, user_id: int) -> None:
    world.rows[User, user_id] = world.get(User, user_id)._replace(blocked=True)


# -- offers.create


def test_an_offer_holds_its_price_and_stands_for_a_day(world: World) -> None:
    accepted_at = world.now
    result = done(world.one(create(5 * TON), AUTHOR))
    offer_id = UUID(int=world.last_number)
    assert result == {"offer_id": str(offer_id), "held_nano": 5 * TON, "expires_at": accepted_at + DAY}
    assert money(world, AUTHOR) == (5 * TON, 5 * TON)
    offer = world.get(Offer, offer_id)
    assert (offer.nft_id, offer.owner_id, offer.author_id) == (ITEM, OWNER, AUTHOR)
    assert (offer.price_nano, offer.counter_nano, offer.fee_bp, offer.held_nano) == (5 * TON, None, 100, 5 * TON)
    assert (offer.state, offer.opened_at, offer.updated_at, offer.closed_at) == ("open", world.now, world.now, None)
    assert world.of(Posting)[-1][8:] == ("offer", str(offer_id))
    assert world.timers == [(accepted_at + DAY + timedelta(seconds=2), expire(offer_id))]
    assert world.get(Nft, ITEM).hanging
    histories.check(world)


def test_an_offer_is_told_to_both_sides_and_nobody_else(world: World) -> None:
    offer_id = offered(world)
    fields = {"offer_id": str(offer_id), "nft_id": "17", "price_nano": 5 * TON}
    expires_at = world.get(Offer, offer_id).expires_at
    assert told(world, "offer.made") == {
        ("user:2",): fields | {"expires_at": expires_at},
        ("user:1",): fields | {"expires_at": expires_at},
    }


def test_nobody_offers_for_an_item_that_is_not_there(world: World) -> None:
    assert refused(world, Code.NFT_NOT_FOUND, create(nft_id=404), AUTHOR)["nft_id"] == "404"
    put(world, state=NftState.EXTERNAL, owner_id=None)
    refused(world, Code.NFT_NOT_FOUND, create(), AUTHOR)


def test_a_user_has_one_open_offer_on_an_item(world: World) -> None:
    offered(world)
    refused(world, Code.OFFER_ALREADY_EXISTS, create(6 * TON), AUTHOR)
    world.one(set_price(ITEM, None), OWNER)
    refused(world, Code.OFFER_ALREADY_EXISTS, create(6 * TON), AUTHOR)
    assert world.one(set_price(ITEM, PRICE), OWNER).status is Status.SUCCEEDED
    offered(world, author=OTHER)


def test_a_user_offers_again_after_the_first_offer_closed(world: World) -> None:
    done(world.one(withdraw(offered(world)), AUTHOR))
    offered(world)
    assert money(world, AUTHOR) == (5 * TON, 5 * TON)
    histories.check(world)


def test_only_a_listed_item_is_offered_for(world: World) -> None:
    refused(world, Code.NFT_NOT_ON_SALE, create(nft_id=ELSEWHERE), AUTHOR)
    for state, code in (
        (NftState.ON_AUCTION, Code.NFT_ON_AUCTION),
        (NftState.IN_BUNDLE, Code.NFT_IN_BUNDLE),
        (NftState.WITHDRAWING, Code.NFT_NOT_AVAILABLE),
    ):
        put(world, state=state, price_nano=None)
        refused(world, code, create(), AUTHOR)


def test_the_items_state_is_told_before_its_owner(world: World) -> None:
    refused(world, Code.NFT_NOT_ON_SALE, create(nft_id=ELSEWHERE), OWNER)
    put(world, state=NftState.WITHDRAWING, price_nano=None)
    assert refused(world, Code.NFT_NOT_AVAILABLE, create(), OWNER)["state"] == "withdrawing"


def test_nobody_offers_to_oneself(world: World) -> None:
    refused(world, Code.SELF_TRADE_NOT_ALLOWED, create(TON // 100), OWNER)


@pytest.mark.parametrize(
    ("listing", "minimum"), [(8 * TON, 4 * TON), (8 * TON + 1, 4 * TON + 1), (8 * TON - 1, 4 * TON)]
)
def test_an_offer_is_half_the_listed_price_at_least(world: World, listing: int, minimum: int) -> None:
    done(world.one(set_price(ITEM, listing), OWNER))
    rejection = refused(world, Code.OFFER_PRICE_TOO_LOW, create(minimum - 1), AUTHOR)
    assert rejection["minimum_nano"] == minimum
    offered(world, minimum)


def test_an_item_has_so_many_open_offers_and_no_more(world: World) -> None:
    world.terms = Terms(offers_per_item_max=2)
    first = offered(world)
    offered(world, author=OTHER)
    assert refused(world, Code.LIMIT_REACHED, create(), STRANGER)["limit"] == 2
    done(world.one(withdraw(first), AUTHOR))
    offered(world, author=STRANGER)


def test_the_limit_comes_before_the_balance_and_after_the_price(world: World) -> None:
    world.terms = Terms(offers_per_item_max=1)
    offered(world)
    refused(world, Code.LIMIT_REACHED, create(11 * TON), OTHER)
    refused(world, Code.OFFER_PRICE_TOO_LOW, create(TON), OTHER)


def test_an_offer_beyond_the_balance_is_refused_with_both_figures(world: World) -> None:
    rejection = refused(world, Code.INSUFFICIENT_BALANCE, create(10 * TON + 1), AUTHOR)
    assert (rejection["required_nano"], rejection["available_nano"]) == (10 * TON + 1, 10 * TON)
    offered(world, 10 * TON)
    assert money(world, AUTHOR) == (0, 10 * TON)


def test_held_money_is_not_offered_twice(world: World) -> None:
    offered(world, 6 * TON)
    done(world.one(set_price(ELSEWHERE, PRICE), OWNER))
    rejection = refused(world, Code.INSUFFICIENT_BALANCE, create(6 * TON, ELSEWHERE), AUTHOR)
    assert rejection["available_nano"] == 4 * TON


# -- offers.withdraw, offers.refuse


@pytest.mark.parametrize(("end", "actor", "state"), [(withdraw, AUTHOR, "withdrawn"), (refuse_offer, OWNER, "refused")])
def test_an_offer_that_one_side_ends_gives_everything_back(world: World, end: Any, actor: int, state: str) -> None:
    offer_id = offered(world)
    result = done(world.one(end(offer_id), actor))
    assert result == {"offer_id": str(offer_id), "released_nano": 5 * TON}
    assert money(world, AUTHOR) == (10 * TON, 0)
    offer = world.get(Offer, offer_id)
    assert (offer.state, offer.held_nano, offer.reason) == (state, 0, None)
    assert offer.closed_at == offer.updated_at == world.now
    assert world.get(Nft, ITEM).state == NftState.LISTED
    fields = {"offer_id": str(offer_id), "nft_id": "17", "released_nano": 5 * TON}
    assert told(world, f"offer.{state}") == {("user:1",): fields, ("user:2",): fields}
    histories.check(world)


@pytest.mark.parametrize("command", [withdraw, refuse_offer, counter, accept, expire])
def test_an_offer_is_found_by_its_id_and_its_item(world: World, command: Any) -> None:
    offer_id = offered(world)
    for actor in (OWNER, AUTHOR):
        sender = None if command is expire else actor
        refused(world, Code.OFFER_NOT_FOUND, command(UNKNOWN), sender)
        refused(world, Code.OFFER_NOT_FOUND, command(offer_id, nft_id=ELSEWHERE), sender)
        refused(world, Code.OFFER_NOT_FOUND, command(offer_id, nft_id=404), sender)


@pytest.mark.parametrize(
    ("command", "strangers"),
    [
        (withdraw, (OWNER, STRANGER)),
        (refuse_offer, (AUTHOR, STRANGER)),
        (counter, (AUTHOR, STRANGER)),
        (accept, (STRANGER,)),
    ],
)
def test_an_offer_is_ended_by_the_side_whose_right_it_is(
    world: World, command: Any, strangers: tuple[int, ...]
) -> None:
    offer_id = offered(world)
    for stranger in strangers:
        refused(world, Code.OFFER_PERMISSION_DENIED, command(offer_id), stranger)


@pytest.mark.parametrize(
    ("command", "actor"),
    [(withdraw, AUTHOR), (refuse_offer, OWNER), (counter, OWNER), (accept, OWNER), (accept, AUTHOR), (expire, None)],
)
def test_a_closed_offer_stays_closed(world: World, command: Any, actor: int | None) -> None:
    offer_id = offered(world)
    done(world.one(withdraw(offer_id), AUTHOR))
    refused(world, Code.OFFER_NOT_OPEN, command(offer_id), actor)


@pytest.mark.parametrize(("command", "actor"), [(counter, OWNER), (accept, OWNER)])
def test_a_closed_offer_says_so_after_its_time_too(world: World, command: Any, actor: int) -> None:
    offer_id = offered(world)
    world.advance(2 * DAY.total_seconds())
    refused(world, Code.OFFER_NOT_OPEN, command(offer_id), actor)


@pytest.mark.parametrize("end", [withdraw, refuse_offer])
def test_a_blocked_user_still_ends_offers(world: World, end: Any) -> None:
    offer_id = offered(world)
    block(world, AUTHOR)
    block(world, OWNER)
    refused(world, Code.USER_BLOCKED, accept(offer_id), OWNER)
    refused(world, Code.USER_BLOCKED, counter(offer_id), OWNER)
    refused(world, Code.USER_BLOCKED, create(), AUTHOR)
    done(world.one(end(offer_id), AUTHOR if end is withdraw else OWNER))
    assert money(world, AUTHOR) == (10 * TON, 0)


def test_an_offer_past_its_time_is_still_withdrawn_or_refused(world: World) -> None:
    first, second = offered(world), offered(world, author=OTHER)
    world.now += 2 * DAY
    done(world.one(withdraw(first), AUTHOR))
    done(world.one(refuse_offer(second), OWNER))
    histories.check(world)


# -- offers.counter


def test_a_counter_keeps_the_hold_and_starts_the_day_anew(world: World) -> None:
    offer_id = offered(world)
    world.now += timedelta(hours=5)
    accepted_at = world.now
    result = done(world.one(counter(offer_id, 7 * TON), OWNER))
    assert result == {"offer_id": str(offer_id), "counter_nano": 7 * TON, "expires_at": accepted_at + DAY}
    assert money(world, AUTHOR) == (5 * TON, 5 * TON)
    offer = world.get(Offer, offer_id)
    assert (offer.price_nano, offer.counter_nano, offer.held_nano, offer.state) == (5 * TON, 7 * TON, 5 * TON, "open")
    assert (offer.expires_at, offer.updated_at) == (accepted_at + DAY, world.now)
    fields = {"offer_id": str(offer_id), "nft_id": "17", "price_nano": 5 * TON, "counter_nano": 7 * TON}
    fields["expires_at"] = offer.expires_at
    assert told(world, "offer.countered") == {("user:1",): fields, ("user:2",): fields}
    histories.check(world)


def test_a_later_counter_replaces_the_earlier_one(world: World) -> None:
    offer_id = offered(world)
    done(world.one(counter(offer_id, 7 * TON), OWNER))
    done(world.one(counter(offer_id, 6 * TON), OWNER))
    rejection = refused(world, Code.PRICE_CHANGED, accept(offer_id, 7 * TON), AUTHOR)
    assert rejection["price_nano"] == 6 * TON
    done(world.one(accept(offer_id, 6 * TON), AUTHOR))


def test_the_first_timer_finds_a_countered_offer_alive_and_the_second_ends_it(world: World) -> None:
    offer_id = offered(world)
    world.now += timedelta(hours=5)
    done(world.one(counter(offer_id), OWNER))
    [first] = world.advance(20 * 3600)
    assert code_of(first) == "OFFER_NOT_EXPIRED"
    [second] = world.advance(5 * 3600)
    assert second.result == {"released_nano": 5 * TON}


# -- offers.accept


def test_the_owner_sells_at_the_offers_price(world: World) -> None:
    offer_id = offered(world)
    result = done(world.one(accept(offer_id, 5 * TON), OWNER))
    fee = 5 * TON // 100
    [deal] = world.of(Deal)
    assert result == {"deal_id": str(deal.id), "price_nano": 5 * TON, "fee_nano": fee}
    assert deal == (UUID(int=world.last_number), "offer", OWNER, AUTHOR, 5 * TON, 100, fee, 5 * TON - fee)
    assert world.of(DealItem) == [(deal.id, ITEM, ITEM, 1, "to_buyer")]
    assert (money(world, OWNER), money(world, AUTHOR)) == ((5 * TON - fee, 0), (5 * TON, 0))
    nft = world.get(Nft, ITEM)
    assert (nft.owner_id, nft.state, nft.price_nano, nft.hanging) == (AUTHOR, NftState.HELD, None, False)
    offer = world.get(Offer, offer_id)
    assert (offer.state, offer.held_nano, offer.reason) == ("accepted", 0, None)
    assert offer.closed_at == offer.updated_at == world.now
    assert [posting[1:6] for posting in world.of(Posting)[-2:]] == [
        (AUTHOR, "held", OWNER, "available", 5 * TON - fee),
        (AUTHOR, "held", FEES, "available", fee),
    ]
    assert {posting[8:] for posting in world.of(Posting)[-2:]} == {("offer", str(offer_id))}
    histories.check(world)


def test_an_accepted_offer_is_told_as_a_sale(world: World) -> None:
    offer_id = offered(world)
    already = len(world.records)
    done(world.one(accept(offer_id), OWNER))
    events = [row for row in world.records[already:] if isinstance(row, Event)]
    assert [(event.name, event.topics) for event in events] == [
        ("offer.accepted", ("user:2",)),
        ("offer.accepted", ("user:1",)),
        ("nft.sold", ("nft:17", "collection:Plush Pepe", "market")),
        ("deal.made", ("user:1",)),
        ("deal.made", ("user:2",)),
        ("balance.changed", ("user:2",)),
        ("balance.changed", ("user:1",)),
    ]
    assert events[0].fields == events[1].fields == {"offer_id": str(offer_id), "nft_id": "17"}
    assert (events[2].fields["source"], events[2].fields["price_nano"]) == ("offer", 5 * TON)


def test_the_owner_may_take_the_offers_price_after_a_counter(world: World) -> None:
    offer_id = offered(world)
    done(world.one(counter(offer_id), OWNER))
    refused(world, Code.PRICE_CHANGED, accept(offer_id, 7 * TON), OWNER)
    assert done(world.one(accept(offer_id, 5 * TON), OWNER))["price_nano"] == 5 * TON
    histories.check(world)


def test_the_author_adds_what_a_higher_counter_asks(world: World) -> None:
    offer_id = offered(world)
    done(world.one(counter(offer_id, 10 * TON), OWNER))
    assert done(world.one(accept(offer_id, 10 * TON), AUTHOR))["price_nano"] == 10 * TON
    assert money(world, AUTHOR) == (0, 0)
    assert money(world, OWNER) == (10 * TON - 10 * TON // 100, 0)
    assert "released_nano" not in world.events("offer.accepted")[0].fields
    histories.check(world)


def test_the_author_gets_back_what_a_lower_counter_spares(world: World) -> None:
    offer_id = offered(world)
    done(world.one(counter(offer_id, 4 * TON), OWNER))
    done(world.one(accept(offer_id, 4 * TON), AUTHOR))
    assert money(world, AUTHOR) == (6 * TON, 0)
    assert {fields["released_nano"] for fields in told(world, "offer.accepted").values()} == {TON}
    histories.check(world)


def test_a_counter_beyond_the_balance_names_only_the_difference(world: World) -> None:
    offer_id = offered(world)
    done(world.one(counter(offer_id, 10 * TON + 1), OWNER))
    rejection = refused(world, Code.INSUFFICIENT_BALANCE, accept(offer_id, 10 * TON + 1), AUTHOR)
    assert (rejection["required_nano"], rejection["available_nano"]) == (5 * TON + 1, 5 * TON)


def test_a_lower_counter_needs_no_balance(world: World) -> None:
    offer_id = offered(world, 10 * TON)
    done(world.one(counter(offer_id, 9 * TON), OWNER))
    done(world.one(accept(offer_id, 9 * TON), AUTHOR))
    assert money(world, AUTHOR) == (TON, 0)


def test_the_author_accepts_nothing_but_a_counter(world: World) -> None:
    refused(world, Code.OFFER_NO_COUNTER, accept(offered(world)), AUTHOR)


def test_no_side_pays_a_price_it_has_not_seen(world: World) -> None:
    offer_id = offered(world)
    assert refused(world, Code.PRICE_CHANGED, accept(offer_id, 6 * TON), OWNER)["price_nano"] == 5 * TON
    done(world.one(counter(offer_id, 7 * TON), OWNER))
    assert refused(world, Code.PRICE_CHANGED, accept(offer_id, 5 * TON), AUTHOR)["price_nano"] == 7 * TON


def test_the_item_need_not_be_listed_any_more(world: World) -> None:
    offer_id = offered(world)
    done(world.one(set_price(ITEM, None), OWNER))
    assert money(world, AUTHOR) == (5 * TON, 5 * TON)
    done(world.one(accept(offer_id), OWNER))
    histories.check(world)


def test_the_fee_is_that_of_the_moment_of_the_offer(world: World) -> None:
    offer_id = offered(world)
    world.terms = Terms(market_fee_bp=9_999)
    done(world.one(set_price(ITEM, PRICE), OWNER))
    assert done(world.one(accept(offer_id), OWNER))["fee_nano"] == 5 * TON // 100


def test_accepting_one_offer_closes_and_releases_the_others(world: World) -> None:
    offer_id, other_id = offered(world), offered(world, 6 * TON, OTHER)
    done(world.one(accept(offer_id), OWNER))
    assert world.get(Offer, offer_id).state == "accepted"
    other = world.get(Offer, other_id)
    assert (other.state, other.reason, other.held_nano) == ("closed", "sold", 0)
    assert money(world, OTHER) == (10 * TON, 0)
    fields = {"offer_id": str(other_id), "nft_id": "17", "released_nano": 6 * TON, "reason": "sold"}
    assert told(world, "offer.closed") == {("user:1",): fields, ("user:3",): fields}
    histories.check(world)


# -- time


@pytest.mark.parametrize(("command", "actor"), [(accept, OWNER), (counter, OWNER)])
def test_in_time_is_before_the_deadline_by_the_time_of_acceptance(world: World, command: Any, actor: int) -> None:
    offer_id = offered(world)
    deadline = world.get(Offer, offer_id).expires_at
    world.now = deadline
    refused(world, Code.OFFER_EXPIRED, command(offer_id), actor)
    world.now = deadline - timedelta(microseconds=1)
    done(world.one(command(offer_id), actor))


def test_an_expired_counter_is_not_accepted_however_late_the_timer(world: World) -> None:
    offer_id = offered(world)
    done(world.one(counter(offer_id), OWNER))
    world.now = world.get(Offer, offer_id).expires_at
    refused(world, Code.OFFER_EXPIRED, accept(offer_id, 7 * TON), AUTHOR)
    refused(world, Code.OFFER_EXPIRED, accept(offer_id, 6 * TON), AUTHOR)


def test_a_missing_counter_is_told_before_the_time(world: World) -> None:
    offer_id = offered(world)
    world.now += 2 * DAY
    refused(world, Code.OFFER_NO_COUNTER, accept(offer_id), AUTHOR)


def test_the_timer_ends_the_offer_once(world: World) -> None:
    offer_id = offered(world)
    [outcome] = world.advance(DAY.total_seconds() + 10)
    assert outcome.result == {"released_nano": 5 * TON}
    assert world.get(Offer, offer_id).state == "expired"
    assert money(world, AUTHOR) == (10 * TON, 0)
    fields = {"offer_id": str(offer_id), "nft_id": "17", "released_nano": 5 * TON}
    assert told(world, "offer.expired") == {("user:1",): fields, ("user:2",): fields}
    refused(world, Code.OFFER_NOT_OPEN, expire(offer_id), None)
    histories.check(world)


def test_an_offer_expires_a_grace_after_its_deadline_and_not_before(world: World) -> None:
    offer_id = offered(world)
    due = world.get(Offer, offer_id).expires_at + timedelta(seconds=2)
    world.now = due - timedelta(microseconds=1)
    refused(world, Code.OFFER_NOT_EXPIRED, expire(offer_id), None)
    world.now = due
    done(world.one(expire(offer_id)))


# -- what happens to the item


@pytest.mark.parametrize(
    ("command", "actor", "reason"), [(buy(ITEM, PRICE), OTHER, "sold"), (transfer(ITEM, OTHER), OWNER, "transferred")]
)
def test_an_item_that_goes_another_way_closes_its_offers(
    world: World, command: Command, actor: int, reason: str
) -> None:
    first, second = offered(world), offered(world, 6 * TON, STRANGER)
    done(world.one(command, actor))
    for offer_id, author in ((first, AUTHOR), (second, STRANGER)):
        offer = world.get(Offer, offer_id)
        assert (offer.state, offer.reason, offer.held_nano) == ("closed", reason, 0)
        assert money(world, author) == (10 * TON, 0)
        refused(world, Code.OFFER_NOT_OPEN, accept(offer_id), OTHER)
        refused(world, Code.OFFER_NOT_OPEN, accept(offer_id), OWNER)
        refused(world, Code.OFFER_NOT_OPEN, refuse_offer(offer_id), OTHER)
    assert [event.topics for event in world.events("offer.closed")] == [
        ("user:2",),
        ("user:1",),
        ("user:4",),
        ("user:1",),
    ]
    assert not world.get(Nft, ITEM).hanging
    histories.check(world)


def test_an_offer_of_an_item_that_left_is_closed_to_its_owner(world: World) -> None:
    offer_id = offered(world)
    done(world.one(withdraw(offer_id), AUTHOR))
    put(world, state=NftState.EXTERNAL, owner_id=None, price_nano=None)
    refused(world, Code.OFFER_NOT_OPEN, refuse_offer(offer_id), OWNER)
    refused(world, Code.OFFER_PERMISSION_DENIED, refuse_offer(offer_id), STRANGER)


def test_pricing_anew_leaves_offers_open(world: World) -> None:
    offer_id = offered(world)
    done(world.one(set_price(ITEM, 100 * TON), OWNER))
    done(world.one(set_price(ITEM, None), OWNER))
    assert world.get(Offer, offer_id).state == "open"
    histories.check(world)


# -- one batch


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ((accept, OWNER), (withdraw, AUTHOR), "accepted"),
        ((withdraw, AUTHOR), (accept, OWNER), "withdrawn"),
        ((refuse_offer, OWNER), (accept, OWNER), "refused"),
        ((accept, OWNER), (refuse_offer, OWNER), "accepted"),
    ],
)
def test_of_two_that_end_an_offer_the_first_wins(world: World, first: Any, second: Any, state: str) -> None:
    offer_id = offered(world)
    won, lost = world.run((first[0](offer_id), first[1]), (second[0](offer_id), second[1]))
    done(won)
    assert code_of(lost) == "OFFER_NOT_OPEN"
    assert world.get(Offer, offer_id).state == state
    histories.check(world)


def test_an_offer_is_made_countered_and_accepted_in_one_batch(world: World) -> None:
    offer_id = UUID(int=world.last_number + 2)
    outcomes = world.run(
        (create(6 * TON), OTHER),
        (create(5 * TON), AUTHOR),
        (counter(offer_id), OWNER),
        (accept(offer_id, 7 * TON), AUTHOR),
        (set_price(ITEM, PRICE), AUTHOR),
        (create(6 * TON), OTHER),
    )
    assert [outcome.status for outcome in outcomes] == [Status.SUCCEEDED] * 6
    assert money(world, OTHER) == (4 * TON, 6 * TON)
    histories.check(world)


def test_the_released_money_of_an_offer_buys_in_the_very_next_command(world: World) -> None:
    offer_id = offered(world, 10 * TON)
    outcomes = world.run((refuse_offer(offer_id), OWNER), (buy(ITEM, PRICE), AUTHOR))
    assert [outcome.status for outcome in outcomes] == [Status.SUCCEEDED] * 2


# -- bounds


@pytest.mark.parametrize(
    "command", [create, lambda price: counter(UNKNOWN, price), lambda price: accept(UNKNOWN, price)]
)
def test_prices_are_within_the_terms(command: Any) -> None:
    terms = Terms()
    for price in (terms.price_min_nano, terms.price_max_nano):
        command(price).check(terms)
    for price in (terms.price_min_nano - 1, terms.price_max_nano + 1):
        with pytest.raises(Invalid, match="price_nano"):
            command(price).check(terms)


def test_offers_are_ordered_by_their_item_and_expired_by_the_system() -> None:
    for command in (create(), withdraw(UNKNOWN), refuse_offer(UNKNOWN), counter(UNKNOWN), accept(UNKNOWN)):
        assert command.asset(UNKNOWN, AUTHOR) == "nft:17"
        assert command.sent_by == {Sender.USER}
    assert expire(UNKNOWN).asset(UNKNOWN, None) == "nft:17"
    assert Sender.USER not in Expire.sent_by
    assert Sender.SYSTEM in Expire.sent_by


# -- random histories


@given(histories.steps(*histories.OFFER_KINDS, *histories.ITEM_KINDS))
@settings(max_examples=200, deadline=None)
def test_holds_follow_offers_through_any_history(history: list[histories.Step]) -> None:
    world = histories.begun()
    for step in history:
        outcomes = histories.run(world, step)
        assert {outcome.status for outcome in outcomes} <= {Status.SUCCEEDED, Status.REJECTED}
        histories.check(world)


@given(histories.steps(*histories.OFFER_KINDS, *histories.ITEM_KINDS))
@settings(max_examples=100, deadline=None)
def test_a_batch_of_offers_is_worth_as_many_batches_of_one(history: list[histories.Step]) -> None:
    histories.compare(history)


@given(st.integers(TON // 100, 10**14), st.integers(0, 10_000))
def test_the_lowest_offer_is_the_least_that_the_rule_allows(listing: int, minimum_bp: int) -> None:
    world = World(Terms(offer_min_bp=minimum_bp))
    world.user(OWNER, ton=0)
    world.user(AUTHOR, ton=0)
    world.item(ITEM, OWNER)
    world.one(set_price(ITEM, listing), OWNER)
    for price in {listing * minimum_bp // 10_000 + change for change in (-1, 0, 1)} - {-1, 0}:
        low = price * 10_000 < listing * minimum_bp
        code = code_of(world.one(create(price), AUTHOR))
        assert code == ("OFFER_PRICE_TOO_LOW" if low else "INSUFFICIENT_BALANCE")


def test_an_accepted_offer_pays_all_but_the_fee(world: World) -> None:
    world.terms = Terms(market_fee_bp=333)
    offer_id = offered(world, 5 * TON + 7)
    done(world.one(accept(offer_id, 5 * TON + 7), OWNER))
    assert money(world, OWNER)[0] == 5 * TON + 7 - fee_nano(5 * TON + 7, 333)
