"""What is in a Telegram account: a snapshot that replaces the one before, and gifts that are sent from it."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from commands.accounts.telegram import AccountChannel, AccountGift, AccountState, Channel, ChannelState, TelegramAccount
from commands.command import Invalid
from commands.nft.items import Gift, Nft
from commands.outcome import Code
from commands.requests import GatewayRequest, RequestState
from commands.terms import TON
from commands.users import User
from tests.commands.telegram import (
    CHANNEL,
    NOWHERE,
    OTHER,
    OWNER,
    added,
    connected,
    events_since,
    id_of,
    in_account,
    listed,
    refuse,
    sent,
    snapshot,
    succeed,
    told,
    with_code,
)
from tests.commands.world import Sent, World, gift


@pytest.fixture
def world() -> World:
    world = World()
    world.user(OWNER)
    world.user(OTHER)
    return world


def sync(account_id: UUID) -> Any:
    return told("accounts.sync", account_id=account_id)


def not_synced(account_id: UUID, reason: str, user_id: int = OWNER, sync_id: UUID = NOWHERE) -> Any:
    names = {"user_id": user_id, "account_id": account_id, "sync_id": sync_id}
    return told("accounts.sync_fail", **names, reason=reason)


def send(account_id: UUID, gift_id: int = 7, receiver_id: int = 99) -> Any:
    return told("accounts.send_gift", account_id=account_id, gift_id=gift_id, receiver_id=receiver_id)


def answer(account_id: UUID, send_id: UUID = NOWHERE, gift_id: int = 7, user_id: int = OWNER, **fields: Any) -> Any:
    names = {"user_id": user_id, "account_id": account_id, "gift_id": str(gift_id), "send_id": send_id}
    return told(f"accounts.send_gift_{'fail' if fields else 'confirm'}", **names, **fields)


def in_snapshot(world: World, kind: Any, account_id: UUID) -> list[Any]:
    return sorted(row[1:] for (kind_, _), row in world.rows.items() if kind_ is kind and row[0] == account_id)


# -- reading an account


def test_a_snapshot_is_asked_for(world: World) -> None:
    id_ = connected(world)
    mark = len(world.records)
    outcome = world.one(sync(id_), OWNER)
    sync_id = id_of(outcome, "sync_id")
    assert outcome.result == {"account_id": str(id_), "sync_id": str(sync_id)}
    request = world.get(GatewayRequest, sync_id)
    assert (request.op, request.answers) == ("account.snapshot", "accounts.sync")
    assert from_json(request.body) == {"account_id": str(id_)}
    names = {"user_id": OWNER, "account_id": str(id_), "sync_id": str(sync_id)}
    assert from_json(request.names) == names
    assert events_since(world, mark) == []


def test_only_the_owner_reads_a_connected_account(world: World) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, sync(NOWHERE), OWNER)
    id_ = with_code(world)
    refuse(world, Code.ACCOUNT_PERMISSION_DENIED, sync(id_), OTHER)
    assert refuse(world, Code.ACCOUNT_NOT_ACTIVE, sync(id_), OWNER)["state"] == "code_sent"
    world.rows[User, OWNER] = world.get(User, OWNER)._replace(blocked=True)
    refuse(world, Code.USER_BLOCKED, sync(id_), OWNER)


def test_a_snapshot_replaces_the_one_before(world: World) -> None:
    id_, other = connected(world), connected(world, OTHER, "+15550001111", telegram_id=778)
    succeed(world, snapshot(other, OTHER, gifts=[in_account(9)]))
    channels = [{"channel_id": str(CHANNEL), "title": "Old", "username": "old"}, {"channel_id": 5, "title": "Five"}]
    first = snapshot(id_, gifts=[in_account(7), in_account(8)], channels=channels)
    assert succeed(world, first) == {"gifts": 2, "channels": 2}
    assert in_snapshot(world, AccountGift, id_) == [(7, "gift 7"), (8, "gift 8")]
    assert in_snapshot(world, AccountChannel, id_) == [(5, "Five", None), (CHANNEL, "Old", "old")]

    sync_id = id_of(world.one(sync(id_), OWNER), "sync_id")
    sent(world, sync_id)
    mark = len(world.records)
    gifts, channels = [in_account(8, "moved"), in_account(10)], [{"channel_id": str(CHANNEL), "title": "New\0"}]
    second = snapshot(id_, sync_id=sync_id, gifts=gifts, channels=channels, stars=61, premium=True)
    assert succeed(world, second) == {"gifts": 2, "channels": 1}
    assert in_snapshot(world, AccountGift, id_) == [(8, "moved"), (10, "gift 10")]
    assert in_snapshot(world, AccountChannel, id_) == [(CHANNEL, "New\N{REPLACEMENT CHARACTER}", None)]
    assert in_snapshot(world, AccountGift, other) == [(9, "gift 9")]
    assert world.get(TelegramAccount, id_)[5:8] == (61, True, AccountState.CONNECTED)
    assert world.get(GatewayRequest, sync_id).state == RequestState.DONE
    assert events_since(world, mark) == [("account.synced", ("user:1",), {"account_id": str(id_)})]
    assert not [row for (kind, _), row in world.rows.items() if kind in (Nft, Channel)]


def test_an_empty_snapshot_leaves_nothing(world: World) -> None:
    id_ = connected(world)
    succeed(world, snapshot(id_))
    assert succeed(world, snapshot(id_, gifts=[])) == {"gifts": 0, "channels": 0}
    assert in_snapshot(world, AccountGift, id_) == []


def test_gifts_are_catalogued_as_last_seen(world: World) -> None:
    id_ = connected(world)
    succeed(world, snapshot(id_))
    assert world.get(Gift, 7).backdrop == "Black"
    succeed(world, snapshot(id_, gifts=[{"gift": gift(7, backdrop="Red"), "message_ref": "x"}]))
    assert world.get(Gift, 7).backdrop == "Red"


def test_what_is_told_twice_is_there_once(world: World) -> None:
    id_ = connected(world)
    channels = [{"channel_id": 5, "title": "A"}, {"channel_id": 5, "title": "B"}]
    gifts = [in_account(7, "a"), in_account(7, "b")]
    assert succeed(world, snapshot(id_, gifts=gifts, channels=channels)) == {"gifts": 1, "channels": 1}
    assert in_snapshot(world, AccountGift, id_) == [(7, "b")]


@pytest.mark.parametrize(
    ("field", "item", "most"), [("gifts", in_account(7), 1_000), ("channels", {"channel_id": 5, "title": ""}, 500)]
)
def test_a_snapshot_has_its_bounds(field: str, item: Any, most: int) -> None:
    as_many: Any = {field: [item] * most}
    more: Any = {field: [item] * (most + 1)}
    snapshot(NOWHERE, **as_many)
    with pytest.raises(Invalid, match=rf"payload\.{field}"):
        snapshot(NOWHERE, **more)


def test_a_snapshot_is_of_a_connected_account_of_its_user(world: World) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, snapshot(NOWHERE))
    id_ = with_code(world)
    refuse(world, Code.ACCOUNT_NOT_FOUND, snapshot(id_, OTHER))
    assert refuse(world, Code.ACCOUNT_NOT_ACTIVE, snapshot(id_))["state"] == "code_sent"


def test_two_snapshots_and_a_departure_in_one_batch(world: World) -> None:
    id_ = connected(world)
    succeed(world, snapshot(id_))
    leave = told("accounts.disconnect", account_id=id_)
    outcomes = world.run(
        (snapshot(id_, gifts=[in_account(8)]), None), (snapshot(id_, gifts=[in_account(9)]), None), (leave, OWNER)
    )
    assert all(outcome.result for outcome in outcomes)
    assert in_snapshot(world, AccountGift, id_) == []


# -- an account that could not be read


def test_an_account_that_could_not_be_read_stays_as_it_is(world: World) -> None:
    id_ = connected(world)
    succeed(world, snapshot(id_))
    sync_id = id_of(world.one(sync(id_), OWNER), "sync_id")
    mark = len(world.records)
    result = succeed(world, not_synced(id_, "timeout", sync_id=sync_id))
    assert result == {"account_id": str(id_), "state": "connected"}
    assert in_snapshot(world, AccountGift, id_) == [(7, "gift 7")]
    assert world.get(GatewayRequest, sync_id).state == RequestState.REFUSED
    assert events_since(world, mark) == []


def test_a_lost_session_is_a_departure(world: World) -> None:
    id_ = connected(world)
    succeed(world, snapshot(id_))
    added(world, id_, 50)
    listed(world, id_, TON)
    purchase_id = id_of(world.one(told("channels.buy", channel_id=CHANNEL, price_nano=TON), OTHER), "purchase_id")
    mark = len(world.records)
    assert succeed(world, not_synced(id_, "session_lost")) == {"account_id": str(id_), "state": "disconnected"}
    account = world.get(TelegramAccount, id_)
    assert (account.state, account.reason, account.closed_at) == ("disconnected", "session_lost", world.now)
    assert in_snapshot(world, AccountGift, id_) == []
    assert world.get(Channel, 50).state == ChannelState.DELETED
    assert world.get(Channel, CHANNEL).state == ChannelState.SELLING
    assert events_since(world, mark)[-1] == (
        "account.disconnected",
        ("user:1",),
        {"account_id": str(id_), "reason": "session_lost"},
    )
    assert [row for (kind, _), row in world.rows.items() if kind is GatewayRequest and row[1] == "account.sign_out"]
    succeed(world, told("channels.buy_confirm", channel_id=CHANNEL, purchase_id=purchase_id))


def test_a_lost_session_of_an_account_that_was_left_changes_nothing(world: World) -> None:
    id_ = connected(world)
    succeed(world, told("accounts.disconnect", account_id=id_), OWNER)
    rows = dict(world.rows)
    assert succeed(world, not_synced(id_, "session_lost"))["state"] == "disconnected"
    assert world.rows == rows


def test_a_failed_snapshot_is_of_an_account_of_its_user(world: World) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, not_synced(NOWHERE, "x"))
    refuse(world, Code.ACCOUNT_NOT_FOUND, not_synced(connected(world), "session_lost", OTHER))


@pytest.mark.parametrize("reason", ["", "x" * 256])
def test_a_reason_has_its_bounds(reason: str) -> None:
    with pytest.raises(Invalid, match=r"payload\.reason"):
        not_synced(NOWHERE, reason)
    with pytest.raises(Invalid, match=r"payload\.reason"):
        answer(NOWHERE, reason=reason)


# -- sending a gift


def test_a_gift_is_sent(world: World) -> None:
    id_ = connected(world)
    succeed(world, snapshot(id_, gifts=[in_account(7), in_account(8)]))
    mark = len(world.records)
    outcome = world.one(send(id_), OWNER)
    send_id = id_of(outcome, "send_id")
    assert outcome.result == {"send_id": str(send_id)}
    request = world.get(GatewayRequest, send_id)
    assert (request.op, request.answers) == ("gift.send", "accounts.send_gift")
    body = {"account_id": str(id_), "gift_id": "7", "message_ref": "gift 7", "receiver_id": 99}
    assert from_json(request.body) == body
    names = {"user_id": OWNER, "account_id": str(id_), "gift_id": "7", "send_id": str(send_id)}
    assert from_json(request.names) == names
    assert events_since(world, mark) == []
    assert (7, "gift 7") in in_snapshot(world, AccountGift, id_)

    sent(world, send_id)
    assert succeed(world, answer(id_, send_id)) == {"send_id": str(send_id)}
    assert in_snapshot(world, AccountGift, id_) == [(8, "gift 8")]
    assert world.get(GatewayRequest, send_id).state == RequestState.DONE
    sent_ = ("account.gift_sent", ("user:1",), {"account_id": str(id_), "gift_id": "7"})
    assert events_since(world, mark) == [sent_]
    assert succeed(world, answer(id_, send_id)) == {"send_id": str(send_id)}


def test_a_gift_that_was_not_sent_stays(world: World) -> None:
    id_ = connected(world)
    succeed(world, snapshot(id_))
    send_id = id_of(world.one(send(id_), OWNER), "send_id")
    mark = len(world.records)
    assert succeed(world, answer(id_, send_id, reason="no stars")) == {"send_id": str(send_id)}
    assert in_snapshot(world, AccountGift, id_) == [(7, "gift 7")]
    assert world.get(GatewayRequest, send_id).state == RequestState.REFUSED
    fields = {"account_id": str(id_), "gift_id": "7", "reason": "no stars"}
    assert events_since(world, mark) == [("account.gift_send_failed", ("user:1",), fields)]


def test_only_what_is_in_the_snapshot_is_sent_by_the_owner_of_a_connected_account(world: World) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, send(NOWHERE), OWNER)
    id_ = connected(world)
    refuse(world, Code.GIFT_NOT_FOUND, send(id_), OWNER)
    refuse(world, Code.GIFT_NOT_FOUND, send(id_), OTHER)
    succeed(world, snapshot(id_))
    refuse(world, Code.ACCOUNT_PERMISSION_DENIED, send(id_), OTHER)
    world.rows[TelegramAccount, id_] = world.get(TelegramAccount, id_)._replace(state=AccountState.SIGNING_IN)
    assert refuse(world, Code.ACCOUNT_NOT_ACTIVE, send(id_), OWNER)["state"] == "signing_in"
    world.rows[User, OWNER] = world.get(User, OWNER)._replace(blocked=True)
    refuse(world, Code.USER_BLOCKED, send(id_), OWNER)


@pytest.mark.parametrize("fields", [{}, {"reason": "x"}])
def test_an_answer_about_a_gift_finds_the_account_of_its_user_only(world: World, fields: Any) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, answer(NOWHERE, **fields))
    refuse(world, Code.ACCOUNT_NOT_FOUND, answer(connected(world), user_id=OTHER, **fields))


def test_what_is_in_an_account_is_routed_by_its_user() -> None:
    assert send(NOWHERE).asset(NOWHERE, OTHER) == sync(NOWHERE).asset(NOWHERE, OTHER) == "user:2"
    assert answer(NOWHERE).asset(NOWHERE, None) == snapshot(NOWHERE).asset(NOWHERE, None) == "user:1"


# -- histories

ACTIONS = st.tuples(st.sampled_from(["snapshot", "send", "moved", "stayed", "lost"]), st.integers(1, 4))
Action = tuple[str, int]


def _command(account_id: UUID, action: str, number: int) -> Sent:
    match action:
        case "snapshot":
            return snapshot(account_id, gifts=[in_account(gift_id) for gift_id in range(number, 5)]), None
        case "send":
            return send(account_id, number), OWNER
        case "moved":
            return answer(account_id, gift_id=number), None
        case "stayed":
            return answer(account_id, gift_id=number, reason="x"), None
    return not_synced(account_id, "session_lost" if number == 1 else "timeout"), None


@given(st.lists(ACTIONS, max_size=15), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_worth_as_many_batches_of_one(actions: list[Action], size: int) -> None:
    """And an account that was left has nothing in it."""
    singly, batched = World(), World()
    ids = []
    for world in (singly, batched):
        world.user(OWNER)
        ids.append(connected(world))
    history = [_command(ids[0], *action) for action in actions]
    one_by_one = [singly.one(*command) for command in history]
    together = []
    for start in range(0, len(history), size):
        together += batched.run(*history[start : start + size])
    assert one_by_one == together
    assert in_snapshot(singly, AccountGift, ids[0]) == in_snapshot(batched, AccountGift, ids[1])
    account = singly.get(TelegramAccount, ids[0])
    assert account[:8] == batched.get(TelegramAccount, ids[1])[:8]
    assert account.closed_at is None or in_snapshot(singly, AccountGift, ids[0]) == []


def test_an_answer_ends_no_request_but_its_own(world: World) -> None:
    """Nothing waits for these answers, so whatever reference they name is found."""
    account_id, others_id = connected(world), connected(world, OTHER, "+491701234568", telegram_id=778)
    asked = [
        id_of(world.one(sync(others_id), OTHER), "sync_id"),
        id_of(world.one(told("accounts.connect", phone="+491701234569"), OTHER), "account_id"),
    ]
    for reference in asked:
        succeed(world, snapshot(account_id, sync_id=reference))
        succeed(world, not_synced(account_id, "flood", sync_id=reference))
        succeed(world, answer(account_id, reference))
        succeed(world, answer(account_id, reference, reason="refused"))
        assert world.get(GatewayRequest, reference).state == RequestState.PENDING
    succeed(world, snapshot(others_id, OTHER, sync_id=asked[0]))
    assert world.get(GatewayRequest, asked[0]).state == RequestState.DONE
