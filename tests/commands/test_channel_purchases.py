"""Purchases of channels: moved before anybody is paid, and never sold twice."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from commands.accounts.telegram import AccountState, Channel, ChannelState, TelegramAccount
from commands.book import FEES, Posting
from commands.channels.purchases import ChannelPurchase
from commands.command import Invalid
from commands.deals import Deal, DealItem
from commands.outcome import Code, Status
from commands.requests import GatewayRequest, RequestState, SagaState
from commands.terms import TON, Terms, fee_nano
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
    money,
    moved,
    not_moved,
    not_shown,
    price,
    refuse,
    selling,
    sent,
    shown,
    snapshot,
    succeed,
    told,
)
from tests.commands.world import Sent, World, code_of


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


# -- buying


@pytest.mark.parametrize("receiver_id", [None, 99])
def test_buying_holds_the_price_and_reserves_the_channel(
    world: World, account_id: UUID, receiver_id: int | None
) -> None:
    listed(world, account_id, PRICE)
    mark = len(world.records)
    outcome = world.one(buy(**({"receiver_id": receiver_id} if receiver_id else {})), OTHER)
    id_ = id_of(outcome, "purchase_id")
    assert outcome.result == {"purchase_id": str(id_), "price_nano": PRICE}
    assert world.get(ChannelPurchase, id_) == ChannelPurchase(
        *(id_, CHANNEL, OTHER, OWNER, receiver_id or OTHER, PRICE, 100, PRICE, "requested", None, world.now, None)
    )
    found = channel(world)
    assert (found.state, found.reserved_by, found.price_nano, found.fee_bp) == ("selling", id_, PRICE, 100)
    assert money(world, OTHER) == (10 * TON - PRICE, PRICE)
    assert world.of(Posting)[-1][8:] == ("channel_purchase", str(id_))
    request = asked(world, id_)
    assert (request.op, request.answers) == ("channel.transfer", "channels.buy")
    assert from_json(request.body) == {
        "account_id": str(account_id),
        "channel_id": str(CHANNEL),
        "receiver_id": receiver_id or OTHER,
        "gifts_hash": "a hash",
    }
    assert from_json(request.names) == {"channel_id": str(CHANNEL), "purchase_id": str(id_)}
    assert world.timers[-1] == (world.now + timedelta(seconds=3_602), not_moved(id_, "expired"))
    fields = {"channel_id": str(CHANNEL), "purchase_id": str(id_), "price_nano": PRICE}
    assert events_since(world, mark)[:2] == [
        ("channel.sale_started", ("user:2",), fields),
        ("channel.sale_started", ("user:1",), fields),
    ]
    world.check()


def test_an_unknown_channel_is_not_bought(world: World) -> None:
    refuse(world, Code.CHANNEL_NOT_FOUND, buy(channel_id=999_999_999), OTHER)


def _refused(world: World, account_id: UUID) -> None:
    succeed(world, not_shown(checking(world, account_id)))


@pytest.mark.parametrize("begin", [checking, added, _refused])
def test_what_is_not_listed_is_not_bought(world: World, account_id: UUID, begin: Any) -> None:
    begin(world, account_id)
    refuse(world, Code.CHANNEL_NOT_ON_SALE, buy(), OTHER)


def test_nobody_buys_from_oneself(world: World, account_id: UUID) -> None:
    listed(world, account_id, PRICE)
    refuse(world, Code.SELF_TRADE_NOT_ALLOWED, buy(PRICE + 1), OWNER)


@pytest.mark.parametrize("seen_nano", [PRICE - 1, PRICE + 1, 100 * TON])
def test_nobody_is_charged_a_price_not_seen(world: World, account_id: UUID, seen_nano: int) -> None:
    listed(world, account_id, PRICE)
    assert refuse(world, Code.PRICE_CHANGED, buy(seen_nano), OTHER)["price_nano"] == PRICE


def test_a_price_beyond_the_balance_is_refused_with_both_figures(world: World, account_id: UUID) -> None:
    listed(world, account_id, 10 * TON + 1)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, buy(10 * TON + 1), OTHER)
    assert (rejection["required_nano"], rejection["available_nano"]) == (10 * TON + 1, 10 * TON)
    succeed(world, price(10 * TON), OWNER)
    succeed(world, buy(10 * TON), OTHER)


def test_a_blocked_user_buys_nothing(world: World, account_id: UUID) -> None:
    listed(world, account_id, PRICE)
    world.rows[User, OTHER] = world.get(User, OTHER)._replace(blocked=True)
    refuse(world, Code.USER_BLOCKED, buy(), OTHER)


def test_of_two_buyers_in_a_batch_the_first_wins(world: World, account_id: UUID) -> None:
    listed(world, account_id, PRICE)
    first, second = world.run((buy(), THIRD), (buy(), OTHER))
    assert (code_of(first), code_of(second)) == (None, "CHANNEL_RESERVED")
    assert money(world, OTHER) == (10 * TON, 0)


def test_while_a_channel_is_being_sold_its_seller_waits(world: World, account_id: UUID) -> None:
    id_ = selling(world, account_id)
    sent(world, id_)
    for command, actor in ((delete(), OWNER), (price(TON), OWNER), (price(None), OWNER), (delete(), None)):
        refuse(world, Code.CHANNEL_RESERVED, command, actor)
    refuse(world, Code.CHANNEL_RESERVED, buy(), THIRD)
    refuse(world, Code.ACCOUNT_IN_USE, told("accounts.disconnect", account_id=account_id), OWNER)
    succeed(world, moved(id_))
    assert len(world.of(Deal)) == 1


# -- the channel has moved


def test_a_channel_that_has_moved_is_paid_for(world: World, account_id: UUID) -> None:
    id_ = selling(world, account_id)
    sent(world, id_)
    mark, fee = len(world.records), PRICE // 100
    assert succeed(world, moved(id_)) == {"deal_id": str(id_), "price_nano": PRICE, "fee_nano": fee}
    assert (money(world, OTHER), money(world, OWNER)) == ((10 * TON - PRICE, 0), (10 * TON + PRICE - fee, 0))
    postings = [row for row in world.records[mark:] if isinstance(row, Posting)]
    assert [posting[1:6] for posting in postings] == [
        (OTHER, "held", OWNER, "available", PRICE - fee),
        (OTHER, "held", FEES, "available", fee),
    ]
    assert {posting[8:] for posting in postings} == {("channel_purchase", str(id_))}
    [deal] = world.of(Deal)
    assert deal == Deal(id_, "channel", OWNER, OTHER, PRICE, 100, fee, PRICE - fee)
    assert world.of(DealItem) == [DealItem(id_, None, 7, 2, "to_buyer"), DealItem(id_, None, 8, 1, "to_buyer")]
    found, purchase = channel(world), world.get(ChannelPurchase, id_)
    assert (found.state, found.price_nano, found.fee_bp, found.reserved_by) == ("sold", None, None, None)
    assert found.closed_at == purchase.closed_at == world.now
    assert (purchase.state, purchase.held_nano, purchase.reason) == ("confirmed", 0, None)
    assert asked(world, id_).state == RequestState.DONE
    fields = {"channel_id": str(CHANNEL), "purchase_id": str(id_), "price_nano": PRICE}
    told_ = events_since(world, mark)
    assert told_[:3] == [
        ("channel.sold", (f"channel:{CHANNEL}",), fields),
        ("channel.sold", ("user:2",), fields),
        ("channel.sold", ("user:1",), fields),
    ]
    assert [(name, topics) for name, topics, _ in told_[3:5]] == [
        ("deal.made", ("user:1",)),
        ("deal.made", ("user:2",)),
    ]
    world.check()


def test_the_fee_is_that_of_the_moment_of_pricing(world: World, account_id: UUID) -> None:
    listed(world, account_id, PRICE)
    world.terms = Terms(channel_fee_bp=5_000)
    id_ = id_of(world.one(buy(), OTHER), "purchase_id")
    assert succeed(world, moved(id_))["fee_nano"] == PRICE // 100


@pytest.mark.parametrize("answer", [moved, not_moved])
def test_an_answer_finds_the_purchase_of_its_channel_only(world: World, account_id: UUID, answer: Any) -> None:
    refuse(world, Code.CHANNEL_NOT_FOUND, answer(NOWHERE))
    id_ = selling(world, account_id)
    refuse(world, Code.REQUEST_NOT_OPEN, answer(NOWHERE))
    added(world, account_id, 50)
    refuse(world, Code.REQUEST_NOT_OPEN, answer(id_, channel_id=50))
    refuse(world, Code.CHANNEL_NOT_FOUND, answer(id_, channel_id=404))
    succeed(world, moved(id_))
    refuse(world, Code.CHANNEL_NOT_FOUND, answer(NOWHERE))


def test_a_sale_is_confirmed_once_even_after_the_channel_came_back(world: World, account_id: UUID) -> None:
    id_ = selling(world, account_id)
    succeed(world, moved(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, moved(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, not_moved(id_), contradicted=True)
    checking(world, account_id)
    refuse(world, Code.REQUEST_NOT_OPEN, moved(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, not_moved(id_), contradicted=True)
    event = world.events("gateway.contradicted")[0]
    assert event.fields == {
        "reference": str(id_),
        "op": "channel.transfer",
        "document_state": SagaState.CONFIRMED,
        "answer": RequestState.REFUSED,
    }


# -- the channel has not moved


@pytest.mark.parametrize("reason", ["receiver_not_subscribed", "receiver_refused", "refused"])
def test_a_sale_that_failed_lists_the_channel_again(world: World, account_id: UUID, reason: str) -> None:
    id_ = selling(world, account_id)
    sent(world, id_)
    mark = len(world.records)
    result = succeed(world, not_moved(id_, reason))
    assert result == {"purchase_id": str(id_), "channel_state": "listed", "reason": reason}
    found = channel(world)
    assert (found.state, found.price_nano, found.fee_bp, found.reserved_by) == ("listed", PRICE, 100, None)
    assert money(world, OTHER) == (10 * TON, 0)
    assert world.of(Posting)[-1][8:] == ("channel_purchase", str(id_))
    purchase = world.get(ChannelPurchase, id_)
    assert (purchase.state, purchase.held_nano, purchase.reason) == ("failed", 0, reason)
    assert purchase.closed_at == world.now
    assert asked(world, id_).state == RequestState.REFUSED
    fields = {"channel_id": str(CHANNEL), "purchase_id": str(id_), "price_nano": PRICE, "reason": reason}
    assert events_since(world, mark)[:2] == [
        ("channel.sale_failed", ("user:2",), fields),
        ("channel.sale_failed", ("user:1",), fields),
    ]
    refuse(world, Code.REQUEST_NOT_OPEN, not_moved(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, moved(id_), contradicted=True)
    succeed(world, buy(), THIRD)


@pytest.mark.parametrize("reason", ["gifts_modified", "not_creator", "account_unusable"])
def test_a_channel_that_is_not_what_was_inspected_is_refused(world: World, account_id: UUID, reason: str) -> None:
    id_ = selling(world, account_id)
    result = succeed(world, not_moved(id_, reason))
    assert result == {"purchase_id": str(id_), "channel_state": "refused", "reason": reason}
    found = channel(world)
    assert (found.state, found.reason, found.price_nano, found.fee_bp) == ("refused", reason, None, None)
    assert (found.reserved_by, found.closed_at) == (None, None)
    assert money(world, OTHER) == (10 * TON, 0)
    assert [event.topics for event in world.events("channel.refused")] == [(f"channel:{CHANNEL}",), ("user:1",)]
    assert refuse(world, Code.CHANNEL_NOT_READY, price(PRICE), OWNER)["state"] == "refused"
    checking(world, account_id)


def test_a_sale_that_was_never_attempted_is_given_up(world: World, account_id: UUID) -> None:
    id_ = selling(world, account_id)
    assert world.advance(3_602)[-1].status is Status.SUCCEEDED
    assert (channel(world).state, world.get(ChannelPurchase, id_).reason) == ("listed", "expired")
    assert asked(world, id_).state == RequestState.CANCELLED
    assert money(world, OTHER) == (10 * TON, 0)


def test_a_sale_that_was_attempted_is_not_given_up(world: World, account_id: UUID) -> None:
    id_ = selling(world, account_id)
    sent(world, id_, RequestState.UNKNOWN)
    refuse(world, Code.REQUEST_IN_FLIGHT, not_moved(id_, "expired"))
    assert money(world, OTHER) == (10 * TON - PRICE, PRICE)


def test_a_reason_is_one_of_the_list() -> None:
    for answer in (not_moved, not_shown):
        with pytest.raises(Invalid, match=r"payload\.reason"):
            answer(NOWHERE, "because")


# -- histories

ACTIONS = st.tuples(
    st.sampled_from(
        [
            *("add", "shown", "not_shown", "price", "clear", "delete", "buy", "moved", "not_moved", "modified"),
            *("expire_check", "expire_sale", "leave", "attempt"),
        ]
    ),
    st.integers(1, 3),
    st.integers(1, 2),
)
Action = tuple[str, int, int]


def begun() -> World:
    """Three users, two of them with an account that may price."""
    world = World(Terms(channel_account_age_seconds=0))
    for user_id in (1, 2, 3):
        world.user(user_id)
    for user_id in (1, 2):
        succeed(world, snapshot(connected(world, user_id, f"+1555000000{user_id}", 700 + user_id), user_id))
    return world


def _command(world: World, action: str, user_id: int, channel_id: int) -> Sent | None:
    rows = [row for (kind, _), row in world.rows.items() if kind is TelegramAccount]
    accounts = [row for row in sorted(rows, key=lambda row: str(row[7])) if row[1] == user_id]
    account_id = accounts[0][0] if accounts else NOWHERE
    found = world.get(Channel, channel_id)
    check_id = found.check_id if found else NOWHERE
    purchases = sorted(row for (kind, _), row in world.rows.items() if kind is ChannelPurchase and row[1] == channel_id)
    purchase_id = purchases[-1][0] if purchases else NOWHERE
    match action:
        case "add":
            return add(account_id, channel_id), user_id
        case "shown":
            return shown(channel_id, check_id), None
        case "not_shown":
            return not_shown(check_id, channel_id=channel_id), None
        case "expire_check":
            return not_shown(check_id, "expired", channel_id), None
        case "price":
            return price(PRICE, channel_id), user_id
        case "clear":
            return price(None, channel_id), user_id
        case "delete":
            return delete(channel_id), user_id
        case "buy":
            return buy(channel_id=channel_id), user_id
        case "moved":
            return moved(purchase_id, channel_id), None
        case "not_moved":
            return not_moved(purchase_id, channel_id=channel_id), None
        case "modified":
            return not_moved(purchase_id, "gifts_modified", channel_id), None
        case "expire_sale":
            return not_moved(purchase_id, "expired", channel_id), None
        case "leave":
            return told("accounts.disconnect", account_id=account_id), user_id
    return None


def check(world: World) -> None:
    """V4, V5, V6, V8, V11, V22, V23 and V24 as far as channels go."""
    world.check()
    purchases = [ChannelPurchase._make(row) for (kind, _), row in world.rows.items() if kind is ChannelPurchase]
    waiting = [purchase for purchase in purchases if purchase.state == SagaState.REQUESTED]
    for purchase in purchases:
        assert purchase.held_nano == (purchase.price_nano if purchase in waiting else 0)
        assert (purchase.closed_at is None) == (purchase in waiting)
        assert (asked(world, purchase.id).closed_at is None) == (purchase in waiting)
        if purchase in waiting:
            assert [timer for _, timer in world.timers if getattr(timer, "purchase_id", None) == purchase.id]
    for (kind, _), row in world.rows.items():
        if kind is Channel:
            found = Channel._make(row)
            reserving = [purchase.id for purchase in waiting if purchase.channel_id == found.id]
            assert reserving == ([found.reserved_by] if found.state == ChannelState.SELLING else [])
            priced = found.state in (ChannelState.LISTED, ChannelState.SELLING)
            assert (found.price_nano is not None) == (found.fee_bp is not None) == priced
            assert (found.closed_at is not None) == (found.state in (ChannelState.SOLD, ChannelState.DELETED))
            if found.state == ChannelState.CHECKING:
                assert asked(world, found.check_id).closed_at is None
            if found.closed_at is None and found.state != ChannelState.SELLING:
                account = world.get(TelegramAccount, found.account_id)
                assert (account.state, account.user_id) == (AccountState.CONNECTED, found.owner_id)
    for user_id in (1, 2, 3):
        assert money(world, user_id)[1] == sum(row.held_nano for row in waiting if row.buyer_id == user_id)
    deals = world.of(Deal)
    assert {deal.id for deal in deals} == {row.id for row in purchases if row.state == SagaState.CONFIRMED}
    assert len({deal.id for deal in deals}) == len(deals)
    for deal in deals:
        assert deal.fee_nano == fee_nano(deal.price_nano, deal.fee_bp) == deal.price_nano - deal.seller_nano
    fees = sum(posting.amount_nano for posting in world.of(Posting) if posting.credit_account == FEES)
    assert fees == sum(deal.fee_nano for deal in deals)


@given(st.lists(ACTIONS, max_size=30))
@settings(max_examples=120, deadline=None)
def test_a_channel_is_with_its_seller_or_reserved_or_paid_for(actions: list[Action]) -> None:
    world = begun()
    for action, user_id, channel_id in actions:
        open_ = [row for (kind, _), row in world.rows.items() if kind is GatewayRequest and row[-1] is None]
        if action == "attempt" and open_:
            sent(world, open_[channel_id % len(open_)][0])
        command = _command(world, action, user_id, channel_id)
        if command is not None:
            before = world.snapshot()
            [outcome] = world.run(command)
            assert outcome.status in (Status.SUCCEEDED, Status.REJECTED), outcome
            if outcome.status is Status.REJECTED:
                assert world.rows == before[0]
        check(world)


@given(st.lists(ACTIONS, max_size=20), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_worth_as_many_batches_of_one(actions: list[Action], size: int) -> None:
    """Answers are for the inspections and purchases of earlier batches."""
    singly, batched = begun(), begun()
    for start in range(0, len(actions), size):
        commands = [_command(singly, *action) for action in actions[start : start + size]]
        history = [command for command in commands if command is not None]
        one_by_one = [singly.one(*command) for command in history]
        if history:
            assert batched.run(*history) == one_by_one
        check(batched)
    for channel_id in (1, 2):
        one, other = singly.get(Channel, channel_id), batched.get(Channel, channel_id)
        assert (one and one[:13]) == (other and other[:13])
    for user_id in (1, 2, 3):
        assert money(singly, user_id) == money(batched, user_id)
