"""Requests to the outside world: what a command asks of the gateway, and how their answers are taken.

External effects never happen inside a transaction. A command reserves what is at stake and writes a request; a courier
performs it under its reference, which is never used for anything else; the answer comes back as a system command,
`…_confirm` on a definite yes and `…_fail` on a definite no. An unclear answer produces no command at all: the
reservation stays until a lookup is clear.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from commands.book import Book, document
from commands.command import Command
from commands.outcome import Code, Rejection

EXPIRED = "expired"
"""The reason of a request that was given up before it was ever attempted."""


class RequestState(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    UNKNOWN = "unknown"
    NEVER_SEEN = "never_seen"
    DONE = "done"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@document("gateway_requests", key=("reference",))
class GatewayRequest(NamedTuple):
    """One external effect. `reference` is the id of the command that wrote it.

    `body` is the operation's fields and `names` those that name the waiting document in the answering command, both
    JSON; `answers` is that command's kind without _confirm or _fail, null when nothing waits.
    """

    reference: UUID
    op: str
    body: str
    answers: str | None
    names: str
    state: str
    attempts: int
    opened_at: datetime
    closed_at: datetime | None


def request(
    book: Book, op: str, body: dict[str, Any], answers: str | None = None, names: dict[str, Any] | None = None
) -> None:
    """Ask the gateway for `op`, under the id of the command being decided."""
    book.put(
        GatewayRequest(
            reference=book.command_id,
            op=op,
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


def give_up(book: Book, reference: UUID) -> None:
    """Cancel a request that was never attempted. Raises Rejection REQUEST_IN_FLIGHT."""
    asked = book.get(GatewayRequest, reference)
    if asked is None or asked.attempts > 0 or asked.state != RequestState.PENDING:
        raise Rejection(Code.REQUEST_IN_FLIGHT)
    book.put(asked._replace(state=RequestState.CANCELLED, closed_at=book.now))
