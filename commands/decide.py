"""One command against the book: the actor's guards, the rule, and its outcome. The only caller of `execute`."""

import traceback
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from commands.book import Book, NotLoaded
from commands.command import USER, Envelope
from commands.document import Need
from commands.outcome import Code, Outcome, Rejection, Status
from commands.users import User


class Undeclared(Exception):
    """A rule refused with a code that its kind does not declare: a bug of ours, not an answer."""


def touches(book: Book, envelope: Envelope) -> Iterator[Need]:
    """The documents that deciding the command needs, as far as those in the book tell."""
    if envelope.actor is not None:
        yield Need(User, envelope.actor)
    yield from envelope.command.touches(book, envelope)


def decide(book: Book, envelope: Envelope) -> Outcome:
    """Execute one command: its changes stay in the book when it succeeds, else the book is as before.

    Raises NotLoaded, the book unchanged, when an earlier command of the batch led it to a document not announced.
    """
    if envelope.not_after is not None and book.now > envelope.not_after:
        return Outcome(Status.EXPIRED)
    mark = book.begin(envelope.id)
    try:
        _admit_actor(book, envelope)
        result = _execute(book, envelope)
        for before, after in book.balance_changes(mark):
            book.emit(
                "balance.changed",
                f"user:{after.id}",
                available_nano=after.available_nano,
                held_nano=after.held_nano,
                change_available_nano=after.available_nano - before.available_nano,
                change_held_nano=after.held_nano - before.held_nano,
                kind=envelope.command.kind,
            )
    except Rejection as rejection:
        book.undo(mark)
        for name, topics, fields in rejection.told:
            book.emit(name, *topics, **fields)
        return Outcome(Status.REJECTED, rejection=rejection.as_json())
    except NotLoaded:
        book.undo(mark)
        raise
    except Exception:  # noqa: BLE001 - our bug: this command alone is set aside, its neighbours commit
        book.undo(mark)
        return Outcome(Status.FAILED, error=traceback.format_exc())
    return Outcome(Status.SUCCEEDED, result=result)


def decide_all(book: Book, envelopes: Iterable[Envelope]) -> tuple[dict[UUID, Outcome], set[int]]:
    """The outcome of each command, later ones seeing the effects of earlier ones; and the partitions whose rest waits
    for the next batch, because a command met a document that its neighbours' effects had led it to."""
    outcomes: dict[UUID, Outcome] = {}
    postponed: set[int] = set()
    for envelope in envelopes:
        if envelope.partition in postponed:
            continue
        try:
            outcomes[envelope.id] = decide(book, envelope)
        except NotLoaded:
            postponed.add(envelope.partition)
    return outcomes, postponed


def _execute(book: Book, envelope: Envelope) -> dict[str, Any]:
    """Runs the rule. Raises Undeclared for a refusal that its kind does not declare: clients know the declared ones."""
    command = envelope.command
    try:
        return command.execute(book, envelope)
    except Rejection as rejection:
        if rejection.code not in command.rejects:
            message = f"{command.kind} does not declare that it rejects with {rejection.code.name}"
            raise Undeclared(message) from rejection
        raise


def _admit_actor(book: Book, envelope: Envelope) -> None:
    """The two guards that precede every command sent as a user."""
    command = envelope.command
    if command.for_newcomers or (envelope.actor is None and command.sent_by != USER):
        return
    actor = None if envelope.actor is None else book.get(User, envelope.actor)
    if actor is None:
        raise Rejection(Code.USER_NOT_FOUND, user_id=envelope.actor)
    if actor.blocked and not command.releases_only:
        raise Rejection(Code.USER_BLOCKED)
