"""Channels: inspected before they are priced, moved before anybody is paid, and never sold twice."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic_core import from_json

from commands.accounts.telegram import Channel, ChannelState, TelegramAccount
from commands.command import KINDS, SYSTEM, Invalid
from commands.nft.items import Gift
from commands.outcome import Code, Status
from commands.requests import RequestState
from commands.terms import TON, Terms
from commands.users import User
from tests.commands.telegram import (
    CHANNEL,
    NOWHERE,
    OTHER,
    OWNER,
    PRICE,
    THIRD,
    add,
    added,
    asked,
    buy,
    channel,
    checking,
    connected,
    delete,
    events_since,
    id_of,
    listed,
    moved,
    not_moved,
    not_shown,
    price,
    refuse,
    selling,
    sent,
    shown,
    succeed,
    told,
    with_code,
)
from tests.commands.world import World, gift

GIFTS = [{"gift_id": "7", "quantity": 2}, {"gift_id": "8", "quantity": 1}]


@pytest.fixture
def world() -> World:
    """Three users with 10 TON each."""
    world = World()
    for user_id in (OWNER, OTHER, THIRD):
        world.user(user_id)
    return world


@pytest.fixture
def account_id(world: World) -> UUID:
    return connected(world)


@pytest.fixture
def others_account_id(world: World) -> UUID:
    return connected(world, OTHER, "+15550001111", telegram_id=778)


# -- adding


def test_adding_has_the_channel_inspected(world: World, account_id: UUID) -> None:
    mark = len(world.records)
    outcome = world.one(add(account_id), OWNER)
    check_id = id_of(outcome, "check_id")
    assert outcome.result == {"channel_id": str(CHANNEL), "check_id": str(check_id)}
    assert channel(world) == Channel(
        *(CHANNEL, OWNER, account_id, check_id, None, None, "[]", None, None, None, "checking", None, None),
        *(world.now, None),
    )
    request = asked(world, check_id)
    assert (request.op, request.answers) == ("channel.inspect", "channels.add")
    assert from_json(request.body) == {"account_id": str(account_id), "channel_id": str(CHANNEL)}
    assert from_json(request.names) == {"channel_id": str(CHANNEL), "check_id": str(check_id)}
    assert world.timers[-1] == (world.now + timedelta(seconds=3_602), not_shown(check_id, "expired"))
    assert events_since(world, mark) == []


def test_channels_are_routed_by_themselves() -> None:
    for command in (add(NOWHERE), shown(CHANNEL, NOWHERE), price(TON), delete(), buy(), moved(NOWHERE)):
        assert command.asset(NOWHERE, OWNER) == f"channel:{CHANNEL}"


def test_only_an_own_connected_account_adds(world: World, account_id: UUID) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, add(NOWHERE), OWNER)
    refuse(world, Code.ACCOUNT_PERMISSION_DENIED, add(account_id), OTHER)
    unfinished = with_code(world, phone="+15550002222")
    assert refuse(world, Code.ACCOUNT_NOT_ACTIVE, add(unfinished), OWNER)["state"] == "code_sent"
    world.rows[User, OWNER] = world.get(User, OWNER)._replace(blocked=True)
    refuse(world, Code.USER_BLOCKED, add(account_id), OWNER)


def test_what_is_being_inspected_is_not_added(world: World, account_id: UUID, others_account_id: UUID) -> None:
    checking(world, account_id)
    refuse(world, Code.CHANNEL_ALREADY_EXISTS, add(account_id), OWNER)
    refuse(world, Code.CHANNEL_ALREADY_EXISTS, add(others_account_id), OTHER)


def test_somebody_elses_channel_is_not_added(world: World, account_id: UUID, others_account_id: UUID) -> None:
    added(world, account_id)
    refuse(world, Code.CHANNEL_ALREADY_EXISTS, add(others_account_id), OTHER)
    world.advance(86_400)
    succeed(world, price(PRICE), OWNER)
    refuse(world, Code.CHANNEL_ALREADY_EXISTS, add(others_account_id), OTHER)
    unfinished = with_code(world, OTHER, phone="+15550002222")
    refuse(world, Code.CHANNEL_ALREADY_EXISTS, add(unfinished), OTHER)


def test_what_is_being_sold_is_not_added(world: World, account_id: UUID, others_account_id: UUID) -> None:
    selling(world, account_id)
    refuse(world, Code.CHANNEL_RESERVED, add(account_id), OWNER)
    refuse(world, Code.CHANNEL_RESERVED, add(others_account_id), OTHER)
    unfinished = with_code(world, phone="+15550002222")
    refuse(world, Code.ACCOUNT_NOT_ACTIVE, add(unfinished), OWNER)


def _listed(world: World, account_id: UUID) -> None:
    listed(world, account_id, PRICE)


def _refused(world: World, account_id: UUID) -> None:
    succeed(world, not_shown(checking(world, account_id)))


def _deleted(world: World, account_id: UUID) -> None:
    added(world, account_id)
    succeed(world, delete(), OWNER)


def _sold(world: World, account_id: UUID) -> None:
    succeed(world, moved(selling(world, account_id)))


@pytest.mark.parametrize("begin", [added, _listed, _refused, _deleted, _sold])
def test_a_channel_is_inspected_again(world: World, account_id: UUID, begin: Any) -> None:
    begin(world, account_id)
    check_id = checking(world, account_id)
    assert channel(world) == Channel(
        *(CHANNEL, OWNER, account_id, check_id, None, None, "[]", None, None, None, "checking", None, None),
        *(world.now, None),
    )


@pytest.mark.parametrize("begin", [_refused, _deleted, _sold])
def test_what_is_nobodys_is_added_by_another(
    world: World, account_id: UUID, others_account_id: UUID, begin: Any
) -> None:
    begin(world, account_id)
    checking(world, others_account_id, OTHER)
    assert (channel(world).owner_id, channel(world).account_id) == (OTHER, others_account_id)


# -- what the inspection showed


def test_an_inspected_channel_can_be_priced(world: World, account_id: UUID) -> None:
    check_id = checking(world, account_id)
    sent(world, check_id)
    mark = len(world.records)
    assert succeed(world, shown(CHANNEL, check_id)) == {"channel_id": str(CHANNEL), "state": "unlisted"}
    found = channel(world)
    assert (found.title, found.username, found.gifts_hash, found.state) == ("Gifts", "gifts", "a hash", "unlisted")
    assert from_json(found.gifts) == GIFTS
    assert (found.price_nano, found.reason, found.closed_at) == (None, None, None)
    assert world.get(Gift, 7).slug == "gift-7"
    assert asked(world, check_id).state == RequestState.DONE
    fields = {"channel_id": str(CHANNEL)}
    assert events_since(world, mark) == [
        ("channel.added", (f"channel:{CHANNEL}",), fields),
        ("channel.added", ("user:1",), fields),
    ]


def test_gifts_of_a_kind_are_added_up(world: World, account_id: UUID) -> None:
    gifts = [{"gift": gift(7), "quantity": 2}, {"gift": gift(7), "quantity": 3}]
    succeed(world, shown(CHANNEL, checking(world, account_id), gifts=gifts))
    assert from_json(channel(world).gifts) == [{"gift_id": "7", "quantity": 5}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_creator": False}, "NOT_CHANNEL_CREATOR"),
        ({"gifts": []}, "CHANNEL_HAS_NO_GIFTS"),
        ({"is_creator": False, "gifts": []}, "NOT_CHANNEL_CREATOR"),
    ],
)
def test_what_cannot_be_sold_is_refused(world: World, account_id: UUID, changes: Any, reason: str) -> None:
    check_id = checking(world, account_id)
    mark = len(world.records)
    result = succeed(world, shown(CHANNEL, check_id, **changes))
    assert result == {"channel_id": str(CHANNEL), "state": "refused", "reason": reason}
    assert (channel(world).state, channel(world).reason, channel(world).closed_at) == ("refused", reason, None)
    assert asked(world, check_id).state == RequestState.DONE
    fields = {"channel_id": str(CHANNEL), "reason": reason}
    assert events_since(world, mark) == [
        ("channel.refused", (f"channel:{CHANNEL}",), fields),
        ("channel.refused", ("user:1",), fields),
    ]


@pytest.mark.parametrize("reason", ["not_a_channel", "not_visible", "account_unusable"])
def test_what_cannot_be_inspected_is_refused(world: World, account_id: UUID, reason: str) -> None:
    check_id = checking(world, account_id)
    sent(world, check_id)
    result = succeed(world, not_shown(check_id, reason))
    assert result == {"channel_id": str(CHANNEL), "state": "refused", "reason": reason}
    assert (channel(world).state, channel(world).reason) == ("refused", reason)
    assert asked(world, check_id).state == RequestState.REFUSED
    assert [event.fields["reason"] for event in world.events("channel.refused")] == [reason, reason]


def test_an_inspection_that_was_never_attempted_is_given_up(world: World, account_id: UUID) -> None:
    check_id = checking(world, account_id)
    assert world.advance(3_602)[-1].status is Status.SUCCEEDED
    assert (channel(world).state, channel(world).reason) == ("refused", "expired")
    assert asked(world, check_id).state == RequestState.CANCELLED


def test_an_inspection_that_was_attempted_is_not_given_up(world: World, account_id: UUID) -> None:
    check_id = checking(world, account_id)
    sent(world, check_id, RequestState.UNKNOWN)
    refuse(world, Code.REQUEST_IN_FLIGHT, not_shown(check_id, "expired"))


def test_an_answer_to_an_earlier_inspection_is_not_the_answer_to_this_one(world: World, account_id: UUID) -> None:
    first = checking(world, account_id)
    succeed(world, shown(CHANNEL, first))
    second = checking(world, account_id)
    refuse(world, Code.REQUEST_NOT_OPEN, shown(CHANNEL, first))
    refuse(world, Code.REQUEST_NOT_OPEN, not_shown(first))
    assert channel(world).check_id == second


@pytest.mark.parametrize(
    ("end", "yes_contradicts"),
    [
        (lambda check_id: shown(CHANNEL, check_id), False),
        (lambda check_id: shown(CHANNEL, check_id, is_creator=False), False),
        (lambda check_id: shown(CHANNEL, check_id, gifts=[]), False),
        (not_shown, True),
        (lambda check_id: not_shown(check_id, "account_unusable"), True),
    ],
)
def test_a_late_answer_to_an_inspection(world: World, account_id: UUID, end: Any, *, yes_contradicts: bool) -> None:
    check_id = checking(world, account_id)
    succeed(world, end(check_id))
    refuse(world, Code.REQUEST_NOT_OPEN, shown(CHANNEL, check_id), contradicted=yes_contradicts)
    refuse(world, Code.REQUEST_NOT_OPEN, not_shown(check_id), contradicted=not yes_contradicts)
    refuse(world, Code.REQUEST_NOT_OPEN, not_shown(check_id, "expired"))
    [event] = world.events("gateway.contradicted")
    assert (event.fields["op"], event.fields["reference"]) == ("channel.inspect", str(check_id))


def test_a_channel_that_the_sale_refused_was_inspected_all_the_same(world: World, account_id: UUID) -> None:
    succeed(world, not_moved(selling(world, account_id), "account_unusable"))
    refuse(world, Code.REQUEST_NOT_OPEN, shown(CHANNEL, channel(world).check_id))


@pytest.mark.parametrize("answer", [lambda check_id: shown(CHANNEL, check_id), not_shown])
def test_an_answer_finds_a_channel_that_is_there(world: World, account_id: UUID, answer: Any) -> None:
    refuse(world, Code.CHANNEL_NOT_FOUND, answer(NOWHERE))
    check_id = checking(world, account_id)
    refuse(world, Code.REQUEST_NOT_OPEN, answer(NOWHERE))
    succeed(world, delete(), OWNER)
    refuse(world, Code.CHANNEL_NOT_FOUND, answer(check_id))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"gifts": [{"gift": gift(7), "quantity": 0}]}, r"gifts\.0\.quantity"),
        ({"gifts": [{"gift": gift(7), "quantity": 1}] * 1_001}, "gifts"),
        ({"title": "x" * 256}, "title"),
        ({"gifts_hash": ""}, "gifts_hash"),
    ],
)
def test_an_inspection_has_its_bounds(changes: Any, path: str) -> None:
    with pytest.raises(Invalid, match=rf"payload\.{path}"):
        shown(CHANNEL, NOWHERE, **changes)


# -- pricing


def test_pricing_lists_the_channel_at_the_fee_of_the_moment(world: World, account_id: UUID) -> None:
    added(world, account_id)
    world.advance(86_400)
    mark = len(world.records)
    result = succeed(world, price(PRICE), OWNER)
    assert result == {"channel_id": str(CHANNEL), "state": "listed", "price_nano": PRICE}
    assert (channel(world).state, channel(world).price_nano, channel(world).fee_bp) == ("listed", PRICE, 100)
    fields = {"channel_id": str(CHANNEL), "price_nano": PRICE}
    assert events_since(world, mark) == [
        ("channel.priced", (f"channel:{CHANNEL}", "market"), fields),
        ("channel.priced", ("user:1",), fields),
    ]
    world.terms = Terms(channel_fee_bp=200)
    succeed(world, price(PRICE + 1), OWNER)
    assert (channel(world).price_nano, channel(world).fee_bp) == (PRICE + 1, 200)


def test_clearing_the_price_takes_it_off_the_market(world: World, account_id: UUID) -> None:
    listed(world, account_id, PRICE)
    result = succeed(world, price(None), OWNER)
    assert result == {"channel_id": str(CHANNEL), "state": "unlisted", "price_nano": None}
    assert (channel(world).state, channel(world).price_nano, channel(world).fee_bp) == ("unlisted", None, None)
    assert world.events("channel.priced")[-1].fields["price_nano"] is None


@pytest.mark.parametrize("price_nano", [PRICE, None])
def test_only_what_is_there_and_ones_own_is_priced(world: World, account_id: UUID, price_nano: int | None) -> None:
    refuse(world, Code.CHANNEL_NOT_FOUND, price(price_nano), OWNER)
    added(world, account_id)
    refuse(world, Code.CHANNEL_PERMISSION_DENIED, price(price_nano), OTHER)


@pytest.mark.parametrize("begin", [_deleted, _sold])
def test_a_channel_that_is_gone_is_not_found(world: World, account_id: UUID, begin: Any) -> None:
    begin(world, account_id)
    for command in (price(PRICE), price(None), delete(), buy()):
        refuse(world, Code.CHANNEL_NOT_FOUND, command, OWNER)


@pytest.mark.parametrize("price_nano", [PRICE, None])
def test_what_was_not_inspected_is_not_priced(world: World, account_id: UUID, price_nano: int | None) -> None:
    check_id = checking(world, account_id)
    assert refuse(world, Code.CHANNEL_NOT_READY, price(price_nano), OWNER)["state"] == "checking"
    succeed(world, not_shown(check_id))
    assert refuse(world, Code.CHANNEL_NOT_READY, price(price_nano), OWNER)["state"] == "refused"


def test_an_account_has_to_be_a_day_old(world: World, account_id: UUID) -> None:
    added(world, account_id)
    allowed_at = world.get(TelegramAccount, account_id).connected_at + timedelta(days=1)
    world.now = allowed_at - timedelta(microseconds=1)
    assert refuse(world, Code.ACCOUNT_TOO_NEW, price(PRICE), OWNER)["allowed_at"] == allowed_at
    succeed(world, price(None), OWNER)
    world.now = allowed_at
    succeed(world, price(PRICE), OWNER)


def _lose_session(world: World, account_id: UUID) -> None:
    names = {"user_id": OWNER, "account_id": account_id, "sync_id": NOWHERE}
    succeed(world, told("accounts.sync_fail", **names, reason="session_lost"))


def test_a_channel_whose_account_is_gone_is_only_unlisted_or_deleted(world: World, account_id: UUID) -> None:
    purchase_id = selling(world, account_id)
    _lose_session(world, account_id)
    succeed(world, not_moved(purchase_id))
    assert channel(world).state == ChannelState.LISTED
    assert refuse(world, Code.ACCOUNT_NOT_ACTIVE, price(PRICE), OWNER)["state"] == "disconnected"
    assert refuse(world, Code.ACCOUNT_NOT_ACTIVE, buy(), OTHER)["state"] == "disconnected"
    assert refuse(world, Code.ACCOUNT_NOT_ACTIVE, buy(), OWNER)
    succeed(world, price(None), OWNER)
    succeed(world, delete(), OWNER)


@pytest.mark.parametrize("make", [price, buy])
def test_prices_have_their_bounds(make: Any) -> None:
    terms = Terms()
    for price_nano in (terms.price_min_nano, terms.price_max_nano):
        make(price_nano).check(terms)
    for price_nano in (terms.price_min_nano - 1, terms.price_max_nano + 1):
        with pytest.raises(Invalid, match=r"payload\.price_nano"):
            make(price_nano).check(terms)
    price(None).check(terms)


# -- deleting


@pytest.mark.parametrize("begin", [checking, added, _listed, _refused])
@pytest.mark.parametrize("actor", [OWNER, None])
def test_the_owner_or_an_operator_deletes(world: World, account_id: UUID, begin: Any, actor: int | None) -> None:
    begin(world, account_id)
    mark = len(world.records)
    assert succeed(world, delete(), actor) == {"channel_id": str(CHANNEL)}
    found = channel(world)
    assert (found.state, found.price_nano, found.fee_bp, found.closed_at) == ("deleted", None, None, world.now)
    fields = {"channel_id": str(CHANNEL)}
    assert events_since(world, mark) == [
        ("channel.deleted", (f"channel:{CHANNEL}",), fields),
        ("channel.deleted", ("user:1",), fields),
    ]


def test_nobody_else_deletes(world: World, account_id: UUID) -> None:
    refuse(world, Code.CHANNEL_NOT_FOUND, delete(), OWNER)
    added(world, account_id)
    refuse(world, Code.CHANNEL_PERMISSION_DENIED, delete(), OTHER)
    assert not KINDS["channels.delete"].sent_by & (SYSTEM - {"operator"})


def test_a_blocked_owner_may_only_delete(world: World, account_id: UUID) -> None:
    listed(world, account_id, PRICE)
    world.rows[User, OWNER] = world.get(User, OWNER)._replace(blocked=True)
    refuse(world, Code.USER_BLOCKED, price(None), OWNER)
    succeed(world, delete(), OWNER)
