"""The journal: the table of commands and their outcomes.

Accepting is one INSERT for all submissions that came while the previous one was under way; a command is accepted when
its row is committed, and not before.
"""

import asyncio
import os
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from pydantic_core import from_json

from commands.outcome import Status
from storage.postgres.arrays import argument, parameter
from storage.postgres.connection import Line, Unavailable, is_weather
from storage.postgres.group_commit import Gather
from storage.settings import Settings

ACCEPT_SECONDS = 1.5
"""How long an INSERT may take, repeats included."""
ACCEPT_IDLE_SECONDS = 0.4
"""How long PostgreSQL then waits for the COMMIT, where that is a message of its own (through PgBouncer), before it ends
the transaction; otherwise the INSERT is its own transaction. The two together are less than the least grace of timers:
so what was accepted in time, which an INSERT stamps at its start, comes before the timer in the journal, even when its
sender fell asleep on the way."""

_READ_SECONDS = 10.0
_ROWS_MAX = 1_000

_COLUMNS = "id, kind, actor, asset, partition, status, accepted_at, finished_at, result, rejection, fingerprint"

_INSERT_TYPES = (
    *("uuid[]", "text[]", "text[]", "smallint[]", "bigint[]", "json[]", "text[]", "bytea[]"),
    *("timestamptz[]", "timestamptz[]", "bytea[]", "text[]", "boolean[]"),
)
_INSERT = """
INSERT INTO commands (id, kind, asset, partition, actor, payload, status, idempotency_key, fingerprint, accepted_at,
    run_at, not_after, secrets, key_id, notify)
SELECT v.id, v.kind, v.asset, v.partition, v.actor, v.payload,
    CASE WHEN v.run_at > statement_timestamp() THEN 'scheduled' ELSE 'accepted' END, v.idempotency_key, v.fingerprint,
    CASE WHEN v.run_at > statement_timestamp() THEN NULL ELSE statement_timestamp() END, v.run_at, v.not_after,
    v.secrets, v.key_id, v.notify
FROM unnest({parameters})
    AS v(id, kind, asset, partition, actor, payload, idempotency_key, fingerprint, run_at, not_after, secrets, key_id,
        notify)
ON CONFLICT DO NOTHING
RETURNING id, status, accepted_at
""".format(parameters=", ".join(parameter(number, kind) for number, kind in enumerate(_INSERT_TYPES, 1)))

_READ = f"SELECT {_COLUMNS} FROM commands WHERE id = ANY($1::uuid[])"  # noqa: S608 - constant

_READ_ARCHIVED = f"""
SELECT {_COLUMNS.removesuffix(", fingerprint")} FROM archived_commands WHERE id = ANY($1::uuid[])
"""  # noqa: S608 - constant

_READ_BY_KEY = f"""
SELECT {_COLUMNS}, coalesce(actor, 0) AS scope, idempotency_key
FROM unnest($1::bigint[], $2::text[]) AS wanted(scope, key)
JOIN commands ON coalesce(actor, 0) = wanted.scope AND idempotency_key = wanted.key
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


class Submission(NamedTuple):
    """A command that is to be accepted. `payload` is JSON; `secrets` are its secret fields, sealed; `key_id` is the
    credential that sends it, which with `notify` is told of its end by an event."""

    id: UUID
    kind: str
    asset: str
    partition: int
    actor: int | None
    payload: str
    idempotency_key: str | None
    fingerprint: bytes
    run_at: datetime | None
    not_after: datetime | None
    secrets: bytes | None = None
    key_id: str | None = None
    notify: bool = False


class Receipt(NamedTuple):
    """What is known of a command; `replayed` when an earlier submission with the same key made it."""

    id: UUID
    kind: str
    actor: int | None
    asset: str
    partition: int
    status: Status
    accepted_at: datetime | None
    finished_at: datetime | None
    result: str | None
    rejection: str | None
    replayed: bool = False

    @property
    def is_final(self) -> bool:
        return self.status.is_final

    def as_json(self) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "kind": self.kind,
            "actor": self.actor,
            "asset": self.asset,
            "partition": self.partition,
            "status": self.status,
            "accepted_at": self.accepted_at,
            "finished_at": self.finished_at,
            "result": None if self.result is None else from_json(self.result),
            "rejection": None if self.rejection is None else from_json(self.rejection),
            "links": {"self": f"/v1/commands/{self.id}"},
        }


def receipt_of(row: asyncpg.Record, *, replayed: bool = False) -> Receipt:
    """The receipt in a row of the journal's columns."""
    return Receipt._make((*row[:5], Status(row[5]), *row[6:10], replayed))


def new_id() -> UUID:
    """A UUIDv7: time-ordered, so that new rows lie together in the index."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def partition_of(asset: str, partitions: int) -> int:
    """The partition of an asset: stable across processes, versions and machines."""
    return zlib.crc32(asset.encode()) % partitions


def fingerprint_of(kind: str, payload: str) -> bytes:
    """What a repeated idempotency key is compared by; the payload in the normal form of its command."""
    return sha256(f"{kind}\n{payload}".encode()).digest()[:16]


class Journal:
    """Accepts commands and reads their receipts; each of the two on a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accepting = Line(
            settings, "accept", timeout_seconds=ACCEPT_SECONDS, idle_seconds=ACCEPT_IDLE_SECONDS, pinned_plans=True
        )
        self._reading = Line(settings, "read", timeout_seconds=_READ_SECONDS, pinned_plans=True)
        self._accepts: Gather[Submission, Receipt | Exception] = Gather(self._flush, _ROWS_MAX)
        self._reads: Gather[UUID, Receipt | None] = Gather(self._read, _ROWS_MAX)
        self._unfinished: dict[int, int] = {}
        self._backlog = 0
        self._backlog_read_at = float("-inf")

    async def close(self) -> None:
        await self._accepts.close()
        await self._reads.abandon()
        await self._accepting.close()
        await self._reading.close()

    async def accept(self, submissions: Sequence[Submission]) -> Sequence[Receipt | Exception]:
        """For each its durable receipt, or why it is refused: KeyReused, Overloaded, TooManyUnfinished.

        Raises Unavailable when none is known to be accepted; a submission with a key may then be sent again.
        """
        return await self._accepts.add(submissions)

    async def read(self, command_id: UUID) -> Receipt | None:
        """The receipt of a command, or None when there is no such command. Raises Unavailable."""
        return (await self.look([command_id]))[0]

    def look(self, command_ids: Sequence[UUID]) -> "asyncio.Future[Sequence[Receipt | None]]":
        """`read` of many, for who does not want to wait."""
        return self._reads.add(command_ids)

    async def _read(self, ids: list[UUID]) -> Sequence[Receipt | None]:
        deadline = time.monotonic() + _READ_SECONDS
        rows = await _fetch(self._reading, _READ, ids, deadline=deadline)
        missing = set(ids).difference(row["id"] for row in rows)
        if missing:  # there is none, or it has gone to the archive, from where none comes back
            rows += await _fetch(self._reading, _READ_ARCHIVED, list(missing), deadline=deadline)
        found = {row["id"]: receipt_of(row) for row in rows}
        return [found.get(command_id) for command_id in ids]

    async def _flush(self, submissions: list[Submission]) -> Sequence[Receipt | Exception]:
        deadline = time.monotonic() + ACCEPT_SECONDS
        refused = await self._refusals(submissions, deadline)
        admitted = [submission for submission in submissions if submission.id not in refused]
        answers = await self._insert(admitted, deadline) if admitted else {}
        repeated = [submission for submission in submissions if submission.id in refused and submission.idempotency_key]
        if repeated:  # limits are for new commands: a repeated key is answered as the first time
            found = await self._find(repeated, deadline)
            answers |= {id_: answer for id_, answer in found.items() if not isinstance(answer, Unavailable)}
        return [answers.get(submission.id) or refused[submission.id] for submission in submissions]

    async def _insert(self, submissions: list[Submission], deadline: float) -> dict[UUID, Receipt | Exception]:
        """One INSERT; what it passes over is there already: by its id (a repeat after a lost answer) or its key."""
        columns = zip(*submissions, strict=True)
        arguments = [argument(kind, column) for kind, column in zip(_INSERT_TYPES, columns, strict=True)]
        rows = await _fetch(self._accepting, _INSERT, *arguments, deadline=deadline)
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

    async def _find(self, submissions: list[Submission], deadline: float) -> dict[UUID, Receipt | Exception]:
        rows = await _fetch(self._accepting, _READ, [submission.id for submission in submissions], deadline=deadline)
        answers: dict[UUID, Receipt | Exception] = {row["id"]: receipt_of(row) for row in rows}
        scopes = [(submission.actor or 0, submission.idempotency_key) for submission in submissions]
        rows = await _fetch(self._accepting, _READ_BY_KEY, *zip(*scopes, strict=True), deadline=deadline)
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

    async def _refusals(self, submissions: list[Submission], deadline: float) -> dict[UUID, Exception]:
        """Submissions over a limit. Unfinished commands are counted in the table only when those this process has
        accepted since the last count could reach the limit, so most submissions cost no query."""
        if time.monotonic() - self._backlog_read_at > _BACKLOG_SECONDS:
            rows = await _fetch(self._accepting, _BACKLOG, self._settings.backlog_max, deadline=deadline)
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
                    rows = await _fetch(self._accepting, _UNFINISHED, actor, limit, deadline=deadline)
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


async def _fetch(line: Line, statement: str, *arguments: Any, deadline: float) -> list[asyncpg.Record]:
    """A statement that is safe to repeat: in bad weather it is, until the deadline (monotonic seconds). Raises
    Unavailable."""
    pause = 0.02
    while True:
        try:
            return await (await line.connected()).fetch(statement, *arguments)
        except Exception as error:
            if not is_weather(error):
                raise
            line.doubt(error)
            if time.monotonic() + pause > deadline:
                raise Unavailable(str(error)) from error
        await asyncio.sleep(pause)
        pause *= 2
