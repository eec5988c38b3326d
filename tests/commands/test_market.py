"""Deposits: credited once to the user in the memo, or kept unclaimed until an operator assigns them; adjustments."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commands.book import DEPOSITS, EXPENSE, UNCLAIMED, Posting
from commands.command import Command, Invalid
from commands.market.deposits import Deposit
from commands.outcome import Code, Status
from commands.terms import TON, Terms
from commands.users import User, memo_of
from tests.commands.test_nft import refuse
from tests.commands.world import WALLET, World, code_of, command, deposit


def test_a_deposit_is_credited_to_the_user_in_its_memo() -> None:
    world = World()
    world.user(7, ton=0)
    outcome = world.one(deposit(7, 3 * TON))
    assert outcome.result is not None
    assert outcome.result["state"] == "credited"
    assert outcome.result["user_id"] == 7
    assert world.balance(7) == 3 * TON
    [event] = world.events("balance.changed")
    assert event.fields == {
        "available_nano": 3 * TON,
        "held_nano": 0,
        "change_available_nano": 3 * TON,
        "change_held_nano": 0,
        "kind": "market.deposit",
    }
    world.check()


@pytest.mark.parametrize(
    ("memo", "amount_nano", "reason"),
    [
        ("", TON, "memo_unreadable"),
        ("hello", TON, "memo_unreadable"),
        (memo_of(8), TON, "user_unknown"),
        (memo_of(7), Terms().deposit_min_nano - 1, "below_minimum"),
        (memo_of(7), 1, "below_minimum"),
        (memo_of(7), Terms().deposit_max_nano + 1, "above_maximum"),
    ],
)
def test_a_deposit_that_cannot_be_credited_is_kept_at_its_full_amount(memo: str, amount_nano: int, reason: str) -> None:
    world = World()
    world.user(7, ton=0)
    command = deposit(7, amount_nano, memo=memo)
    outcome = world.one(command)
    assert outcome.result is not None
    assert outcome.result["state"] == "unclaimed"
    [row] = [row for (kind, _), row in world.rows.items() if kind is Deposit]
    assert (Deposit._make(row).reason, Deposit._make(row).amount_nano) == (reason, amount_nano)
    [posting] = world.records[-2:-1]
    assert posting[1:6] == (DEPOSITS, "available", UNCLAIMED, "available", amount_nano)
    assert world.balance(7) == 0
    assert [event.topics for event in world.events("deposit.unclaimed")] == [("ops",)]
    world.check()


@pytest.mark.parametrize("amount_nano", [Terms().deposit_min_nano, Terms().deposit_max_nano])
def test_the_bounds_of_a_deposit_are_credited(amount_nano: int) -> None:
    world = World()
    world.user(7, ton=0)
    world.one(deposit(7, amount_nano))
    assert world.balance(7) == amount_nano


def test_one_transaction_is_recorded_once() -> None:
    world = World()
    world.user(7, ton=0)
    command = deposit(7, TON)
    first, second = world.run((command, None), (command, None))
    assert first.result is not None
    assert code_of(second) == "DEPOSIT_ALREADY_RECORDED"
    assert code_of(world.one(command)) == "DEPOSIT_ALREADY_RECORDED"
    assert world.balance(7) == TON
    world.check()


def test_equal_deposits_of_different_time_are_two() -> None:
    world = World()
    world.user(7, ton=0)
    world.run((deposit(7, TON), None), (deposit(7, TON), None))
    assert world.balance(7) == 2 * TON


def test_a_blocked_user_is_credited() -> None:
    world = World()
    world.user(7, ton=0)
    world.rows[User, 7] = world.get(User, 7)._replace(blocked=True)
    world.one(deposit(7, TON))
    assert world.balance(7) == TON


def test_a_deposit_is_routed_by_its_memo() -> None:
    assert deposit(7, TON).asset(UUID(int=1), None) == "user:7"
    assert deposit(7, TON, memo="?").asset(UUID(int=1), None) == f"wallet:{WALLET}"


def test_a_nul_in_a_memo_is_recorded_all_the_same() -> None:
    world = World()
    outcome = world.one(deposit(7, TON, memo="a\0b"))
    assert outcome.result is not None
    [row] = [row for (kind, _), row in world.rows.items() if kind is Deposit]
    assert Deposit._make(row).memo == "a�b"


# -- market.assign_deposit


def assign(deposit_id: UUID, user_id: int) -> Command:
    return command("market.assign_deposit", deposit_id=deposit_id, user_id=user_id)


def unclaimed(world: World, amount_nano: int = TON) -> UUID:
    outcome = world.one(deposit(7, amount_nano, memo="?"))
    assert outcome.result is not None
    return UUID(outcome.result["deposit_id"])


def stored(world: World, deposit_id: UUID) -> Deposit:
    [row] = [row for (kind, _), row in world.rows.items() if kind is Deposit and Deposit._make(row).id == deposit_id]
    return Deposit._make(row)


@pytest.fixture
def world() -> World:
    """Users 7 and 8 without money."""
    world = World()
    world.user(7, ton=0)
    world.user(8, ton=0)
    return world


@pytest.mark.parametrize("amount_nano", [1, 3 * TON, 10**18])
def test_an_assigned_deposit_is_credited_whatever_its_amount(world: World, amount_nano: int) -> None:
    """H26."""
    deposit_id = unclaimed(world, amount_nano)
    outcome = world.one(assign(deposit_id, 7))
    assert outcome.result == {"deposit_id": str(deposit_id), "user_id": 7}
    assert world.balance(7) == amount_nano
    row = stored(world, deposit_id)
    assert (row.state, row.user_id, row.reason) == ("assigned", 7, "memo_unreadable")
    assert row.closed_at is not None
    posting = world.of(Posting)[-1]
    assert posting[1:6] == (UNCLAIMED, "available", 7, "available", amount_nano)
    assert posting[8:] == ("deposit", str(deposit_id))
    [event] = world.events("deposit.assigned")
    assert event.topics == ("user:7", "ops")
    assert event.fields == {"deposit_id": str(deposit_id), "amount_nano": amount_nano, "tx_hash": row.hash}
    world.check()


@pytest.mark.parametrize("user_id", [7, 8])
def test_a_deposit_is_assigned_once(world: World, user_id: int) -> None:
    deposit_id = unclaimed(world)
    first, second = world.run((assign(deposit_id, 7), None), (assign(deposit_id, user_id), None))
    assert first.status is Status.SUCCEEDED
    assert code_of(second) == "DEPOSIT_NOT_UNCLAIMED"
    refuse(world, Code.DEPOSIT_NOT_UNCLAIMED, lambda: world.one(assign(deposit_id, user_id)))
    assert world.balance(7) + world.balance(8) == TON


def test_a_deposit_that_was_credited_is_not_assigned(world: World) -> None:
    outcome = world.one(deposit(7, TON))
    assert outcome.result is not None
    deposit_id = UUID(outcome.result["deposit_id"])
    refuse(world, Code.DEPOSIT_NOT_UNCLAIMED, lambda: world.one(assign(deposit_id, 8)))


def test_a_deposit_is_assigned_in_the_batch_that_recorded_it(world: World) -> None:
    recorded, assigned = world.run((deposit(7, TON, memo="?"), None), (assign(UUID(int=3), 7), None))
    assert recorded.result == {"deposit_id": str(UUID(int=3)), "state": "unclaimed"}
    assert assigned.status is Status.SUCCEEDED
    assert world.balance(7) == TON


def test_an_unknown_deposit_and_before_it_an_unknown_user_are_refused(world: World) -> None:
    refuse(world, Code.DEPOSIT_NOT_FOUND, lambda: world.one(assign(UUID(int=404), 7)))
    rejection = refuse(world, Code.USER_NOT_FOUND, lambda: world.one(assign(UUID(int=404), 404)))
    assert rejection["user_id"] == 404


# -- market.adjust


def adjust(user_id: int, amount_nano: int, reason: str = "a mistake of ours") -> Command:
    return command("market.adjust", user_id=user_id, amount_nano=amount_nano, reason=reason)


def test_an_adjustment_moves_money_between_user_and_expense_by_its_sign(world: World) -> None:
    assert world.one(adjust(7, 5 * TON)).result == {"amount_nano": 5 * TON}
    assert world.of(Posting)[-1][1:6] == (EXPENSE, "available", 7, "available", 5 * TON)
    assert world.one(adjust(7, -2 * TON)).result == {"amount_nano": -2 * TON}
    assert world.of(Posting)[-1][1:6] == (7, "available", EXPENSE, "available", 2 * TON)
    assert world.balance(7) == 3 * TON
    assert all(posting.document_kind is posting.document_id is None for posting in world.of(Posting))
    assert [event.fields["change_available_nano"] for event in world.events("balance.changed")] == [5 * TON, -2 * TON]
    world.check()


def test_no_more_is_taken_than_is_available(world: World) -> None:
    world.one(adjust(7, TON))
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(adjust(7, -TON - 1)))
    assert (rejection["required_nano"], rejection["available_nano"]) == (TON + 1, TON)
    assert world.one(adjust(7, -TON)).status is Status.SUCCEEDED
    assert world.balance(7) == 0


@pytest.mark.parametrize("amount_nano", [1, -1])
def test_nobody_unknown_is_adjusted(world: World, amount_nano: int) -> None:
    assert refuse(world, Code.USER_NOT_FOUND, lambda: world.one(adjust(404, amount_nano)))["user_id"] == 404


def test_an_adjustment_of_nothing_is_none() -> None:
    with pytest.raises(Invalid, match="amount_nano"):
        adjust(7, 0).check(Terms())
    for amount_nano in (1, -1):
        adjust(7, amount_nano).check(Terms())


@pytest.mark.parametrize("changes", [{"amount_nano": 2**53}, {"amount_nano": -(2**53)}, {"reason": ""}])
def test_an_adjustment_has_bounds_and_a_reason(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        command("market.adjust", **({"user_id": 7, "amount_nano": 1, "reason": "why"} | changes))


@given(st.lists(st.tuples(st.sampled_from([7, 8]), st.integers(-5, 5).filter(bool)), max_size=20))
def test_adjustments_never_take_a_balance_below_nothing(adjustments: list[tuple[int, int]]) -> None:
    singly, batched = World(), World()
    for world in (singly, batched):
        world.user(7, ton=0)
        world.user(8, ton=0)
    sent = [(adjust(user_id, amount_nano), None) for user_id, amount_nano in adjustments]
    balances = {7: 0, 8: 0}
    for (user_id, amount_nano), one in zip(adjustments, sent, strict=True):
        [outcome] = singly.run(one)
        assert (outcome.status is Status.SUCCEEDED) == (balances[user_id] + amount_nano >= 0)
        if outcome.status is Status.SUCCEEDED:
            balances[user_id] += amount_nano
        singly.check()
    batched.run(*sent)
    assert balances == {user_id: batched.balance(user_id) for user_id in (7, 8)}


def test_what_operators_send_is_ordered_with_what_else_concerns_the_user() -> None:
    assert assign(UUID(int=1), 7).asset(UUID(int=2), None) == adjust(7, 1).asset(UUID(int=2), None) == "user:7"


def test_a_transaction_reported_in_either_case_is_one_deposit() -> None:
    world = World()
    world.user(7, ton=0)
    lower = deposit(7, TON, logical_time=1, hash="ab" * 32)
    upper = deposit(7, TON, logical_time=1, hash="AB" * 32)
    assert upper.model_dump_json() == lower.model_dump_json()
    assert world.one(upper).status is Status.SUCCEEDED
    assert code_of(world.one(lower)) == "DEPOSIT_ALREADY_RECORDED"
    assert world.balance(7) == TON
