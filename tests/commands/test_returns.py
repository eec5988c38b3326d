"""Returns: the item is reserved and the fee held until the gift has moved, or is known not to."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from commands.book import FEES, Account, Posting
from commands.nft.items import Nft, NftState
from commands.nft.returns import Return
from commands.outcome import Code, Outcome, Status
from commands.requests import GatewayRequest, RequestState, SagaState
from commands.terms import TON, Terms
from commands.users import User
from tests.commands.world import Sent, World, buy, code_of, command, receive, set_price, transfer

OWNER, OTHER = 1, 2
ITEM = 17
FEE = TON // 10


def take_back(nft_id: int = ITEM) -> Any:
    return command("nft.return", nft_id=nft_id)


def confirm(return_id: UUID, nft_id: int = ITEM) -> Any:
    return command("nft.return_confirm", nft_id=nft_id, return_id=return_id)


def fail(return_id: UUID, nft_id: int = ITEM, reason: str = "refused") -> Any:
    return command("nft.return_fail", nft_id=nft_id, return_id=return_id, reason=reason)


@pytest.fixture
def world() -> World:
    """An owner of a held item, and another user, with 10 TON each."""
    world = World()
    world.user(OWNER)
    world.user(OTHER)
    world.item(ITEM, OWNER)
    return world


def opened(world: World, nft_id: int = ITEM, owner_id: int = OWNER) -> UUID:
    outcome = world.one(take_back(nft_id), owner_id)
    assert outcome.result is not None, outcome
    return UUID(outcome.result["return_id"])


def sent(world: World, reference: UUID, state: RequestState = RequestState.SENT) -> None:
    """What the courier writes down before it calls the gateway."""
    place = GatewayRequest, reference
    world.rows[place] = world.get(*place)._replace(state=state, attempts=1)


def put(world: World, **changes: Any) -> None:
    world.rows[Nft, ITEM] = world.get(Nft, ITEM)._replace(**changes)


def refuse(world: World, code: Code, outcome_of: Any, *, contradicted: bool = False) -> dict[str, Any]:
    """The command is refused with the code, and leaves nothing behind but what operators are told."""
    rows, records = world.snapshot()
    outcome: Outcome = outcome_of()
    assert outcome.rejection is not None, outcome
    assert outcome.rejection["code"] == code.name
    assert world.rows == rows
    assert [event.name for event in world.records[len(records) :]] == ["gateway.contradicted"] * contradicted  # type: ignore[attr-defined]
    return outcome.rejection


def money(world: World, user_id: int = OWNER) -> tuple[int, int]:
    account = world.get(Account, user_id)
    return account.available_nano, account.held_nano


# -- asking for an item


@pytest.mark.parametrize("price_nano", [None, 3 * TON])
def test_a_return_reserves_the_item_and_holds_the_fee(world: World, price_nano: int | None) -> None:
    world.one(set_price(ITEM, price_nano), OWNER)
    outcome = world.one(take_back(), OWNER)
    [row] = [row for (kind, _), row in world.rows.items() if kind is Return]
    id_ = Return._make(row).id
    assert outcome.result == {"return_id": str(id_), "nft_id": "17", "fee_nano": FEE}
    assert row == Return(id_, ITEM, OWNER, FEE, FEE, "requested", None, world.now, None)
    nft = world.get(Nft, ITEM)
    assert (nft.state, nft.owner_id, nft.reserved_by, nft.reserved_kind) == ("withdrawing", OWNER, id_, "return")
    assert (nft.price_nano, nft.fee_bp, nft.listed_at, nft.message_ref) == (None, None, None, "message 17")
    assert money(world) == (10 * TON - FEE, FEE)
    assert world.of(Posting)[-1][8:] == ("return", str(id_))
    asked = world.get(GatewayRequest, id_)
    assert (asked.op, asked.answers) == ("gift.transfer", "nft.return")
    body = {"nft_id": "17", "gift_id": "17", "message_ref": "message 17", "receiver_id": OWNER}
    assert from_json(asked.body) == body
    assert from_json(asked.names) == {"nft_id": "17", "return_id": str(id_)}
    [timer] = world.timers
    assert timer == (world.now + timedelta(seconds=3_602), fail(id_, reason="expired"))
    [event] = world.events("nft.return_requested")
    assert (event.topics, event.fields) == (("user:1",), {"nft_id": "17", "return_id": str(id_)})
    world.check()


def test_a_return_is_routed_by_its_item() -> None:
    assert take_back().asset(UUID(int=9), OWNER) == "nft:17"
    assert confirm(UUID(int=1), 5).asset(UUID(int=9), None) == "nft:5"
    assert fail(UUID(int=1), 5).asset(UUID(int=9), None) == "nft:5"


def test_what_hangs_on_the_item_ends(world: World) -> None:
    world.one(set_price(ITEM, 3 * TON), OWNER)
    assert world.one(command("offers.create", nft_id=ITEM, price_nano=2 * TON), OTHER).status is Status.SUCCEEDED
    opened(world)
    assert money(world, OTHER) == (10 * TON, 0)
    assert [event.fields["reason"] for event in world.events("offer.closed")] == ["returned", "returned"]
    assert not world.get(Nft, ITEM).hanging


def test_an_unknown_item_is_not_returned(world: World) -> None:
    assert refuse(world, Code.NFT_NOT_FOUND, lambda: world.one(take_back(404), OWNER))["nft_id"] == "404"
    put(world, state=NftState.EXTERNAL, owner_id=None)
    refuse(world, Code.NFT_NOT_FOUND, lambda: world.one(take_back(), OWNER))


def test_only_the_owner_takes_an_item_back(world: World) -> None:
    refuse(world, Code.NFT_PERMISSION_DENIED, lambda: world.one(take_back(), OTHER))


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (NftState.ON_AUCTION, Code.NFT_ON_AUCTION),
        (NftState.IN_BUNDLE, Code.NFT_IN_BUNDLE),
        (NftState.WITHDRAWING, Code.NFT_NOT_AVAILABLE),
    ],
)
def test_a_reserved_item_is_not_returned(world: World, state: NftState, code: Code) -> None:
    put(world, state=state)
    refuse(world, code, lambda: world.one(take_back(), OWNER))


def test_without_the_fee_nothing_is_returned_or_detached(world: World) -> None:
    world.one(set_price(ITEM, 3 * TON), OWNER)
    world.terms = Terms(return_fee_nano=10 * TON + 1)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(take_back(), OWNER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (10 * TON + 1, 10 * TON)
    world.terms = Terms(return_fee_nano=10 * TON)
    opened(world)
    assert money(world) == (0, 10 * TON)


def test_a_free_return_holds_nothing(world: World) -> None:
    world.terms = Terms(return_fee_nano=0)
    before = len(world.of(Posting))
    assert world.one(confirm(opened(world))).status is Status.SUCCEEDED
    assert len(world.of(Posting)) == before


def test_a_blocked_owner_returns_nothing(world: World) -> None:
    world.rows[User, OWNER] = world.get(User, OWNER)._replace(blocked=True)
    refuse(world, Code.USER_BLOCKED, lambda: world.one(take_back(), OWNER))


@pytest.mark.parametrize(
    ("other", "actor"), [(set_price(ITEM, TON), OWNER), (transfer(ITEM, OTHER), OWNER), (buy(ITEM, TON), OTHER)]
)
def test_an_item_on_its_way_back_is_not_traded(world: World, other: Any, actor: int) -> None:
    opened(world)
    rejection = refuse(world, Code.NFT_NOT_AVAILABLE, lambda: world.one(other, actor))
    assert rejection["state"] == "withdrawing"


# -- the gift has moved


def test_a_returned_item_leaves_custody_and_the_fee_is_earned(world: World) -> None:
    id_ = opened(world)
    sent(world, id_)
    outcome = world.one(confirm(id_))
    assert outcome.result == {"return_id": str(id_), "state": "confirmed"}
    nft = world.get(Nft, ITEM)
    assert (nft.state, nft.owner_id, nft.message_ref) == (NftState.EXTERNAL, None, None)
    assert (nft.reserved_by, nft.reserved_kind, nft.closed_at) == (None, None, world.now)
    assert world.of(Posting)[-1][1:6] == (OWNER, "held", FEES, "available", FEE)
    assert world.of(Posting)[-1][8:] == ("return", str(id_))
    assert money(world) == (10 * TON - FEE, 0)
    asked = world.get(Return, id_)
    assert (asked.state, asked.held_nano, asked.reason, asked.closed_at) == ("confirmed", 0, None, world.now)
    assert world.get(GatewayRequest, id_).state == RequestState.DONE
    public, private = world.events("nft.returned")
    assert (public.topics, private.topics) == (("nft:17",), ("user:1",))
    assert public.fields == private.fields == {"nft_id": "17", "return_id": str(id_)}
    world.check()


def test_the_fee_is_that_of_the_moment_of_the_request(world: World) -> None:
    id_ = opened(world)
    world.terms = Terms(return_fee_nano=5 * TON)
    world.one(confirm(id_))
    assert money(world) == (10 * TON - FEE, 0)


def test_a_returned_item_comes_back_to_whoever_sends_it(world: World) -> None:
    world.one(confirm(opened(world)))
    assert world.one(receive(ITEM, OTHER, message_ref="again")).status is Status.SUCCEEDED
    nft = world.get(Nft, ITEM)
    assert (nft.owner_id, nft.state, nft.message_ref, nft.closed_at) == (OTHER, NftState.HELD, "again", None)
    opened(world, ITEM, OTHER)


@pytest.mark.parametrize("answer", [confirm, fail])
def test_an_answer_finds_the_return_of_its_item_only(world: World, answer: Any) -> None:
    refuse(world, Code.RETURN_NOT_FOUND, lambda: world.one(answer(UUID(int=1 << 100))))
    id_ = opened(world)
    world.item(18, OWNER)
    refuse(world, Code.RETURN_NOT_FOUND, lambda: world.one(answer(id_, nft_id=18)))
    refuse(world, Code.RETURN_NOT_FOUND, lambda: world.one(answer(id_, nft_id=404)))


def test_a_return_is_confirmed_once(world: World) -> None:
    id_ = opened(world)
    world.one(confirm(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(confirm(id_)))


def test_a_late_answer_does_not_touch_the_next_return(world: World) -> None:
    first = opened(world)
    world.one(fail(first))
    second = opened(world)
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(confirm(first)), contradicted=True)
    [event] = world.events("gateway.contradicted")
    assert event.fields == {
        "reference": str(first),
        "op": "gift.transfer",
        "document_state": SagaState.FAILED,
        "answer": RequestState.DONE,
    }
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(fail(first)))
    assert world.get(Nft, ITEM).reserved_by == second


def test_operators_hear_of_a_refusal_of_what_was_moved(world: World) -> None:
    id_ = opened(world)
    world.one(confirm(id_))
    refuse(world, Code.REQUEST_NOT_OPEN, lambda: world.one(fail(id_)), contradicted=True)


# -- the gift has not moved


@pytest.mark.parametrize("reason", ["receiver_refused", "not_transferable", "refused"])
def test_a_definite_no_gives_item_and_fee_back(world: World, reason: str) -> None:
    world.one(set_price(ITEM, 3 * TON), OWNER)
    id_ = opened(world)
    sent(world, id_)
    outcome = world.one(fail(id_, reason=reason))
    assert outcome.result == {"return_id": str(id_), "state": "failed"}
    nft = world.get(Nft, ITEM)
    assert (nft.state, nft.owner_id, nft.price_nano) == (NftState.HELD, OWNER, None)
    assert (nft.reserved_by, nft.reserved_kind, nft.message_ref) == (None, None, "message 17")
    assert money(world) == (10 * TON, 0)
    assert world.of(Posting)[-1][8:] == ("return", str(id_))
    asked = world.get(Return, id_)
    assert (asked.state, asked.held_nano, asked.reason, asked.closed_at) == ("failed", 0, reason, world.now)
    assert world.get(GatewayRequest, id_).state == RequestState.REFUSED
    [event] = world.events("nft.return_failed")
    assert event.topics == ("user:1",)
    assert event.fields == {"nft_id": "17", "return_id": str(id_), "reason": reason}
    world.check()


def test_a_return_that_was_never_attempted_is_given_up(world: World) -> None:
    id_ = opened(world)
    assert world.advance(3_601) == []
    [outcome] = world.advance(1)
    assert outcome.status is Status.SUCCEEDED
    assert (world.get(Return, id_).reason, world.get(Nft, ITEM).state) == ("expired", NftState.HELD)
    assert world.get(GatewayRequest, id_).state == RequestState.CANCELLED
    assert money(world) == (10 * TON, 0)


@pytest.mark.parametrize("state", [RequestState.SENT, RequestState.UNKNOWN, RequestState.NEVER_SEEN])
def test_a_return_that_was_attempted_is_not_given_up(world: World, state: RequestState) -> None:
    id_ = opened(world)
    sent(world, id_, state)
    refuse(world, Code.REQUEST_IN_FLIGHT, lambda: world.one(fail(id_, reason="expired")))
    [outcome] = world.advance(3_602)
    assert code_of(outcome) == "REQUEST_IN_FLIGHT"
    assert world.get(Nft, ITEM).state == NftState.WITHDRAWING
    assert world.one(confirm(id_)).status is Status.SUCCEEDED


def test_the_timer_of_a_return_that_is_over_changes_nothing(world: World) -> None:
    world.one(confirm(opened(world)))
    [outcome] = world.advance(3_602)
    assert code_of(outcome) == "REQUEST_NOT_OPEN"
    assert not world.events("gateway.contradicted")


def test_a_reason_is_one_of_the_list() -> None:
    with pytest.raises(ValueError, match="reason"):
        fail(UUID(int=1), reason="because")


# -- histories

ACTIONS = st.tuples(
    st.sampled_from(["return", "price", "give", "receive", "confirm", "refused", "expired", "attempt", "wait"]),
    st.integers(1, 2),
    st.integers(1, 3),
)
Action = tuple[str, int, int]


def _command(world: World, action: str, user_id: int, number: int) -> Sent | None:
    """The command of an action; answers are for one of the returns so far, or none."""
    returns = sorted(row for (kind, _), row in world.rows.items() if kind is Return)
    _, nft_id, *_ = returns[number % len(returns)] if returns else (None, number)
    id_ = returns[number % len(returns)][0] if returns else UUID(int=1 << 100)
    match action:
        case "return":
            return take_back(number), user_id
        case "price":
            return set_price(number, TON), user_id
        case "give":
            return transfer(number, 3 - user_id), user_id
        case "receive":
            return receive(number, user_id, message_ref=f"message {world.now}"), None
        case "confirm":
            return confirm(id_, nft_id), None
        case "refused" | "expired":
            return fail(id_, nft_id, action), None
    return None


def check(world: World) -> None:
    """V4, V5, V6, V13, V16, V23 and V24 as far as returns go."""
    world.check()
    returns = [Return._make(row) for (kind, _), row in world.rows.items() if kind is Return]
    for asked in returns:
        waiting = asked.state == SagaState.REQUESTED
        assert asked.held_nano == (asked.fee_nano if waiting else 0)
        assert (asked.closed_at is None) == waiting
        request = world.get(GatewayRequest, asked.id)
        assert (request.closed_at is None) == waiting
        if waiting and request.attempts == 0:
            assert [timer for _, timer in world.timers if getattr(timer, "return_id", None) == asked.id]
    for (kind, _), row in world.rows.items():
        if kind is Nft:
            nft = Nft._make(row)
            own = [asked for asked in returns if asked.nft_id == nft.id and asked.state == SagaState.REQUESTED]
            reserving = [(asked.id, asked.user_id) for asked in own]
            withdrawing = nft.state == NftState.WITHDRAWING
            assert reserving == ([(nft.reserved_by, nft.owner_id)] if withdrawing else [])
            assert (nft.reserved_by is not None) == (nft.reserved_kind is not None) == withdrawing
            assert (nft.owner_id is None) == (nft.state == NftState.EXTERNAL) == (nft.closed_at is not None)
            assert (nft.price_nano is not None) == (nft.state == NftState.LISTED)
    for user_id in (OWNER, OTHER):
        own = [asked for asked in returns if asked.user_id == user_id]
        assert money(world, user_id)[1] == sum(asked.held_nano for asked in own)
    earned = sum(posting.amount_nano for posting in world.of(Posting) if posting.credit_account == FEES)
    assert earned == sum(asked.fee_nano for asked in returns if asked.state == SagaState.CONFIRMED)


def begun() -> World:
    world = World(Terms(return_fee_nano=4 * TON))
    for number in (1, 2, 3):
        world.user(number)
        world.item(number, 1 + number % 2)
    return world


@given(st.lists(ACTIONS, max_size=25))
@settings(max_examples=100, deadline=None)
def test_an_item_is_with_its_owner_or_on_its_way_or_gone(actions: list[Action]) -> None:
    world = begun()
    for action, user_id, number in actions:
        requests = [row for (kind, _), row in world.rows.items() if kind is GatewayRequest and row[-1] is None]
        if action == "attempt" and requests:
            sent(world, requests[number % len(requests)][0])
        if action == "wait":
            world.advance(1_200 * number)
        sent_ = _command(world, action, user_id, number)
        if sent_ is not None:
            before = world.snapshot()
            [outcome] = world.run(sent_)
            assert outcome.status in (Status.SUCCEEDED, Status.REJECTED), outcome
            if outcome.status is Status.REJECTED:
                assert world.rows == before[0]
        check(world)


@given(st.lists(ACTIONS, max_size=20), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_worth_as_many_batches_of_one(actions: list[Action], size: int) -> None:
    """Answers are for the returns of earlier batches."""
    singly, batched = begun(), begun()
    for start in range(0, len(actions), size):
        commands = [_command(singly, *action) for action in actions[start : start + size]]
        history = [sent_ for sent_ in commands if sent_ is not None]
        one_by_one = [singly.one(*sent_) for sent_ in history]
        if history:
            assert batched.run(*history) == one_by_one
        check(batched)
    for number in (1, 2, 3):
        assert singly.get(Nft, number)[1:8] == batched.get(Nft, number)[1:8]
        assert money(singly, number) == money(batched, number)
