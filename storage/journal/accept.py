"""Accepts the commands that clients submit.

It is one INSERT for all submissions that came while the previous one was under way; a command is accepted when its row
is committed, and not before.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from commands.outcome import Status
from storage.journal.entry import Entry
from storage.journal.receipts import READ, READ_BY_KEY, ROWS_MAX, Receipt, Receipts, fetch, receipt_of
from storage.postgres.arrays import arguments, parameters
from storage.postgres.connection import Line, Unavailable
from storage.postgres.group_commit import Gather
from storage.settings import Settings

ACCEPT_SECONDS = 1.5
"""How long an INSERT may take, repeats included."""
ACCEPT_IDLE_SECONDS = 0.4
"""How long PostgreSQL then waits for the COMMIT, where that is a message of its own (through PgBouncer), before it ends
the transaction; otherwise the INSERT is its own transaction. The two together are less than the least grace of timers:
so what was accepted in time, which an INSERT stamps at its start, comes before the timer in the journal, even when its
sender fell asleep on the way."""

_INSERT_TYPES = (
    *("uuid[]", "text[]", "text[]", "smallint[]", "bigint[]", "json[]", "text[]", "bytea[]"),
    *("timestamptz[]", "timestamptz[]", "bytea[]", "text[]", "boolean[]"),
)
_INSERT = f"""
INSERT INTO commands (id, kind, asset, partition, actor, payload, status, idempotency_key, fingerprint, accepted_at,
    run_at, not_after, secrets, key_id, notify)
SELECT v.id, v.kind, v.asset, v.partition, v.actor, v.payload,
    CASE WHEN v.run_at > statement_timestamp() THEN 'scheduled' ELSE 'accepted' END, v.idempotency_key, v.fingerprint,
    CASE WHEN v.run_at > statement_timestamp() THEN NULL ELSE statement_timestamp() END, v.run_at, v.not_after,
    v.secrets, v.key_id, v.notify
FROM unnest({parameters(_INSERT_TYPES)})
    AS v(id, kind, asset, partition, actor, payload, idempotency_key, fingerprint, run_at, not_after, secrets, key_id,
        notify)
ON CONFLICT DO NOTHING
RETURNING id, status, accepted_at
"""  # noqa: S608 - constant

# Only an actor's latest commands are looked at, lest one with a long history be slow to count: older ones that are
# unfinished are scheduled for later.
_UNFINISHED = """
SELECT count(*) FILTER (WHERE status IN ('accepted', 'scheduled'))
FROM (SELECT status FROM commands WHERE actor = $1 ORDER BY id DESC LIMIT 10 * $2) AS latest
"""

_BACKLOG = "SELECT count(*) FROM (SELECT 1 FROM commands WHERE status = 'accepted' LIMIT $1) AS waiting"
_BACKLOG_SECONDS = 1.0
_ACTORS_MAX = 100_000


class KeyReused(Exception):
    """The idempotency key was used before, with another kind or payload."""


class Overloaded(Exception):
    """The backlog is full: accepting more would only make everybody wait longer."""


class TooManyUnfinished(Exception):
    """The actor has as many unfinished commands as one may have."""


class Journal:
    """Accepts commands and reads their receipts; each of the two on a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accepting = Line(
            settings, "accept", timeout_seconds=ACCEPT_SECONDS, idle_seconds=ACCEPT_IDLE_SECONDS, pinned_plans=True
        )
        self._accepts: Gather[Entry, Receipt | Exception] = Gather(self._flush, ROWS_MAX)
        self._receipts = Receipts(settings)
        self._unfinished: dict[int, int] = {}
        self._backlog = 0
        self._backlog_read_at = float("-inf")

    async def close(self) -> None:
        await self._accepts.close()
        await self._receipts.close()
        await self._accepting.close()

    async def accept(self, submissions: Sequence[Entry]) -> Sequence[Receipt | Exception]:
        """For each its durable receipt, or why it is refused: KeyReused, Overloaded, TooManyUnfinished.

        Raises Unavailable when none is known to be accepted; a submission with a key may then be sent again.
        """
        return await self._accepts.add(submissions)

    async def read(self, command_id: UUID) -> Receipt | None:
        """The receipt of a command, or None when there is no such command. Raises Unavailable."""
        return (await self.look([command_id]))[0]

    def look(self, command_ids: Sequence[UUID]) -> "asyncio.Future[Sequence[Receipt | None]]":
        """`read` of many, for who does not want to wait."""
        return self._receipts.look(command_ids)

    async def _flush(self, submissions: list[Entry]) -> Sequence[Receipt | Exception]:
        deadline = time.monotonic() + ACCEPT_SECONDS
        refused = await self._refusals(submissions, deadline)
        admitted = [submission for submission in submissions if submission.id not in refused]
        answers = await self._insert(admitted, deadline) if admitted else {}
        repeated = [submission for submission in submissions if submission.id in refused and submission.idempotency_key]
        if repeated:  # limits are for new commands: a repeated key is answered as the first time
            found = await self._find(repeated, deadline)
            answers |= {id_: answer for id_, answer in found.items() if not isinstance(answer, Unavailable)}
        return [answers.get(submission.id) or refused[submission.id] for submission in submissions]

    async def _insert(self, submissions: list[Entry], deadline: float) -> dict[UUID, Receipt | Exception]:
        """One INSERT; what it passes over is there already: by its id (a repeat after a lost answer) or its key."""
        columns = arguments(_INSERT_TYPES, zip(*submissions, strict=True))
        rows = await fetch(self._accepting, _INSERT, *columns, deadline=deadline)
        inserted = {row[0]: row for row in rows}
        answers: dict[UUID, Receipt | Exception] = {}
        for id_, kind, asset, partition, actor, *_ in submissions:
            if id_ in inserted:
                _, status, accepted_at = inserted[id_]
                answers[id_] = Receipt(
                    id_, kind, actor, asset, partition, Status(status), accepted_at, None, None, None
                )
        if len(answers) < len(submissions):
            passed_over = [submission for submission in submissions if submission.id not in answers]
            answers |= await self._find(passed_over, deadline)
        return answers

    async def _find(self, submissions: list[Entry], deadline: float) -> dict[UUID, Receipt | Exception]:
        rows = await fetch(self._accepting, READ, [submission.id for submission in submissions], deadline=deadline)
        answers: dict[UUID, Receipt | Exception] = {row["id"]: receipt_of(row) for row in rows}
        scopes = [(submission.actor or 0, submission.idempotency_key) for submission in submissions]
        rows = await fetch(self._accepting, READ_BY_KEY, *zip(*scopes, strict=True), deadline=deadline)
        by_key = {(row["scope"], row["idempotency_key"]): row for row in rows}
        for submission, scope in zip(submissions, scopes, strict=True):
            if submission.id in answers:
                continue
            row = by_key.get(scope)
            if row is None:  # the command that held the key was removed this moment
                answers[submission.id] = Unavailable("submit again")
            elif row["fingerprint"] != submission.fingerprint:
                answers[submission.id] = KeyReused(submission.idempotency_key)
            else:
                answers[submission.id] = receipt_of(row, replayed=True)
        return answers

    async def _refusals(self, submissions: list[Entry], deadline: float) -> dict[UUID, Exception]:
        """Submissions over a limit. Unfinished commands are counted in the table only when those this process has
        accepted since the last count could reach the limit, so most submissions cost no query."""
        if time.monotonic() - self._backlog_read_at > _BACKLOG_SECONDS:
            rows = await fetch(self._accepting, _BACKLOG, self._settings.backlog_max, deadline=deadline)
            self._backlog, self._backlog_read_at = rows[0][0], time.monotonic()
        if len(self._unfinished) > _ACTORS_MAX:
            self._unfinished.clear()
        refused: dict[UUID, Exception] = {}
        admitted: Counter[int] = Counter()
        counted: set[int] = set()
        limit = self._settings.actor_unfinished_max
        for submission in submissions:
            actor = submission.actor
            if self._backlog >= self._settings.backlog_max:
                refused[submission.id] = Overloaded(self._settings.backlog_max)
                continue
            if actor is not None:
                unfinished = self._unfinished.get(actor, 0)
                if unfinished >= limit and actor not in counted:
                    rows = await fetch(self._accepting, _UNFINISHED, actor, limit, deadline=deadline)
                    unfinished = rows[0][0] + admitted[actor]
                    counted.add(actor)
                self._unfinished[actor] = unfinished
                if unfinished >= limit:
                    refused[submission.id] = TooManyUnfinished(limit)
                    continue
                self._unfinished[actor] += 1
                admitted[actor] += 1
            self._backlog += 1
        return refused
