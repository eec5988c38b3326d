"""Requests: asked under the command's id, over with the first answer, given up only when never attempted."""

from typing import Any
from uuid import UUID

import pytest
from pydantic_core import from_json

from commands.book import Book
from commands.outcome import Code, Rejection
from commands.requests import (
    EXPIRED,
    GatewayRequest,
    RequestState,
    SagaState,
    abandon,
    answer_of,
    conclude,
    not_open,
    request,
    require_requested,
)
from commands.terms import Terms
from tests.commands.world import START

REFERENCE = UUID(int=7)
ATTEMPTED = [
    (RequestState.SENT, 1),
    (RequestState.UNKNOWN, 1),
    (RequestState.NEVER_SEEN, 2),
    (RequestState.PENDING, 1),
]
CLOSED = [RequestState.DONE, RequestState.REFUSED, RequestState.CANCELLED]


@pytest.fixture
def book() -> Book:
    """A book with one request, never attempted."""
    book = Book(Terms(), START)
    book.begin(REFERENCE)
    names = {"user_id": 1, "id": REFERENCE}
    request(book, "ton.pay", {"amount_nano": 5}, account="wallet", answers="market.withdraw", names=names)
    book.begin(UUID(int=8))
    return book


def asked(book: Book) -> GatewayRequest:
    found = book.get(GatewayRequest, REFERENCE)
    assert found is not None
    return found


def change(book: Book, **changes: Any) -> None:
    if changes.get("state") in CLOSED:
        changes["closed_at"] = START
    book.put(asked(book)._replace(**changes))


def test_a_request_waits_under_the_id_of_its_command(book: Book) -> None:
    found = asked(book)
    assert from_json(found.body) == {"amount_nano": 5}
    assert from_json(found.names) == {"user_id": 1, "id": str(REFERENCE)}
    assert (found.op, found.answers, found.attempts) == ("ton.pay", "market.withdraw", 0)
    assert (found.state, found.opened_at, found.closed_at) == (RequestState.PENDING, START, None)


def test_a_request_that_nothing_waits_for_names_no_command() -> None:
    book = Book(Terms(), START)
    book.begin(REFERENCE)
    request(book, "account.sign_out", {}, account="account:a")
    assert (asked(book).answers, asked(book).names) == (None, "{}")


@pytest.mark.parametrize("answer", [RequestState.DONE, RequestState.REFUSED, RequestState.CANCELLED])
def test_with_an_answer_the_request_is_over(book: Book, answer: RequestState) -> None:
    conclude(book, REFERENCE, answer)
    assert (asked(book).state, asked(book).closed_at) == (answer, START)


@pytest.mark.parametrize(("state", "attempts"), ATTEMPTED)
def test_what_was_attempted_is_not_given_up(book: Book, state: RequestState, attempts: int) -> None:
    change(book, state=state, attempts=attempts)
    before = asked(book)
    with pytest.raises(Rejection) as raised:
        conclude(book, REFERENCE, RequestState.CANCELLED)
    assert raised.value.code is Code.REQUEST_IN_FLIGHT
    assert asked(book) == before


@pytest.mark.parametrize("state", CLOSED)
def test_what_is_over_is_not_given_up(book: Book, state: RequestState) -> None:
    change(book, state=state)
    with pytest.raises(Rejection, match="REQUEST_IN_FLIGHT"):
        conclude(book, REFERENCE, RequestState.CANCELLED)


def test_what_does_not_exist_is_not_given_up() -> None:
    book = Book(Terms(), START)
    book.load(GatewayRequest, [REFERENCE], [])
    with pytest.raises(Rejection, match="REQUEST_IN_FLIGHT"):
        conclude(book, REFERENCE, RequestState.CANCELLED)


@pytest.mark.parametrize(("state", "attempts"), ATTEMPTED)
@pytest.mark.parametrize("answer", [RequestState.DONE, RequestState.REFUSED])
def test_an_answer_by_hand_ends_what_might_be_sent_again(
    book: Book, state: RequestState, attempts: int, answer: RequestState
) -> None:
    change(book, state=state, attempts=attempts)
    conclude(book, REFERENCE, answer)
    assert (asked(book).state, asked(book).closed_at, asked(book).attempts) == (answer, START, attempts)


@pytest.mark.parametrize("state", CLOSED)
def test_a_request_that_is_over_stays_as_the_courier_left_it(book: Book, state: RequestState) -> None:
    change(book, state=state)
    conclude(book, REFERENCE, RequestState.DONE)
    abandon(book, REFERENCE)
    assert asked(book).state == state


def test_an_abandoned_request_is_not_sent(book: Book) -> None:
    abandon(book, REFERENCE)
    assert (asked(book).state, asked(book).closed_at) == (RequestState.CANCELLED, START)


@pytest.mark.parametrize(("state", "attempts"), ATTEMPTED)
def test_an_abandoned_request_that_was_attempted_ends_by_itself(book: Book, state: RequestState, attempts: int) -> None:
    change(book, state=state, attempts=attempts)
    before = asked(book)
    abandon(book, REFERENCE)
    assert asked(book) == before


# -- answers to what does not wait


@pytest.mark.parametrize("answer", [RequestState.DONE, RequestState.REFUSED, RequestState.CANCELLED])
def test_a_requested_document_takes_any_answer(answer: RequestState) -> None:
    require_requested("ton.pay", REFERENCE, SagaState.REQUESTED, answer)


@pytest.mark.parametrize(
    ("state", "answer", "contradicts"),
    [
        (SagaState.CONFIRMED, RequestState.DONE, False),
        (SagaState.CONFIRMED, RequestState.REFUSED, True),
        (SagaState.CONFIRMED, RequestState.CANCELLED, False),
        (SagaState.FAILED, RequestState.DONE, True),
        (SagaState.FAILED, RequestState.REFUSED, False),
        (SagaState.FAILED, RequestState.CANCELLED, False),
    ],
)
def test_operators_are_told_of_answers_that_differ(
    state: SagaState, answer: RequestState, *, contradicts: bool
) -> None:
    with pytest.raises(Rejection) as raised:
        require_requested("ton.pay", REFERENCE, state, answer)
    assert raised.value.code is Code.REQUEST_NOT_OPEN
    event = {"reference": str(REFERENCE), "op": "ton.pay", "document_state": state, "answer": answer}
    assert raised.value.told == ([("gateway.contradicted", ("ops",), event)] if contradicts else [])


def test_nothing_contradicts_what_no_answer_ended() -> None:
    assert not_open("account.sign_in", REFERENCE, "disconnected", RequestState.DONE, None).told == []


def test_only_the_timer_gives_up() -> None:
    assert answer_of(EXPIRED) is RequestState.CANCELLED
    assert answer_of("refused") is RequestState.REFUSED
