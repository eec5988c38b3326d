"""Users: registered once, and found by their memo."""

from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commands.book import Account
from commands.command import KINDS, Command, Sender
from commands.outcome import Status
from commands.terms import TON
from commands.users import User, memo_of, user_of
from tests.commands.world import World, code_of, command, register, set_price

USER_IDS = st.integers(1, 2**53 - 1)


@given(USER_IDS)
def test_a_memo_leads_back_to_its_user(user_id: int) -> None:
    assert user_of(memo_of(user_id)) == user_id


@given(USER_IDS, st.text(" ", max_size=3))
def test_a_memo_is_read_as_people_write_it(user_id: int, space: str) -> None:
    written = memo_of(user_id).lower().replace("0", "o").replace("1", "l")
    assert user_of(space + written + space) == user_id


@given(st.text(max_size=20))
def test_a_text_that_decodes_is_the_memo_of_its_user(text: str) -> None:
    user_id = user_of(text)
    if user_id is not None:
        assert user_of(memo_of(user_id)) == user_id


def test_a_wrong_digit_is_noticed() -> None:
    memo = memo_of(123456789)
    for position, digit in enumerate(memo):
        wrong = memo[:position] + ("7" if digit != "7" else "8") + memo[position + 1 :]
        assert user_of(wrong) is None


def test_the_memo_of_a_small_id() -> None:
    assert memo_of(1) == "101"
    assert memo_of(42) == "1A1A"


def test_registering_gives_a_user_with_an_empty_account() -> None:
    world = World()
    outcome = world.one(command("users.register", user_id=5, language="de"))
    assert outcome.result == {"user_id": 5, "memo": "505", "created": True}
    assert world.get(User, 5).language == "de"
    assert world.get(Account, 5) == Account(5, 0, 0)
    assert [event.topics for event in world.events("user.registered")] == [("user:5", "ops")]


def test_registering_again_changes_nothing() -> None:
    world = World()
    world.one(command("users.register", user_id=5, language="de"))
    before = world.snapshot()
    outcome = world.one(register(5))
    assert outcome.result is not None
    assert outcome.result["created"] is False
    assert world.snapshot() == before


def test_an_unknown_actor_is_refused_before_anything_else() -> None:
    outcome = World().one(set_price(1, 10**10), actor=9)
    assert outcome.rejection == {"code": "USER_NOT_FOUND", "detail": "There is no such user.", "user_id": 9}


def test_a_blocked_user_is_refused_before_anything_else() -> None:
    world = World()
    world.user(9)
    world.rows[User, 9] = world.get(User, 9)._replace(blocked=True)
    assert code_of(world.one(set_price(1, 10**10), actor=9)) == "USER_BLOCKED"


# -- users.block, users.unblock


def block(user_id: int, reason: str = "fraud") -> Command:
    return command("users.block", user_id=user_id, reason=reason)


def unblock(user_id: int) -> Command:
    return command("users.unblock", user_id=user_id)


def test_a_blocked_user_keeps_the_money_and_may_not_trade_until_unblocked() -> None:
    world = World()
    world.user(9)
    world.item(1, 9)
    before = world.get(User, 9)
    assert world.one(block(9)).result == {"user_id": 9}
    assert world.get(User, 9) == before._replace(blocked=True)
    assert world.balance(9) == 10 * TON
    assert code_of(world.one(set_price(1, TON), 9)) == "USER_BLOCKED"
    assert world.one(unblock(9)).result == {"user_id": 9}
    assert world.one(set_price(1, TON), 9).status is Status.SUCCEEDED


def test_blocking_is_told_to_the_user_and_to_operators() -> None:
    world = World()
    world.user(9)
    world.run((block(9), None), (unblock(9), None))
    [blocked], [unblocked] = world.events("user.blocked"), world.events("user.unblocked")
    assert blocked.topics == unblocked.topics == ("user:9", "ops")
    assert blocked.fields == unblocked.fields == {"user_id": 9}


def test_blocking_twice_is_blocking_once() -> None:
    world = World()
    world.user(9)
    world.one(unblock(9))
    assert not world.events("user.unblocked")
    world.one(block(9))
    before = world.snapshot()
    assert world.one(block(9)).result == {"user_id": 9}
    assert world.snapshot() == before


@pytest.mark.parametrize("of_user", [block, unblock])
def test_nobody_unknown_is_blocked(of_user: Callable[[int], Command]) -> None:
    outcome = World().one(of_user(404))
    assert code_of(outcome) == "USER_NOT_FOUND"
    assert outcome.rejection is not None
    assert outcome.rejection["user_id"] == 404


@pytest.mark.parametrize("reason", ["", "a" * 256, "a\nb"])
def test_a_reason_is_a_line(reason: str) -> None:
    with pytest.raises(ValidationError, match="reason"):
        block(9, reason)


@pytest.mark.parametrize("kind", ["users.block", "users.unblock", "market.assign_deposit", "market.adjust"])
def test_only_operators_send_what_is_theirs(kind: str) -> None:
    assert KINDS[kind].sent_by == {Sender.OPERATOR}


def test_blocking_is_ordered_with_what_else_concerns_the_user() -> None:
    assert block(9).asset(UUID(int=1), None) == unblock(9).asset(UUID(int=1), None) == "user:9"
