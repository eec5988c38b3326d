"""Telegram accounts: a phone and a login are connected once, wrong codes may be corrected, and leaving takes all."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from commands.accounts.telegram import AccountChannel, AccountGift, AccountState, Channel, ChannelState, TelegramAccount
from commands.command import KINDS, Invalid
from commands.nft.items import Nft, NftState
from commands.outcome import Code, Status
from commands.requests import GatewayRequest, RequestState
from commands.terms import TON
from commands.users import User
from tests.commands.telegram import (
    CHANNEL,
    NOWHERE,
    OTHER,
    OWNER,
    PHONE,
    added,
    approve,
    approved,
    connected,
    connecting,
    events_since,
    id_of,
    listed,
    refuse,
    sent,
    shown,
    signing_in,
    snapshot,
    succeed,
    told,
    with_code,
)
from tests.commands.world import Sent, World, code_of

ANOTHER_PHONE = "+15550001111"


@pytest.fixture
def world() -> World:
    world = World()
    world.user(OWNER)
    world.user(OTHER)
    return world


def connect(phone: str = PHONE) -> Any:
    return told("accounts.connect", phone=phone)


def code_sent(account_id: UUID, user_id: int = OWNER) -> Any:
    return told("accounts.connect_confirm", user_id=user_id, account_id=account_id)


def no_code(account_id: UUID, reason: str = "refused", user_id: int = OWNER) -> Any:
    return told("accounts.connect_fail", user_id=user_id, account_id=account_id, reason=reason)


def not_approved(account_id: UUID, approve_id: UUID, reason: str = "refused", user_id: int = OWNER) -> Any:
    names = {"user_id": user_id, "account_id": account_id, "approve_id": approve_id}
    return told("accounts.approve_fail", **names, reason=reason)


def disconnect(account_id: UUID) -> Any:
    return told("accounts.disconnect", account_id=account_id)


def account(world: World, account_id: UUID) -> TelegramAccount:
    found: TelegramAccount = world.get(TelegramAccount, account_id)
    return found


def asked(world: World, reference: UUID) -> GatewayRequest:
    found: GatewayRequest = world.get(GatewayRequest, reference)
    return found


def requests(world: World, op: str) -> list[GatewayRequest]:
    rows = [GatewayRequest._make(row) for (kind, _), row in world.rows.items() if kind is GatewayRequest]
    return [row for row in rows if row.op == op]


# -- a code for a phone


def test_connecting_has_a_code_sent(world: World) -> None:
    mark = len(world.records)
    outcome = world.one(connect(), OWNER)
    id_ = id_of(outcome, "account_id")
    assert outcome.result == {"account_id": str(id_), "state": "requested"}
    assert account(world, id_) == TelegramAccount(
        id_, OWNER, PHONE, None, None, 0, False, "requested", None, None, None, world.now, None
    )
    request = asked(world, id_)
    assert (request.op, request.answers) == ("account.send_code", "accounts.connect")
    assert from_json(request.body) == {"account_id": str(id_), "phone": PHONE}
    assert from_json(request.names) == {"user_id": OWNER, "account_id": str(id_)}
    assert world.timers == [(world.now + timedelta(seconds=3_602), no_code(id_, "expired"))]
    assert events_since(world, mark) == []


def test_accounts_are_routed_by_their_user() -> None:
    assert connect().asset(NOWHERE, OWNER) == "user:1"
    assert approve(NOWHERE).asset(NOWHERE, OWNER) == "user:1"
    assert disconnect(NOWHERE).asset(NOWHERE, OWNER) == "user:1"
    assert code_sent(NOWHERE, 9).asset(NOWHERE, None) == "user:9"


@pytest.mark.parametrize("phone", ["+12345678", "+123456789012345"])
def test_phones_are_international(phone: str) -> None:
    connect(phone)


@pytest.mark.parametrize("phone", ["12345678", "+1234567", "+1234567890123456", "+1234 5678", "+1234567a", "", "+"])
def test_what_is_no_phone_is_no_command(phone: str) -> None:
    with pytest.raises(Invalid, match=r"payload\.phone"):
        connect(phone)


@pytest.mark.parametrize("user_id", [OWNER, OTHER])
def test_a_connected_phone_is_not_connected_again_whoever_has_it(world: World, user_id: int) -> None:
    connected(world)
    rejection = refuse(world, Code.ACCOUNT_ALREADY_EXISTS, connect(), user_id)
    assert rejection.keys() == {"code", "detail"}


def test_a_phone_may_be_in_attempts_of_several_users(world: World) -> None:
    first, second = connecting(world, OWNER), connecting(world, OTHER)
    assert {account(world, first).state, account(world, second).state} == {"requested"}


@pytest.mark.parametrize("begin", [connecting, with_code, lambda world: signing_in(world)[0]])
def test_an_own_unfinished_attempt_gives_way(world: World, begin: Any) -> None:
    old = begin(world)
    other = connecting(world, phone=ANOTHER_PHONE)
    mark = len(world.records)
    new = connecting(world)
    assert account(world, old)[7:11] == ("failed", None, account(world, old).approve_id, "superseded")
    assert account(world, old).closed_at == world.now
    assert account(world, new).state == account(world, other).state == "requested"
    assert events_since(world, mark) == [
        ("account.failed", ("user:1",), {"account_id": str(old), "reason": "superseded"})
    ]


def test_what_was_never_attempted_for_an_old_attempt_never_is(world: World) -> None:
    first = connecting(world)
    second, approve_id = signing_in(world)
    assert asked(world, first).state == RequestState.CANCELLED
    third = connecting(world)
    assert asked(world, approve_id).state == RequestState.CANCELLED
    sent(world, third)
    connecting(world)
    assert asked(world, third).state == RequestState.SENT
    assert account(world, second).reason == "superseded"


def test_a_disconnected_phone_is_connected_again(world: World) -> None:
    succeed(world, disconnect(connected(world)), OWNER)
    connected(world, OTHER)


# -- whether it was sent


def test_a_code_is_sent(world: World) -> None:
    id_ = connecting(world)
    sent(world, id_)
    mark = len(world.records)
    assert succeed(world, code_sent(id_)) == {"account_id": str(id_), "state": "code_sent"}
    assert (account(world, id_).state, account(world, id_).closed_at) == ("code_sent", None)
    assert asked(world, id_).state == RequestState.DONE
    assert events_since(world, mark) == [("account.code_sent", ("user:1",), {"account_id": str(id_)})]


@pytest.mark.parametrize("reason", ["phone_invalid", "flood", "refused"])
def test_no_code_ends_the_attempt(world: World, reason: str) -> None:
    id_ = connecting(world)
    sent(world, id_)
    mark = len(world.records)
    assert succeed(world, no_code(id_, reason)) == {"account_id": str(id_), "state": "failed"}
    assert (account(world, id_).reason, account(world, id_).closed_at) == (reason, world.now)
    assert asked(world, id_).state == RequestState.REFUSED
    assert events_since(world, mark) == [("account.failed", ("user:1",), {"account_id": str(id_), "reason": reason})]


def test_a_code_that_was_never_asked_for_is_given_up(world: World) -> None:
    id_ = connecting(world)
    [outcome] = world.advance(3_602)
    assert outcome.result == {"account_id": str(id_), "state": "failed"}
    assert account(world, id_).reason == "expired"
    assert asked(world, id_).state == RequestState.CANCELLED


def test_a_code_that_was_asked_for_is_not_given_up(world: World) -> None:
    id_ = connecting(world)
    sent(world, id_, RequestState.UNKNOWN)
    refuse(world, Code.REQUEST_IN_FLIGHT, no_code(id_, "expired"))


@pytest.mark.parametrize("answer", [code_sent, no_code])
def test_an_answer_finds_the_account_of_its_user_only(world: World, answer: Any) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, answer(NOWHERE))
    refuse(world, Code.ACCOUNT_NOT_FOUND, answer(connecting(world), user_id=OTHER))


def _cancelled(world: World) -> UUID:
    id_ = connecting(world)
    succeed(world, disconnect(id_), OWNER)
    return id_


def _superseded(world: World) -> UUID:
    id_ = connecting(world)
    connecting(world)
    return id_


def _not_sent(world: World) -> UUID:
    id_ = connecting(world)
    succeed(world, no_code(id_))
    return id_


def _sent_and_failed(world: World) -> UUID:
    id_, approve_id = signing_in(world)
    succeed(world, not_approved(id_, approve_id))
    return id_


@pytest.mark.parametrize(
    ("ended", "sent_contradicts", "not_sent_contradicts"),
    [
        (with_code, False, True),
        (lambda world: signing_in(world)[0], False, True),
        (connected, False, True),
        (_sent_and_failed, False, True),
        (_not_sent, True, False),
        (_superseded, False, False),
        (_cancelled, False, False),
    ],
)
def test_a_late_answer_about_a_code(
    world: World, ended: Any, *, sent_contradicts: bool, not_sent_contradicts: bool
) -> None:
    id_ = ended(world)
    refuse(world, Code.REQUEST_NOT_OPEN, code_sent(id_), contradicted=sent_contradicts)
    refuse(world, Code.REQUEST_NOT_OPEN, no_code(id_), contradicted=not_sent_contradicts)
    refuse(world, Code.REQUEST_NOT_OPEN, no_code(id_, "expired"))
    for event in world.events("gateway.contradicted"):
        assert event.fields["op"] == "account.send_code"
        assert event.fields["reference"] == str(id_)
        assert event.fields["document_state"] == account(world, id_).state


# -- signing in


def test_a_code_signs_in(world: World) -> None:
    id_ = with_code(world)
    mark = len(world.records)
    outcome = world.one(approve(id_, "main", password="hunter2"), OWNER)
    approve_id = id_of(outcome, "approve_id")
    assert outcome.result == {"account_id": str(id_), "approve_id": str(approve_id), "state": "signing_in"}
    found = account(world, id_)
    assert (found.state, found.approve_id, found.name) == ("signing_in", approve_id, "main")
    request = asked(world, approve_id)
    assert (request.op, request.answers) == ("account.sign_in", "accounts.approve")
    body = {"account_id": str(id_), "phone": PHONE, "code": "12345", "password": "hunter2"}
    assert from_json(request.body) == body
    names = {"user_id": OWNER, "account_id": str(id_), "approve_id": str(approve_id)}
    assert from_json(request.names) == names
    assert world.timers[-1] == (world.now + timedelta(seconds=3_602), not_approved(id_, approve_id, "expired"))
    assert events_since(world, mark) == []


def test_a_secret_goes_into_the_request_and_nowhere_else(world: World) -> None:
    id_ = with_code(world)
    outcome = world.one(approve(id_, code="987654321", password="hunter2"), OWNER)
    rest = [row for (kind, _), row in world.rows.items() if kind is not GatewayRequest]
    for secret in ("987654321", "hunter2"):
        assert secret not in repr((rest, world.records, world.timers, outcome))


def test_without_a_password_none_is_sent(world: World) -> None:
    _, approve_id = signing_in(world)
    assert from_json(asked(world, approve_id).body)["password"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", "123"),
        ("code", "12345678901"),
        ("code", "12a45"),
        ("code", ""),
        ("password", ""),
        ("password", "x" * 256),
        ("name", ""),
        ("name", "x" * 65),
        ("name", "a\nb"),
    ],
)
def test_codes_passwords_and_names_have_their_bounds(field: str, value: str) -> None:
    with pytest.raises(Invalid, match=rf"payload\.{field}") as raised:
        approve(NOWHERE, **{field: value})
    assert not value or value not in str(raised.value)


def test_codes_passwords_and_names_reach_their_bounds() -> None:
    approve(NOWHERE, code="1234", password="x", name="x")
    approve(NOWHERE, code="1234567890", password="x" * 255, name="é" * 64)


def test_an_unknown_account_is_not_approved(world: World) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, approve(NOWHERE), OWNER)


def test_only_the_owner_approves(world: World) -> None:
    refuse(world, Code.ACCOUNT_PERMISSION_DENIED, approve(with_code(world)), OTHER)


def test_a_name_is_used_once(world: World) -> None:
    connected(world)
    id_ = with_code(world, phone=ANOTHER_PHONE)
    refuse(world, Code.ACCOUNT_ALREADY_EXISTS, approve(id_, "main"), OWNER)
    succeed(world, approve(id_, "second"), OWNER)


def test_a_name_of_somebody_elses_account_is_free(world: World) -> None:
    connected(world)
    connected(world, OTHER, ANOTHER_PHONE, telegram_id=778)


def test_a_phone_that_was_connected_meanwhile_is_not_approved(world: World) -> None:
    id_ = with_code(world)
    connected(world, OTHER)
    refuse(world, Code.ACCOUNT_ALREADY_EXISTS, approve(id_), OWNER)


def test_what_exists_is_looked_at_before_the_state(world: World) -> None:
    id_ = connecting(world)
    connected(world, OTHER)
    refuse(world, Code.ACCOUNT_ALREADY_EXISTS, approve(id_), OWNER)


@pytest.mark.parametrize(
    "begin", [connecting, lambda world: signing_in(world)[0], connected, _not_sent, _superseded, _cancelled]
)
def test_only_a_code_that_was_sent_is_entered(world: World, begin: Any) -> None:
    id_ = begin(world)
    rejection = refuse(world, Code.ACCOUNT_NOT_ACTIVE, approve(id_), OWNER)
    assert rejection["state"] == account(world, id_).state


# -- what came of signing in


def test_an_account_is_connected(world: World) -> None:
    id_, approve_id = signing_in(world)
    sent(world, approve_id)
    mark = len(world.records)
    assert succeed(world, approved(id_, approve_id)) == {"account_id": str(id_), "state": "connected"}
    assert account(world, id_)[3:11] == ("main", 777, 50, True, "connected", world.now, approve_id, None)
    assert account(world, id_).closed_at is None
    assert asked(world, approve_id).state == RequestState.DONE
    assert events_since(world, mark) == [("account.connected", ("user:1",), {"account_id": str(id_)})]
    assert not requests(world, "account.sign_out")


def _same_phone(world: World) -> tuple[UUID, UUID]:
    ids = signing_in(world)
    connected(world, OTHER, telegram_id=778)
    return ids


def _same_login(world: World) -> tuple[UUID, UUID]:
    ids = signing_in(world)
    connected(world, OTHER, ANOTHER_PHONE)
    return ids


def _same_name(world: World) -> tuple[UUID, UUID]:
    ids = signing_in(world)
    connected(world, OWNER, ANOTHER_PHONE, telegram_id=778)
    return ids


@pytest.mark.parametrize("begin", [_same_phone, _same_login, _same_name])
def test_what_is_connected_elsewhere_is_signed_out_again(world: World, begin: Any) -> None:
    id_, approve_id = begin(world)
    mark = len(world.records)
    assert succeed(world, approved(id_, approve_id)) == {"account_id": str(id_), "state": "failed"}
    found = account(world, id_)
    assert (found.reason, found.closed_at, found.connected_at) == ("duplicate", world.now, None)
    [request] = requests(world, "account.sign_out")
    assert (from_json(request.body), request.answers) == ({"account_id": str(id_)}, None)
    assert events_since(world, mark) == [
        ("account.failed", ("user:1",), {"account_id": str(id_), "reason": "duplicate"})
    ]
    refuse(world, Code.REQUEST_NOT_OPEN, approved(id_, approve_id))
    refuse(world, Code.REQUEST_NOT_OPEN, not_approved(id_, approve_id), contradicted=True)


def test_of_two_sign_ins_with_one_phone_in_a_batch_one_is_connected(world: World) -> None:
    first, second = signing_in(world, OWNER), signing_in(world, OTHER)
    outcomes = world.run((approved(*first), None), (approved(*second, user_id=OTHER), None))
    assert [outcome.result and outcome.result["state"] for outcome in outcomes] == ["connected", "failed"]


def test_of_two_sign_ins_with_one_login_in_a_batch_one_is_connected(world: World) -> None:
    first, second = signing_in(world, OWNER), signing_in(world, OTHER, ANOTHER_PHONE)
    outcomes = world.run((approved(*first), None), (approved(*second, user_id=OTHER), None))
    assert [outcome.result and outcome.result["state"] for outcome in outcomes] == ["connected", "failed"]


@pytest.mark.parametrize("reason", ["code_wrong", "password_wrong", "password_needed"])
def test_what_was_wrong_is_entered_again(world: World, reason: str) -> None:
    id_, approve_id = signing_in(world)
    sent(world, approve_id)
    mark = len(world.records)
    assert succeed(world, not_approved(id_, approve_id, reason)) == {"account_id": str(id_), "state": "code_sent"}
    found = account(world, id_)
    assert (found.state, found.reason, found.closed_at) == ("code_sent", reason, None)
    assert asked(world, approve_id).state == RequestState.REFUSED
    assert events_since(world, mark) == [("account.code_sent", ("user:1",), {"account_id": str(id_), "reason": reason})]
    again = id_of(world.one(approve(id_), OWNER), "approve_id")
    assert account(world, id_).reason is None
    assert succeed(world, approved(id_, again))["state"] == "connected"


@pytest.mark.parametrize("reason", ["code_expired", "refused"])
def test_any_other_no_ends_the_attempt(world: World, reason: str) -> None:
    id_, approve_id = signing_in(world)
    sent(world, approve_id)
    mark = len(world.records)
    assert succeed(world, not_approved(id_, approve_id, reason)) == {"account_id": str(id_), "state": "failed"}
    assert (account(world, id_).reason, account(world, id_).closed_at) == (reason, world.now)
    assert events_since(world, mark) == [("account.failed", ("user:1",), {"account_id": str(id_), "reason": reason})]


def test_a_sign_in_that_was_never_attempted_is_given_up(world: World) -> None:
    id_, approve_id = signing_in(world)
    assert [code_of(outcome) for outcome in world.advance(3_602)] == ["REQUEST_NOT_OPEN", None]
    assert (account(world, id_).state, account(world, id_).reason) == ("failed", "expired")
    assert asked(world, approve_id).state == RequestState.CANCELLED


def test_a_sign_in_that_was_attempted_is_not_given_up(world: World) -> None:
    id_, approve_id = signing_in(world)
    sent(world, approve_id, RequestState.UNKNOWN)
    refuse(world, Code.REQUEST_IN_FLIGHT, not_approved(id_, approve_id, "expired"))
    assert account(world, id_).state == "signing_in"


@pytest.mark.parametrize("answer", [approved, not_approved])
def test_an_answer_to_a_sign_in_finds_the_account_of_its_user_only(world: World, answer: Any) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, answer(NOWHERE, NOWHERE))
    id_, approve_id = signing_in(world)
    refuse(world, Code.ACCOUNT_NOT_FOUND, answer(id_, approve_id, user_id=OTHER))
    refuse(world, Code.REQUEST_NOT_OPEN, answer(id_, NOWHERE))


def _failed(reason: str) -> Any:
    def fail(world: World) -> tuple[UUID, UUID]:
        ids = signing_in(world)
        succeed(world, not_approved(*ids, reason))
        return ids

    return fail


def _entered_again(world: World) -> tuple[UUID, UUID]:
    id_, approve_id = _failed("code_wrong")(world)
    succeed(world, approve(id_), OWNER)
    return id_, approve_id


def _left(state: str) -> Any:
    def leave(world: World) -> tuple[UUID, UUID]:
        ids = signing_in(world)
        if state == "connected":
            succeed(world, approved(*ids))
        succeed(world, disconnect(ids[0]), OWNER)
        return ids

    return leave


def _superseded_sign_in(world: World) -> tuple[UUID, UUID]:
    ids = signing_in(world)
    connecting(world)
    return ids


def _connected(world: World) -> tuple[UUID, UUID]:
    ids = signing_in(world)
    succeed(world, approved(*ids))
    return ids


@pytest.mark.parametrize(
    ("ended", "yes_contradicts", "no_contradicts"),
    [
        (_connected, False, True),
        (_left("connected"), False, True),
        (_failed("refused"), True, False),
        (_failed("code_wrong"), True, False),
        (_entered_again, True, False),
        (_left("signing_in"), False, False),
        (_superseded_sign_in, False, False),
    ],
)
def test_a_late_answer_to_a_sign_in(world: World, ended: Any, *, yes_contradicts: bool, no_contradicts: bool) -> None:
    id_, approve_id = ended(world)
    refuse(world, Code.REQUEST_NOT_OPEN, approved(id_, approve_id), contradicted=yes_contradicts)
    refuse(world, Code.REQUEST_NOT_OPEN, not_approved(id_, approve_id), contradicted=no_contradicts)
    refuse(world, Code.REQUEST_NOT_OPEN, not_approved(id_, approve_id, "expired"))
    for event in world.events("gateway.contradicted"):
        assert (event.fields["op"], event.fields["reference"]) == ("account.sign_in", str(approve_id))


# -- leaving


def test_leaving_takes_everything_but_what_is_in_custody(world: World) -> None:
    world.item(17, OWNER)
    id_ = connected(world)
    channels = [{"channel_id": "9", "title": "Nine"}]
    succeed(world, snapshot(id_, channels=channels))
    added(world, id_, 50)
    listed(world, id_, TON, 51)
    other = connected(world, OTHER, ANOTHER_PHONE, telegram_id=778)
    added(world, other, 52, OTHER)
    mark = len(world.records)
    assert succeed(world, disconnect(id_), OWNER) == {"account_id": str(id_), "channels_deleted": 2}
    found = account(world, id_)
    assert (found.state, found.reason, found.closed_at) == ("disconnected", None, world.now)
    assert not [row for (kind, _), row in world.rows.items() if kind in (AccountGift, AccountChannel)]
    for channel_id in (50, 51):
        channel = world.get(Channel, channel_id)
        assert (channel.state, channel.price_nano, channel.closed_at) == ("deleted", None, world.now)
    assert world.get(Channel, 52).state == ChannelState.UNLISTED
    [request] = requests(world, "account.sign_out")
    assert (from_json(request.body), request.answers) == ({"account_id": str(id_)}, None)
    assert world.get(Nft, 17).state == NftState.HELD
    told_ = [(name, topics, fields) for name, topics, fields in events_since(world, mark)]
    assert told_ == [
        ("channel.deleted", ("channel:50",), {"channel_id": "50"}),
        ("channel.deleted", ("user:1",), {"channel_id": "50"}),
        ("channel.deleted", ("channel:51",), {"channel_id": "51"}),
        ("channel.deleted", ("user:1",), {"channel_id": "51"}),
        ("account.disconnected", ("user:1",), {"account_id": str(id_)}),
    ]


def test_nobody_leaves_while_a_channel_is_being_sold(world: World) -> None:
    id_ = connected(world)
    added(world, id_, 50)
    listed(world, id_, TON)
    purchase_id = id_of(world.one(told("channels.buy", channel_id=CHANNEL, price_nano=TON), OTHER), "purchase_id")
    refuse(world, Code.ACCOUNT_IN_USE, disconnect(id_), OWNER)
    succeed(world, told("channels.buy_confirm", channel_id=CHANNEL, purchase_id=purchase_id))
    assert succeed(world, disconnect(id_), OWNER)["channels_deleted"] == 1
    assert world.get(Channel, CHANNEL).state == ChannelState.SOLD


@pytest.mark.parametrize("begin", [connecting, with_code, lambda world: signing_in(world)[0]])
def test_an_unfinished_attempt_is_left(world: World, begin: Any) -> None:
    id_ = begin(world)
    succeed(world, disconnect(id_), OWNER)
    assert account(world, id_).state == AccountState.DISCONNECTED


def test_nobody_is_signed_in_after_leaving(world: World) -> None:
    id_, approve_id = signing_in(world)
    succeed(world, disconnect(id_), OWNER)
    assert asked(world, approve_id).state == RequestState.CANCELLED
    first = connecting(world)
    succeed(world, disconnect(first), OWNER)
    assert asked(world, first).state == RequestState.CANCELLED


def test_an_unknown_account_is_not_left(world: World) -> None:
    refuse(world, Code.ACCOUNT_NOT_FOUND, disconnect(NOWHERE), OWNER)


def test_only_the_owner_leaves(world: World) -> None:
    refuse(world, Code.ACCOUNT_PERMISSION_DENIED, disconnect(connected(world)), OTHER)


@pytest.mark.parametrize("ended", [_not_sent, _superseded, _cancelled])
def test_what_is_over_is_not_left(world: World, ended: Any) -> None:
    id_ = ended(world)
    assert refuse(world, Code.ACCOUNT_NOT_ACTIVE, disconnect(id_), OWNER)["state"] == account(world, id_).state


def test_a_blocked_user_may_only_leave(world: World) -> None:
    id_ = connected(world)
    other = with_code(world, phone=ANOTHER_PHONE)
    world.rows[User, OWNER] = world.get(User, OWNER)._replace(blocked=True)
    refuse(world, Code.USER_BLOCKED, connect(), OWNER)
    refuse(world, Code.USER_BLOCKED, approve(other, "x"), OWNER)
    assert KINDS["accounts.disconnect"].releases_only
    succeed(world, disconnect(id_), OWNER)


# -- histories

PHONES = (PHONE, ANOTHER_PHONE)
ACTIONS = st.tuples(
    st.sampled_from(["connect", "sent", "no_code", "approve", "yes", "wrong", "no", "leave", "attempt", "wait"]),
    st.integers(1, 2),
    st.integers(0, 3),
)
Action = tuple[str, int, int]


def _command(world: World, action: str, user_id: int, number: int) -> Sent | None:
    """The command of an action, for one of the accounts so far, or none."""
    rows = sorted(row for (kind, _), row in world.rows.items() if kind is TelegramAccount)
    row = TelegramAccount._make(rows[number % len(rows)]) if rows else None
    id_, owner_id = (row.id, row.user_id) if row else (NOWHERE, user_id)
    approve_id = row.approve_id if row and row.approve_id else NOWHERE
    match action:
        case "connect":
            return connect(PHONES[number % 2]), user_id
        case "sent":
            return code_sent(id_, owner_id), None
        case "no_code":
            return no_code(id_, user_id=owner_id), None
        case "approve":
            return approve(id_, f"name {number % 2}"), owner_id
        case "yes":
            return approved(id_, approve_id, owner_id, telegram_id=700 + number % 2), None
        case "wrong":
            return not_approved(id_, approve_id, "code_wrong", owner_id), None
        case "no":
            return not_approved(id_, approve_id, user_id=owner_id), None
        case "leave":
            return disconnect(id_), owner_id
    return None


def check(world: World) -> None:
    """What the database's unique indexes say, V23 and V24 as far as accounts go."""
    accounts = [TelegramAccount._make(row) for (kind, _), row in world.rows.items() if kind is TelegramAccount]
    active = [account for account in accounts if account.state == AccountState.CONNECTED]
    for identity in (
        [account.phone for account in active],
        [account.telegram_id for account in active],
        [(account.user_id, account.name) for account in active],
    ):
        assert len(set(identity)) == len(identity)
    waiting = {AccountState.REQUESTED, AccountState.SIGNING_IN}
    for account in accounts:
        assert (account.closed_at is not None) == (account.state in ("failed", "disconnected"))
        if account.state in waiting:
            reference = account.id if account.state == AccountState.REQUESTED else account.approve_id
            request = world.get(GatewayRequest, reference)
            assert request.closed_at is None
            if request.attempts == 0:
                assert [
                    timer
                    for _, timer in world.timers
                    if getattr(timer, "account_id", None) == account.id
                    and getattr(timer, "approve_id", account.id) == reference
                ]


def begun() -> World:
    world = World()
    world.user(OWNER)
    world.user(OTHER)
    return world


@given(st.lists(ACTIONS, max_size=25))
@settings(max_examples=100, deadline=None)
def test_a_phone_a_login_and_a_name_are_connected_once(actions: list[Action]) -> None:
    world = begun()
    for action, user_id, number in actions:
        open_ = [row for (kind, _), row in world.rows.items() if kind is GatewayRequest and row[-1] is None]
        if action == "attempt" and open_:
            sent(world, open_[number % len(open_)][0])
        if action == "wait":
            world.advance(1_300 * number)
        command = _command(world, action, user_id, number)
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
    """Answers are for the accounts of earlier batches."""
    singly, batched = begun(), begun()
    for start in range(0, len(actions), size):
        commands = [_command(singly, *action) for action in actions[start : start + size]]
        history = [command for command in commands if command is not None]
        one_by_one = [singly.one(*command) for command in history]
        if history:
            assert batched.run(*history) == one_by_one
        check(batched)
    for (kind, key), row in singly.rows.items():
        if kind is TelegramAccount:
            assert batched.get(kind, key)[:8] == row[:8]


def test_a_channel_inspected_after_leaving_is_gone(world: World) -> None:
    id_ = connected(world)
    check_id = id_of(world.one(told("channels.add", channel_id="50", account_id=id_), OWNER), "check_id")
    succeed(world, disconnect(id_), OWNER)
    refuse(world, Code.CHANNEL_NOT_FOUND, shown(50, check_id))
