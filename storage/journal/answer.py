"""Writes what calls to the gateway brought: a definite answer ends its request and becomes a command, in one
transaction."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from commands.book import derived_id
from commands.command import Command
from commands.requests import RequestState
from storage.gateway.bridge import Outcome
from storage.journal.entry import Entry, Facts
from storage.postgres.connection import Connection

# A definite answer is welcome from whomever it comes, an unclear one only while nobody has claimed the request since.
# One that contradicts how the request ended goes to the journal too, where its refusal tells the operators.
_HEAR = """
WITH heard AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::boolean[], $5::json[], $6::float8[], $7::text[],
        $8::text[], $9::integer[])
        AS v(reference, number, state, final, answer, pause, outcome, reason, milliseconds)
), logged AS (
    UPDATE gateway_log AS log
    SET outcome = heard.outcome, reason = heard.reason, milliseconds = heard.milliseconds
    FROM heard WHERE log.reference = heard.reference AND log.number = heard.number
), moved AS (
    UPDATE gateway_requests AS request
    SET state = heard.state, answer = heard.answer, due_at = clock_timestamp() + make_interval(secs => heard.pause),
        closed_at = CASE WHEN heard.final THEN clock_timestamp() END
    FROM heard WHERE request.reference = heard.reference AND request.closed_at IS NULL
        AND (heard.final OR request.attempts + request.lookups = heard.number)
    RETURNING request.reference
)
INSERT INTO commands (id, kind, asset, partition, payload, fingerprint, status, accepted_at)
SELECT id, kind, asset, partition, payload, fingerprint, 'accepted', clock_timestamp()
FROM unnest($10::uuid[], $11::uuid[], $12::text[], $13::text[], $14::smallint[], $15::json[], $16::bytea[])
    AS v(reference, id, kind, asset, partition, payload, fingerprint)
JOIN heard USING (reference)
WHERE reference IN (SELECT reference FROM moved) OR EXISTS (
    SELECT 1 FROM gateway_requests AS ended
    WHERE ended.reference = v.reference AND ended.closed_at IS NOT NULL AND ended.state <> heard.state
)
ON CONFLICT DO NOTHING
RETURNING partition, id
"""
_ENTRY_COLUMNS = ("id", "kind", "asset", "partition", "payload", "fingerprint")


class Heard(NamedTuple):
    """What a call brought: the request's next state, after how many seconds it is due again unless it is final, and
    the command that the answer becomes, if it does."""

    reference: UUID
    number: int
    state: RequestState
    final: bool
    answer: str
    pause: float
    outcome: Outcome
    reason: str | None
    milliseconds: int
    entry: Entry | None


def entry_of(reference: UUID, command: Command, partitions: int) -> Entry:
    """Returns the entry of the command that the answer to a request becomes. Its id follows from the reference and from
    what was answered, so either answer can exist only once."""
    done = command.kind.endswith("_confirm")
    return Entry.of(command, Facts(derived_id(reference, -1 if done else -2)), partitions)


async def hear(connection: Connection, heard: Sequence[Heard]) -> list[tuple[int, UUID]]:
    """Writes what calls brought, locking requests in the order of batches, and returns the (partition, id) of the
    commands that were accepted."""
    heard = sorted(heard)
    answers = [(one.reference, one.entry) for one in heard if one.entry is not None]
    arguments: list[list[Any]] = [list(column) for column in zip(*(one[:-1] for one in heard), strict=True)]
    arguments.append([reference for reference, _ in answers])
    arguments += [[getattr(entry, column) for _, entry in answers] for column in _ENTRY_COLUMNS]
    return [(row["partition"], row["id"]) for row in await connection.fetch(_HEAR, *arguments)]
