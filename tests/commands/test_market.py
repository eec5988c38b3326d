"""Deposits: credited once to the user in the memo, or kept unclaimed."""

from uuid import UUID

import pytest

from commands.book import DEPOSITS, UNCLAIMED
from commands.market import Deposit
from commands.terms import TON, Terms
from commands.users import User, memo_of
from tests.commands.world import WALLET, World, code_of, deposit


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
