"""Withdrawals: one payout for what is held, nothing back before a definite no."""

from base64 import standard_b64encode, urlsafe_b64encode
from binascii import crc_hqx
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from commands.book import EXPENSE, FEES, WITHDRAWALS, Account, Posting
from commands.command import KINDS, Invalid
from commands.market.ton import read_address, same_account
from commands.market.withdrawals import Withdrawal
from commands.outcome import Code, Outcome, Status
from commands.requests import GatewayRequest, RequestState, SagaState
from commands.terms import TON, Terms
from commands.users import User
from tests.commands.world import Sent, World, code_of, command, deposit

USER, OTHER = 1, 2
FEE = TON // 100


def address(number: int = 1, tag: int = 0x11, workchain: int = 0, encode: Any = urlsafe_b64encode) -> str:
    """The user-friendly form of an account that is told by a number."""
    body = bytes([tag, workchain]) + number.to_bytes(32)
    text: str = encode(body + crc_hqx(body, 0).to_bytes(2)).decode()
    return text


def withdraw(amount_nano: int, to: str | None = None, **fields: Any) -> Any:
    return command("market.withdraw", amount_nano=amount_nano, address=to or address(), **fields)


def confirm(withdrawal_id: UUID, user_id: int = USER, **changes: Any) -> Any:
    fields = {"tx_hash": "ab" * 32, "logical_time": 5, "network_fee_nano": 3_000_000}
    names = {"user_id": user_id, "withdrawal_id": withdrawal_id}
    return command("market.withdraw_confirm", **(names | fields | changes))


def fail(withdrawal_id: UUID, reason: str = "refused", user_id: int = USER) -> Any:
    return command("market.withdraw_fail", user_id=user_id, withdrawal_id=withdrawal_id, reason=reason)


@pytest.fixture
def world() -> World:
    """Two users with 10 TON each."""
    world = World()
    world.user(USER)
    world.user(OTHER)
    return world


def opened(world: World, amount_nano: int = 4 * TON, user_id: int = USER, **fields: Any) -> UUID:
    """A requested withdrawal."""
    world.now += timedelta(seconds=world.terms.withdraw_interval_seconds)
    outcome = world.one(withdraw(amount_nano, **fields), user_id)
    assert outcome.result is not None, outcome
    return UUID(outcome.result["withdrawal_id"])


def sent(world: World, reference: UUID, **changes: Any) -> None:
    """What the courier writes down before it calls the gateway."""
    place = GatewayRequest, reference
    world.rows[place] = world.get(*place)._replace(**({"state": RequestState.SENT, "attempts": 1} | changes))


def refuse(world: World, code: Code, outcome_of: Any, *, contradicted: bool = False) -> dict[str, Any]:
    """The command is refused with the code, and leaves nothing behind but what operators are told."""
    rows, records = world.snapshot()
    outcome: Outcome = outcome_of()
    assert outcome.rejection is not None, outcome
    assert outcome.rejection["code"] == code.name
    assert world.rows == rows
    assert [event.name for event in world.records[len(records) :]] == ["gateway.contradicted"] * contradicted  # type: ignore[attr-defined]
    return outcome.rejection


def money(world: World, user_id: int = USER) -> tuple[int, int]:
    account = world.get(Account, user_id)
    return account.available_nano, account.held_nano


# -- market.withdraw


def test_a_withdrawal_holds_the_whole_amount_and_asks_for_the_net_payment(world: World) -> None:
    outcome = world.one(withdraw(4 * TON, comment="thanks"), USER)
    [withdrawal] = [row for (kind, _), row in world.rows.items() if kind is Withdrawal]
    id_ = Withdrawal._make(withdrawal).id
    net = 4 * TON - FEE
    assert outcome.result == {"withdrawal_id": str(id_), "amount_nano": 4 * TON, "fee_nano": FEE, "net_nano": net}
    assert withdrawal == Withdrawal(
        id_, USER, 4 * TON, FEE, 4 * TON, address(), "thanks", "requested", None, None, None, None, world.now, None
    )
    assert money(world) == (6 * TON, 4 * TON)
    asked = world.get(GatewayRequest, id_)
    assert (asked.op, asked.answers, asked.state) == ("ton.pay", "market.withdraw", RequestState.PENDING)
    assert from_json(asked.body) == {"address": address(), "amount_nano": net, "comment": "thanks"}
    assert from_json(asked.names) == {"user_id": USER, "withdrawal_id": str(id_)}
    [timer] = world.timers
    assert timer == (world.now + timedelta(seconds=3_602), fail(id_, "expired"))
    [event] = world.events("withdrawal.requested")
    assert event.topics == ("user:1", "ops")
    assert event.fields == {"withdrawal_id": str(id_), "amount_nano": 4 * TON, "fee_nano": FEE}
    posting = world.of(Posting)[-1]
    assert posting[1:6] == (USER, "available", USER, "held", 4 * TON)
    assert posting[8:] == ("withdrawal", str(id_))
    world.check()


def test_without_a_comment_none_is_paid_with(world: World) -> None:
    id_ = opened(world)
    assert from_json(world.get(GatewayRequest, id_).body)["comment"] is None


def test_the_moment_of_acceptance_is_the_users_last_withdrawal(world: World) -> None:
    accepted_at = world.now
    world.one(withdraw(TON), USER)
    assert world.get(User, USER).withdrawn_at == accepted_at


def test_a_withdrawal_is_routed_by_its_user_and_needs_a_key() -> None:
    assert withdraw(TON).asset(UUID(int=9), USER) == "user:1"
    assert KINDS["market.withdraw"].needs_key
    assert confirm(UUID(int=9)).asset(UUID(int=3), None) == "user:1"
    assert fail(UUID(int=9), user_id=7).asset(UUID(int=3), None) == "user:7"


@pytest.mark.parametrize("form", [address(9), address(9, tag=0x51), address(9, encode=standard_b64encode)])
def test_nothing_is_paid_to_the_platforms_own_wallet_in_any_form(world: World, form: str) -> None:
    world.terms = Terms(wallet=address(9))
    refuse(world, Code.ADDRESS_NOT_ALLOWED, lambda: world.one(withdraw(TON, form), USER))
    refuse(world, Code.ADDRESS_NOT_ALLOWED, lambda: world.one(withdraw(1_000 * TON, form), USER))


def test_another_account_or_workchain_is_not_the_platforms(world: World) -> None:
    world.terms = Terms(wallet=address(9), withdraw_interval_seconds=0)
    opened(world, TON, to=address(8))
    opened(world, TON, to=address(9, workchain=0xFF))


def test_a_second_withdrawal_waits_for_the_interval(world: World) -> None:
    world.one(withdraw(TON), USER)
    withdrawn_at = world.get(User, USER).withdrawn_at
    rejection = refuse(world, Code.WITHDRAWAL_LIMIT, lambda: world.one(withdraw(TON), USER))
    retry_at = withdrawn_at + timedelta(seconds=60)
    assert rejection["retry_at"] == retry_at
    assert "left_nano" not in rejection
    world.now = retry_at - timedelta(microseconds=1)
    refuse(world, Code.WITHDRAWAL_LIMIT, lambda: world.one(withdraw(TON), USER))
    world.now = retry_at
    assert world.one(withdraw(TON), USER).status is Status.SUCCEEDED
    assert world.one(withdraw(TON), OTHER).status is Status.SUCCEEDED


def test_a_failed_withdrawal_counts_for_the_interval(world: World) -> None:
    id_ = opened(world)
    world.one(fail(id_))
    refuse(world, Code.WITHDRAWAL_LIMIT, lambda: world.one(withdraw(TON), USER))


def rich(**terms: Any) -> World:
    """A user with 30 TON who may withdraw 5 a day, as often as wanted."""
    world = World(Terms(withdraw_daily_max_nano=5 * TON, withdraw_interval_seconds=0, **terms))
    world.user(USER, ton=30)
    world.user(OTHER, ton=30)
    return world


def test_requested_and_confirmed_withdrawals_of_a_day_have_a_limit() -> None:
    world = rich()
    world.one(confirm(opened(world, 2 * TON)))
    opened(world, 2 * TON)
    opened(world, 5 * TON, OTHER)
    rejection = refuse(world, Code.WITHDRAWAL_LIMIT, lambda: world.one(withdraw(TON + 1), USER))
    assert rejection["left_nano"] == TON
    assert "retry_at" not in rejection
    assert world.one(withdraw(TON), USER).status is Status.SUCCEEDED


def test_the_days_limit_forgets_what_failed() -> None:
    world = rich()
    world.one(fail(opened(world, 5 * TON)))
    assert world.one(withdraw(5 * TON), USER).status is Status.SUCCEEDED


def test_the_days_limit_forgets_what_is_a_day_old() -> None:
    world = rich()
    id_ = opened(world, 5 * TON)
    sent(world, id_)
    world.now = world.get(Withdrawal, id_).opened_at + timedelta(days=1, seconds=-2)
    assert refuse(world, Code.WITHDRAWAL_LIMIT, lambda: world.one(withdraw(TON), USER))["left_nano"] == 0
    world.now = world.get(Withdrawal, id_).opened_at + timedelta(days=1, seconds=-1)
    assert world.one(withdraw(TON), USER).status is Status.SUCCEEDED


def test_a_limit_that_was_lowered_leaves_nothing_rather_than_less() -> None:
    world = rich()
    opened(world, 5 * TON)
    world.terms = Terms(withdraw_daily_max_nano=2 * TON, withdraw_interval_seconds=0)
    assert refuse(world, Code.WITHDRAWAL_LIMIT, lambda: world.one(withdraw(TON), USER))["left_nano"] == 0


def test_the_interval_is_looked_at_before_the_day(world: World) -> None:
    world.terms = Terms(withdraw_daily_max_nano=TON)
    world.one(withdraw(TON), USER)
    assert "retry_at" in refuse(world, Code.WITHDRAWAL_LIMIT, lambda: world.one(withdraw(TON), USER))


def test_only_what_is_available_is_withdrawn(world: World) -> None:
    world.one(withdraw(5 * TON), USER)
    world.advance(60)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(withdraw(6 * TON), USER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (6 * TON, 5 * TON)


def test_everything_is_withdrawn_with_the_fee_out_of_the_amount(world: World) -> None:
    world.one(confirm(opened(world, 10 * TON)))
    assert money(world) == (0, 0)
    world.check()


def test_the_limit_is_looked_at_before_the_balance(world: World) -> None:
    world.one(withdraw(TON), USER)
    refuse(world, Code.WITHDRAWAL_LIMIT, lambda: world.one(withdraw(1_000 * TON), USER))


def test_a_blocked_user_withdraws_nothing(world: World) -> None:
    world.rows[User, USER] = world.get(User, USER)._replace(blocked=True)
    refuse(world, Code.USER_BLOCKED, lambda: world.one(withdraw(TON), USER))


def test_of_three_withdrawals_at_once_one_succeeds(world: World) -> None:
    outcomes = world.run(*[(withdraw(9 * TON), USER)] * 3)
    assert [code_of(outcome) for outcome in outcomes] == [None, "WITHDRAWAL_LIMIT", "WITHDRAWAL_LIMIT"]
    assert money(world) == (TON, 9 * TON)


def test_of_three_withdrawals_at_once_without_an_interval_one_succeeds(world: World) -> None:
    world.terms = Terms(withdraw_interval_seconds=0)
    outcomes = world.run(*[(withdraw(9 * TON), USER)] * 3)
    assert [code_of(outcome) for outcome in outcomes] == [None, "INSUFFICIENT_BALANCE", "INSUFFICIENT_BALANCE"]
    assert money(world) == (TON, 9 * TON)


def test_the_fee_is_that_of_the_moment_of_the_request(world: World) -> None:
    id_ = opened(world)
    world.terms = Terms(withdraw_fee_nano=0)
    world.one(confirm(id_))
    assert [posting[5] for posting in world.of(Posting) if posting.credit_account == FEES] == [FEE]


# -- what is no command


@pytest.mark.parametrize("amount_nano", [TON // 10, 10_000 * TON])
def test_amounts_within_the_bounds_pass(amount_nano: int) -> None:
    withdraw(amount_nano).check(Terms())


@pytest.mark.parametrize("amount_nano", [TON // 10 - 1, 10_000 * TON + 1])
def test_amounts_outside_the_bounds_are_no_commands(amount_nano: int) -> None:
    with pytest.raises(Invalid, match=r"payload\.amount_nano"):
        withdraw(amount_nano).check(Terms())


@pytest.mark.parametrize("workchain", [0, 0xFF])
@pytest.mark.parametrize("tag", [0x11, 0x51])
@pytest.mark.parametrize("encode", [urlsafe_b64encode, standard_b64encode])
def test_every_form_of_an_address_is_taken(tag: int, workchain: int, encode: Any) -> None:
    number = 0xFB << 240 | 0xFF << 232  # has both of the letters that differ
    withdraw(TON, address(number, tag, workchain, encode)).check(Terms())
    withdraw(TON, address(number, tag | 0x80, workchain, encode)).check(Terms(ton_network="testnet"))


def _with_a_wrong_checksum() -> str:
    good = address()
    return good[:-1] + ("A" if good[-1] != "A" else "B")


@pytest.mark.parametrize(
    "wrong",
    [
        _with_a_wrong_checksum(),
        address(tag=0x12),
        address(tag=0x00),
        address(workchain=1),
        address().swapcase(),
        "A" * 48,
        "é" * 48,
        " " * 48,
        "-_" * 23 + "+/",
        address(tag=0x91),
    ],
)
def test_what_is_no_address_of_the_network_is_no_command(wrong: str) -> None:
    with pytest.raises(Invalid, match=r"payload\.address"):
        withdraw(TON, wrong).check(Terms())


def test_the_test_network_has_addresses_of_its_own() -> None:
    terms = Terms(ton_network="testnet")
    withdraw(TON, address(tag=0x91)).check(terms)
    with pytest.raises(Invalid, match=r"payload\.address: is not an address of testnet"):
        withdraw(TON, address()).check(terms)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 47), st.sampled_from("ABCxyz019-_"))
def test_no_single_wrong_character_passes(account: bytes, place: int, character: str) -> None:
    good = address(int.from_bytes(account))
    wrong = good[:place] + character + good[place + 1 :]
    read = read_address(wrong)
    assert read == (0, account, False) if wrong == good else read is None


def test_what_is_no_address_is_no_ones() -> None:
    assert same_account(address(), address(tag=0xD1))
    assert not same_account("souk-wallet", "souk-wallet")
    assert not same_account(address(), "souk-wallet")
    assert not same_account("souk-wallet", address())


def test_comments_are_bounded_in_bytes() -> None:
    withdraw(TON, comment="é" * 60).check(Terms())
    with pytest.raises(Invalid, match=r"payload\.comment"):
        withdraw(TON, comment="é" * 61).check(Terms())
    for wrong in ("x" * 121, "a\nb", "\0"):
        with pytest.raises(ValueError, match="comment"):
            withdraw(TON, comment=wrong)


def test_a_fee_that_takes_the_least_withdrawal_is_no_term() -> None:
    Terms(withdraw_fee_nano=TON // 10 - 1)
    with pytest.raises(ValueError, match="withdraw_fee_nano takes all of withdraw_min_nano"):
        Terms(withdraw_fee_nano=TON // 10)


# -- market.withdraw_confirm


def test_a_payment_leaves_the_ledger_with_its_fees(world: World) -> None:
    id_ = opened(world)
    before = len(world.of(Posting))
    outcome = world.one(confirm(id_))
    assert outcome.result == {"withdrawal_id": str(id_), "state": "confirmed", "tx_hash": "ab" * 32}
    assert [posting[1:6] for posting in world.of(Posting)[before:]] == [
        (USER, "held", WITHDRAWALS, "available", 4 * TON - FEE),
        (USER, "held", FEES, "available", FEE),
        (EXPENSE, "available", WITHDRAWALS, "available", 3_000_000),
    ]
    assert {posting[8:] for posting in world.of(Posting)[before:]} == {("withdrawal", str(id_))}
    assert money(world) == (6 * TON, 0)
    withdrawal = world.get(Withdrawal, id_)
    assert (withdrawal.state, withdrawal.held_nano, withdrawal.closed_at) == ("confirmed", 0, world.now)
    assert withdrawal[8:12] == ("ab" * 32, 5, 3_000_000, None)
    asked = world.get(GatewayRequest, id_)
    assert (asked.state, asked.closed_at) == (RequestState.DONE, world.now)
    [event] = world.events("withdrawal.confirmed")
    assert event.topics == ("user:1", "ops")
    assert event.fields == {
        "withdrawal_id": str(id_),
        "amount_nano": 4 * TON,
        "fee_nano": FEE,
        "tx_hash": "ab" * 32,
    }
    world.check()


def test_a_payment_that_cost_the_network_nothing_posts_nothing_of_it(world: World) -> None:
    id_ = opened(world)
    before = len(world.of(Posting))
    world.one(confirm(id_, network_fee_nano=0))
    assert len(world.of(Posting)) == before + 2


@pytest.mark.parametrize("answer", [confirm, fail])
def test_an_answer_finds_the_withdrawal_of_its_user_only(world: World, answer: Any) -> None:
    refuse(world, Code.WITHDRAWAL_NOT_FOUND, lambda: world.one(answer(UUID(int=1 << 100))))
    id_ = opened(world)
    refuse(world, Code.WITHDRAWAL_NOT_FOUND, lambda: world.one(answer(id_, user_id=OTHER)))


def test_a_payment_is_confirmed_once(world: World) -> None:
    id_ = opened(world)
    world.one(confirm(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(confirm(id_)))


def test_operators_hear_of_a_refusal_of_what_was_paid(world: World) -> None:
    id_ = opened(world)
    world.one(confirm(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(fail(id_)), contradicted=True)
    [event] = world.events("gateway.contradicted")
    assert event.topics == ("ops",)
    assert event.fields == {
        "reference": str(id_),
        "op": "ton.pay",
        "document_state": SagaState.CONFIRMED,
        "answer": RequestState.REFUSED,
    }


def test_operators_hear_of_a_payment_of_what_was_refused(world: World) -> None:
    id_ = opened(world)
    world.one(fail(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(confirm(id_)), contradicted=True)
    assert money(world) == (10 * TON, 0)


def test_the_timer_of_a_paid_withdrawal_contradicts_nothing(world: World) -> None:
    id_ = opened(world)
    world.one(confirm(id_))
    [outcome] = world.advance(3_602)
    assert code_of(outcome) == "REQUEST_NOT_OPEN"
    assert not world.events("gateway.contradicted")


# -- market.withdraw_fail


@pytest.mark.parametrize("reason", ["address_rejected", "never_broadcast", "refused"])
def test_a_definite_no_gives_everything_back(world: World, reason: str) -> None:
    id_ = opened(world)
    sent(world, id_)
    withdrawn_at = world.get(User, USER).withdrawn_at
    outcome = world.one(fail(id_, reason))
    assert outcome.result == {"withdrawal_id": str(id_), "state": "failed"}
    assert money(world) == (10 * TON, 0)
    withdrawal = world.get(Withdrawal, id_)
    assert (withdrawal.state, withdrawal.reason, withdrawal.held_nano) == ("failed", reason, 0)
    assert withdrawal.closed_at == world.now
    assert world.get(GatewayRequest, id_).state == RequestState.REFUSED
    assert world.get(User, USER).withdrawn_at == withdrawn_at
    [event] = world.events("withdrawal.failed")
    assert (event.topics, event.fields["reason"]) == (("user:1", "ops"), reason)
    assert world.of(Posting)[-1][8:] == ("withdrawal", str(id_))
    world.check()


def test_a_payment_that_was_never_attempted_is_given_up(world: World) -> None:
    id_ = opened(world)
    assert world.advance(3_601) == []
    [outcome] = world.advance(1)
    assert outcome.status is Status.SUCCEEDED
    assert money(world) == (10 * TON, 0)
    assert world.get(Withdrawal, id_).reason == "expired"
    assert world.get(GatewayRequest, id_).state == RequestState.CANCELLED


@pytest.mark.parametrize("state", [RequestState.SENT, RequestState.UNKNOWN, RequestState.NEVER_SEEN])
def test_a_payment_that_was_attempted_is_not_given_up(world: World, state: RequestState) -> None:
    id_ = opened(world)
    sent(world, id_, state=state)
    refuse(world, Code.REQUEST_IN_FLIGHT, lambda: world.one(fail(id_, "expired")))
    assert money(world) == (6 * TON, 4 * TON)
    assert world.one(confirm(id_)).status is Status.SUCCEEDED


def test_a_late_no_to_a_payment_given_up_contradicts_nothing_but_a_yes_does(world: World) -> None:
    id_ = opened(world)
    world.one(fail(id_, "expired"))
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(fail(id_)))
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(confirm(id_)), contradicted=True)


def test_a_reason_is_one_of_the_list() -> None:
    with pytest.raises(ValueError, match="reason"):
        fail(UUID(int=1), "because")


# -- histories

ACTIONS = st.one_of(
    st.tuples(st.just("deposit"), st.integers(1, 2), st.sampled_from([TON, 3 * TON])),
    st.tuples(st.just("withdraw"), st.integers(1, 2), st.sampled_from([TON // 10, TON, 4 * TON + 1, 11 * TON])),
    st.tuples(st.sampled_from(["confirm", "refused", "expired", "attempt"]), st.integers(1, 2), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from([1, 60, 3_600, 86_400])),
)


def _act(world: World, action: str, user_id: int, number: int) -> list[Sent]:
    """The command of an action; answers are for one of the withdrawals so far, or none."""
    ids = sorted(row.id for (kind, _), row in world.rows.items() if kind is Withdrawal)  # type: ignore[attr-defined]
    id_ = ids[number % len(ids)] if ids else UUID(int=1 << 100)
    match action:
        case "deposit":
            return [(deposit(user_id, number), None)]
        case "withdraw":
            return [(withdraw(number), user_id)]
        case "confirm":
            return [(confirm(id_, user_id), None)]
        case "attempt" if ids and world.get(GatewayRequest, id_).closed_at is None:
            sent(world, id_)
        case "refused" | "expired":
            return [(fail(id_, action, user_id), None)]
        case "wait":
            world.advance(number)
    return []


def check(world: World) -> None:
    """V4, V5, V6, V10, V23 and V24 as far as withdrawals go, and the limit of a day."""
    world.check()
    withdrawals = [Withdrawal._make(row) for (kind, _), row in world.rows.items() if kind is Withdrawal]
    paid = 0
    for withdrawal in withdrawals:
        waiting = withdrawal.state == SagaState.REQUESTED
        assert withdrawal.held_nano == (withdrawal.amount_nano if waiting else 0)
        assert (withdrawal.closed_at is None) == waiting
        asked = world.get(GatewayRequest, withdrawal.id)
        assert (asked.closed_at is None) == waiting
        if waiting and asked.attempts == 0:
            assert [timer for _, timer in world.timers if getattr(timer, "withdrawal_id", None) == withdrawal.id]
        postings = [posting for posting in world.of(Posting) if posting.document_id == str(withdrawal.id)]
        held = sum(p.amount_nano * ((p.credit_side == "held") - (p.debit_side == "held")) for p in postings)
        assert held == withdrawal.held_nano
        if withdrawal.state == SagaState.CONFIRMED:
            paid += withdrawal.amount_nano - withdrawal.fee_nano + (withdrawal.network_fee_nano or 0)
    for user_id in (USER, OTHER):
        own = [withdrawal for withdrawal in withdrawals if withdrawal.user_id == user_id]
        assert money(world, user_id)[1] == sum(withdrawal.held_nano for withdrawal in own)
        recent = [w.amount_nano for w in own if w.opened_at > world.now - timedelta(days=1) and w.state != "failed"]
        assert sum(recent) <= world.terms.withdraw_daily_max_nano
    posted = sum(posting.amount_nano for posting in world.of(Posting) if posting.credit_account == WITHDRAWALS)
    assert posted == paid


def begun() -> World:
    world = World(Terms(withdraw_daily_max_nano=9 * TON, withdraw_interval_seconds=3))
    world.user(USER)
    world.user(OTHER)
    return world


@given(st.lists(ACTIONS, max_size=25))
@settings(max_examples=100, deadline=None)
def test_held_money_is_paid_once_or_given_back(actions: list[tuple[str, int, int]]) -> None:
    world = begun()
    for action in actions:
        commands = _act(world, *action)
        before = world.snapshot()
        for outcome in world.run(*commands):
            assert outcome.status in (Status.SUCCEEDED, Status.REJECTED), outcome
            if outcome.status is Status.REJECTED:
                assert world.rows == before[0]
        check(world)


@given(st.lists(st.tuples(st.sampled_from(["withdraw", "deposit"]), st.integers(1, 2), st.integers(1, 6)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_worth_as_many_batches_of_one(actions: list[tuple[str, int, int]]) -> None:
    """With the answers to all withdrawals in a second batch."""
    singly, batched = begun(), begun()
    for world in (singly, batched):
        world.terms = Terms(withdraw_daily_max_nano=9 * TON, withdraw_interval_seconds=0)
    sent_ = [
        (withdraw(n * TON) if action == "withdraw" else deposit(user, n * TON), user) for action, user, n in actions
    ]
    first = [singly.one(*one) for one in sent_], batched.run(*sent_)
    ids = [
        (UUID(outcome.result["withdrawal_id"]), user)
        for outcome, (_, user) in zip(first[0], sent_, strict=True)
        if outcome.result and "withdrawal_id" in outcome.result
    ]
    answers: list[Sent] = [
        (confirm(id_, user) if number % 2 else fail(id_, user_id=user), None) for number, (id_, user) in enumerate(ids)
    ]
    second = [singly.one(*one) for one in answers], batched.run(*answers)
    assert first[0] == first[1]
    assert second[0] == second[1]
    for user_id in (USER, OTHER):
        assert money(singly, user_id) == money(batched, user_id)
    check(batched)
