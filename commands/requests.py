"""Requests to the outside world: what a command asks of the gateway, and how their answers are taken.

External effects never happen inside a transaction. A command reserves what is at stake and writes a request; a courier
performs it under its reference, which is never used for anything else; the answer comes back as a system command,
`…_confirm` on a definite yes and `…_fail` on a definite no. An unclear answer produces no command at all: the
reservation stays until a lookup is clear.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from commands.book import Book
from commands.command import Command
from commands.document import document
from commands.outcome import Code, Rejection

EXPIRED: Final = "expired"
"""The reason of a request that was given up before it was ever attempted."""

WALLET: Final = "wallet"
BANK: Final = "bank"
"""The Telegram account that has the items in custody."""


class RequestState(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    UNKNOWN = "unknown"
    NEVER_SEEN = "never_seen"
    DONE = "done"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class SagaState(StrEnum):
    """The states of a document that waits for one answer only."""

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    FAILED = "failed"


@document("gateway_requests", key=("reference",))
class GatewayRequest(NamedTuple):
    """One external effect. `reference` is the id of the command that wrote it.

    `account` is the outside account that acts, `channel` the channel that it acts on, null when there is none: no two
    calls are made for either at once. `body` is the operation's fields and `names` those that name the waiting document
    in the answering command, both JSON; `answers` is that command's kind without _confirm or _fail, null when nothing
    waits.
    """

    reference: UUID
    op: str
    account: str
    channel: str | None
    body: str
    answers: str | None
    names: str
    state: str
    attempts: int
    opened_at: datetime
    closed_at: datetime | None


def of_account(account_id: UUID) -> str:
    """The outside account that a user's Telegram account is."""
    return f"account:{account_id}"


def of_channel(channel_id: int) -> str:
    """The outside account that a channel is."""
    return f"channel:{channel_id}"


def request(
    book: Book,
    op: str,
    body: dict[str, Any],
    *,
    account: str,
    channel: str | None = None,
    answers: str | None = None,
    names: dict[str, Any] | None = None,
) -> None:
    """Ask the gateway for `op`, under the id of the command being decided. `account` is who acts, `channel` on what."""
    book.put(
        GatewayRequest(
            reference=book.command_id,
            op=op,
            account=account,
            channel=channel,
            body=to_json(body).decode(),
            answers=answers,
            names=to_json(names or {}).decode(),
            state=RequestState.PENDING,
            attempts=0,
            opened_at=book.now,
            closed_at=None,
        )
    )


def set_expiry(book: Book, fail: Command) -> None:
    """Write the `…_fail expired` that gives the request up unless it was attempted by then."""
    book.set_timer(fail, book.now + timedelta(seconds=book.terms.saga_give_up_seconds))


def answer_of(reason: str) -> RequestState:
    """What a `…_fail` with the reason says of its request."""
    return RequestState.CANCELLED if reason == EXPIRED else RequestState.REFUSED


def not_open(op: str, reference: UUID, state: str, answer: RequestState, ended: RequestState | None) -> Rejection:
    """REQUEST_NOT_OPEN for an answer to a document in `state`, which the answer `ended` (null: no answer) took there.

    Two answers that differ cannot both be true of the world outside: operators are told.
    """
    rejection = Rejection(Code.REQUEST_NOT_OPEN)
    if ended is not None and {answer, ended} == {RequestState.DONE, RequestState.REFUSED}:
        rejection.telling(
            "gateway.contradicted", "ops", reference=str(reference), op=op, document_state=state, answer=answer
        )
    return rejection


def require_requested(op: str, reference: UUID, state: str, answer: RequestState) -> None:
    """The guard that the document still waits for its one answer."""
    if state != SagaState.REQUESTED:
        ended = RequestState.DONE if state == SagaState.CONFIRMED else RequestState.REFUSED
        raise not_open(op, reference, state, answer, ended)


def conclude(book: Book, reference: UUID, answer: RequestState) -> None:
    """The last guard of every answer, and its first effect: the request is over, whoever brought the answer, and is
    never sent again. Only one that was never attempted is CANCELLED: else raises Rejection REQUEST_IN_FLIGHT."""
    asked = book.get(GatewayRequest, reference)
    attempted = asked is None or asked.attempts > 0 or asked.state != RequestState.PENDING
    if answer is RequestState.CANCELLED and attempted:
        raise Rejection(Code.REQUEST_IN_FLIGHT)
    _close(book, asked, answer)


def abandon(book: Book, reference: UUID) -> None:
    """Nobody wants the answer any more: cancel the request if it was never attempted, else let it end by itself."""
    asked = book.get(GatewayRequest, reference)
    if asked is not None and asked.attempts == 0 and asked.state == RequestState.PENDING:
        _close(book, asked, RequestState.CANCELLED)


def _close(book: Book, asked: GatewayRequest | None, state: RequestState) -> None:
    if asked is not None and asked.closed_at is None:
        book.put(asked._replace(state=state, closed_at=book.now))
