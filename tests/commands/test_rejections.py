"""The codes that kinds declare: which they are, and that a rule refuses with no other."""

from collections.abc import Iterator
from typing import Any

import pytest

from commands.auctions import PlaceBid
from commands.book import Account, Book, available, held
from commands.command import KINDS, SYSTEM, USER, Command, Envelope, rejection_codes
from commands.document import Need
from commands.market.floors import RecordFloor
from commands.nft.sales import Buy, SetPrice
from commands.offers import Withdraw
from commands.outcome import Code, Rejection, Status
from commands.requests import EXPIRED
from commands.terms import TON
from commands.users import Register
from tests.commands.world import START, World, code_of


def test_a_kinds_codes_are_those_of_its_actor_and_then_those_that_it_declares() -> None:
    assert [code.name for code in rejection_codes(Buy)] == [
        "USER_NOT_FOUND",
        "USER_BLOCKED",
        "NFT_NOT_FOUND",
        "NFT_NOT_ON_SALE",
        "NFT_ON_AUCTION",
        "NFT_IN_BUNDLE",
        "NFT_NOT_AVAILABLE",
        "SELF_TRADE_NOT_ALLOWED",
        "PRICE_CHANGED",
        "INSUFFICIENT_BALANCE",
    ]
    assert Code.PRICE_CHANGED not in rejection_codes(SetPrice)
    assert Code.BID_TOO_LOW in rejection_codes(PlaceBid)
    assert Code.USER_BLOCKED not in rejection_codes(Withdraw), "a blocked user gets back what is open"
    assert rejection_codes(Register) == ()


def test_every_code_is_declared_by_a_kind_and_by_none_twice() -> None:
    assert {code for command in KINDS.values() for code in rejection_codes(command)} == set(Code)
    for kind, command in KINDS.items():
        assert len(set(command.rejects)) == len(command.rejects), kind


def test_only_an_answer_that_may_say_expired_is_rejected_because_its_request_is_in_flight() -> None:
    may_expire = {kind for kind, command in KINDS.items() if EXPIRED in str(command.model_json_schema())}
    in_flight = {kind for kind, command in KINDS.items() if Code.REQUEST_IN_FLIGHT in command.rejects}
    assert in_flight == {kind for kind in may_expire if kind.endswith("_fail")} != set()


@pytest.fixture
def careless() -> Iterator[type[Command]]:
    """Refuses with a code that it does not declare, after it has moved money."""

    class Careless(Command, kind="test.careless", sent_by=USER, rejects=(Code.PRICE_CHANGED,)):
        def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
            yield Need(Account, envelope.actor)

        def asset(self, envelope_id: Any, actor: int | None) -> str:
            return "test:1"

        def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
            assert envelope.actor is not None
            book.post(available(envelope.actor), held(envelope.actor), TON)
            raise Rejection(Code.LIMIT_REACHED).telling("test.told", "ops")

    yield Careless
    del KINDS["test.careless"]


def test_a_refusal_that_its_kind_does_not_declare_is_a_bug_and_leaves_nothing(careless: type[Command]) -> None:
    world = World()
    world.user(1)
    before = world.snapshot()
    outcome = world.one(careless(), 1)
    assert (outcome.status, outcome.rejection) == (Status.FAILED, None)
    assert outcome.error is not None
    assert "test.careless does not declare that it rejects with LIMIT_REACHED" in outcome.error
    assert world.snapshot() == before


def test_an_actor_whom_an_operator_names_for_a_system_kind_is_looked_for_all_the_same() -> None:
    assert RecordFloor.sent_by == SYSTEM
    assert Code.USER_NOT_FOUND not in rejection_codes(RecordFloor)
    floor = RecordFloor(market="souk", collection="Plush Pepe", price_nano=TON, observed_at=START)
    assert code_of(World().one(floor, 99)) == "USER_NOT_FOUND"
