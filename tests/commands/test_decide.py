"""Deciding: one outcome for each command, whatever the rule does."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.book import Account, Book, Event, NotLoaded, Side, available, held
from commands.command import KINDS, USER, Command, Envelope, Invalid, decode
from commands.document import Need
from commands.outcome import Code, Rejection, Status
from commands.requests import GatewayRequest, request
from commands.terms import TON, Terms
from tests.commands.world import START, World, buy, command, deposit, set_price


@pytest.fixture
def buggy() -> Iterator[type[Command]]:
    class Buggy(Command, kind="test.buggy", sent_by=USER):
        def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
            yield Need(Account, envelope.actor)

        def asset(self, envelope_id: Any, actor: int | None) -> str:
            return "test:1"

        def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
            assert envelope.actor is not None
            book.post(available(envelope.actor), held(envelope.actor), TON)
            book.emit("test.happened", "market")
            raise ZeroDivisionError

    yield Buggy
    del KINDS["test.buggy"]


def test_a_bug_sets_one_command_aside_and_its_neighbours_go_on(buggy: type[Command]) -> None:
    world = World()
    world.user(1)
    first, failed, last = world.run((deposit(1, TON), None), (buggy(), 1), (deposit(1, TON), None))
    assert (first.status, last.status) == (Status.SUCCEEDED, Status.SUCCEEDED)
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert "ZeroDivisionError" in failed.error
    assert world.balance(1) == 12 * TON
    assert not world.events("test.happened")
    world.check()


def test_past_its_time_a_command_expires_unexecuted() -> None:
    world = World()
    world.user(1)
    [late] = world.run((deposit(1, TON), None), not_after=START)
    [timely] = world.run((deposit(1, TON), None), not_after=world.now + timedelta(hours=1))
    assert (late.status, timely.status) == (Status.EXPIRED, Status.SUCCEEDED)
    assert world.balance(1) == 11 * TON


@given(st.integers(-3_000_000, 3_000_000))
def test_a_command_expires_only_past_its_time_and_then_leaves_nothing(microseconds: int) -> None:
    world = World()
    world.user(1)
    rows, records = dict(world.rows), list(world.records)
    began_at = world.now + timedelta(seconds=world.batch_seconds)
    [outcome] = world.run((deposit(1, TON), None), not_after=began_at - timedelta(microseconds=microseconds))
    assert outcome.status is (Status.EXPIRED if microseconds > 0 else Status.SUCCEEDED)
    assert ((world.rows, world.records) == (rows, records)) is (microseconds > 0)


def test_a_balance_never_falls_below_zero() -> None:
    book = Book(Terms(), START)
    book.load(Account, [1], [Account(1, 5, 0)])
    with pytest.raises(ValueError, match="would fall to -1"):
        book.post(available(1), Side(-1), 6)


def test_undoing_puts_everything_back() -> None:
    book = Book(Terms(), START)
    book.load(Account, [1, 2], [Account(1, 5, 0), Account(2, 0, 0)])
    book.post(available(1), available(2), 1)
    mark = book.begin(UUID(int=1))
    book.post(available(1), available(2), 2)
    book.emit("x", "market")
    book.undo(mark)
    assert book.account(1) == Account(1, 4, 0)
    assert len(book.records) == 1
    assert [(before, now) for _, before, now in book.changes()] == [
        (Account(1, 5, 0), Account(1, 4, 0)),
        (Account(2, 0, 0), Account(2, 1, 0)),
    ]


def test_codes_stand_in_the_order_in_which_they_are_looked_for() -> None:
    codes = [code.name for code in Code]
    assert codes[:2] == ["USER_NOT_FOUND", "USER_BLOCKED"]
    assert codes[-1] == "INSUFFICIENT_BALANCE"


@pytest.mark.parametrize(
    ("kind", "payload", "path"),
    [
        ("nft.nonsense", "{}", "kind"),
        ("nft.buy", '{"nft_id": 1}', "payload.price_nano"),
        ("nft.buy", '{"nft_id": 1, "price_nano": 1.5}', "payload.price_nano"),
        ("nft.buy", '{"nft_id": 1, "price_nano": 1.0}', "payload.price_nano"),
        ("nft.buy", '{"nft_id": 1, "price_nano": "1"}', "payload.price_nano"),
        ("nft.buy", '{"nft_id": 1, "price_nano": true}', "payload.price_nano"),
        ("nft.buy", '{"nft_id": 1, "price_nano": -1}', "payload.price_nano"),
        ("nft.buy", '{"nft_id": 1, "price_nano": NaN}', "payload.price_nano"),
        ("nft.buy", '{"nft_id": 1, "price_nano": 9007199254740992}', "payload.price_nano"),
        ("nft.buy", '{"nft_id": 9223372036854775808, "price_nano": 1}', "payload.nft_id"),
        ("nft.buy", '{"nft_id": "9223372036854775808", "price_nano": 1}', "payload.nft_id"),
        ("nft.buy", '{"nft_id": "01", "price_nano": 1}', "payload.nft_id"),
        ("nft.buy", '{"nft_id": 0, "price_nano": 1}', "payload.nft_id"),
        ("nft.buy", '{"nft_id": 1, "price_nano": 1, "fee_bp": 0}', "payload.fee_bp"),
        ("nft.set_price", '{"nft_id": 1}', "payload.price_nano"),
    ],
)
def test_what_is_not_a_command_is_refused_with_the_path(kind: str, payload: str, path: str) -> None:
    with pytest.raises(Invalid) as raised:
        decode(kind, payload)
    assert [found for found, _ in raised.value.errors] == [path]


def test_large_ids_are_read_from_integers_and_strings() -> None:
    number = 2**63 - 1
    for text in (str(number), f'"{number}"'):
        assert decode("nft.buy", f'{{"nft_id": {text}, "price_nano": 1}}') == buy(number, 1)


@pytest.mark.parametrize("make", [lambda price: buy(1, price), lambda price: set_price(1, price)])
def test_prices_are_bounded_by_the_terms(make: Any) -> None:
    terms = Terms()
    for price in (terms.price_min_nano, terms.price_max_nano):
        make(price).check(terms)
    for price in (terms.price_min_nano - 1, terms.price_max_nano + 1):
        with pytest.raises(Invalid, match=r"payload\.price_nano: must be between"):
            make(price).check(terms)
    set_price(1, None).check(terms)


def test_every_kind_is_routed_by_an_asset() -> None:
    assert command("users.register", user_id=3).asset(UUID(int=1), None) == "user:3"
    assert buy(17, TON).asset(UUID(int=1), 1) == "nft:17"


@pytest.fixture
def telling() -> Iterator[type[Command]]:
    class Telling(Command, kind="test.telling", sent_by=USER, rejects=(Code.REQUEST_NOT_OPEN,)):
        def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
            yield Need(Account, envelope.actor)

        def asset(self, envelope_id: Any, actor: int | None) -> str:
            return "test:1"

        def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
            assert envelope.actor is not None
            book.post(available(envelope.actor), held(envelope.actor), TON)
            book.emit("test.undone", "market")
            raise Rejection(Code.REQUEST_NOT_OPEN).telling("test.told", "ops", answer="done")

    yield Telling
    del KINDS["test.telling"]


def test_a_refused_command_leaves_nothing_but_what_its_rejection_tells(telling: type[Command]) -> None:
    world = World()
    world.user(1)
    before = world.snapshot()
    outcome = world.one(telling(), 1)
    assert outcome.rejection == {"code": "REQUEST_NOT_OPEN", "detail": Code.REQUEST_NOT_OPEN.value}
    rows, records = world.snapshot()
    assert rows == before[0]
    [event] = records[len(before[1]) :]
    assert isinstance(event, Event)
    assert event[1:] == ("test.told", ("ops",), {"answer": "done"})


def test_what_a_command_opens_under_its_own_id_is_new() -> None:
    book = Book(Terms(), START)
    book.begin(UUID(int=1))
    request(book, "ton.pay", {}, account="wallet")
    [(kind, before, now)] = book.changes()
    assert (kind, before) == (GatewayRequest, None)
    assert now == book.get(GatewayRequest, UUID(int=1))
    book.begin(UUID(int=2))
    with pytest.raises(NotLoaded):
        book.get(GatewayRequest, UUID(int=1 << 64))
