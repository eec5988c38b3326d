"""The unit of work: one transaction that claims a batch of commands, loads what they touch, and writes what they did.

| phase  | round trips | what |
|--------|-------------|------|
| begin  | 1           | BEGIN, and lock the partitions under their fences |
| claim  | 1           | the next accepted commands of those partitions, in journal order |
| load   | 1 a table and round; accounts once, last | SELECT … FOR UPDATE by key: one lock order |
| write  | 1           | every change, record and outcome, as arrays, in one statement |
| commit | 1           | the platform's balances with COMMIT: their hot rows are locked for one flush only |

The number does not depend on how many commands the batch holds. Leaving without commit rolls back. A COMMIT whose
answer was lost needs no special care: the next claim waits on the partition's row for that transaction to end, and
then reads from the journal what is still to do.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, cast
from uuid import UUID

import asyncpg
from pydantic_core import to_json
from sqlalchemy.dialects import postgresql

from commands.book import Account, Book, Event, FollowUp, Posting
from commands.command import Command, Envelope, Invalid, Unreadable, decode
from commands.decide import touches
from commands.document import RECENT_SECONDS, STORED, Row, Scope, record
from commands.outcome import Outcome, Status
from storage.journal.accept import fingerprint_of, partition_of
from storage.postgres.arrays import argument, parameter
from storage.postgres.connection import Connection
from storage.settings import Settings
from storage.tables import metadata

CLAIM = """
SELECT c.id, c.seq, c.asset, c.partition, c.actor, c.kind, c.payload, c.accepted_at, c.not_after,
    CASE WHEN c.notify THEN c.key_id END, clock_timestamp()
FROM unnest($1::smallint[]) AS owned(partition)
CROSS JOIN LATERAL (
    SELECT * FROM commands
    WHERE commands.partition = owned.partition AND commands.status = 'accepted'
    ORDER BY commands.seq LIMIT $2
) AS c
ORDER BY c.seq
"""

_OUTCOMES = """
UPDATE commands SET status = v.status, result = v.result, rejection = v.rejection, error = v.error,
    finished_at = $1::timestamptz
FROM unnest({}) AS v(id, status, result, rejection, error)
WHERE commands.id = v.id AND commands.finished_at IS NULL
"""
# Not `status = 'accepted'`: that would let the planner scan the index of all that waits.
_OUTCOME_TYPES = ("uuid[]", "text[]", "json[]", "json[]", "text[]")

_SCOPES = {
    Scope.ALL: "",
    Scope.OPEN: " AND {table}.closed_at IS NULL",
    Scope.RECENT: f" AND {{table}}.opened_at > clock_timestamp() - interval '{RECENT_SECONDS} seconds'",
}

# unnest() flattens arrays of arrays, so an event's topics travel as one text.
_TOPICS_SEPARATOR = "\x1f"


_UNANSWERED = (asyncpg.InterfaceError, OSError, TimeoutError)


class Fenced(Exception):
    """The lease on a partition has passed to another worker; nothing was done."""


@record("commands")
class Entry(NamedTuple):
    """A row of the journal that a command wrote."""

    id: UUID
    kind: str
    asset: str
    partition: int
    payload: str
    status: Status
    fingerprint: bytes
    accepted_at: datetime | None
    run_at: datetime | None


def finished_event(command_id: UUID, kind: str, status: Status, key_id: str) -> Event:
    """What tells the credential that submitted a command of its end."""
    return Event(
        command_id,
        "command.finished",
        (f"commands:{key_id}",),
        {"id": str(command_id), "kind": kind, "status": status},
    )


class UnitOfWork:
    """One transaction on a connection. `async with UnitOfWork(…) as work: …; await work.commit()`.

    `follow_ups` are the (partition, id) of commands that it accepted itself.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._committed = False
        self._platform_nano: Counter[int] = Counter()
        self.round_trips = 0
        self.follow_ups: list[tuple[int, UUID]] = []
        self._told: dict[UUID, tuple[str, str]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed or self._connection.is_closed():
            return
        rolled_back = False
        try:
            # Who did not answer is not asked again: the server rolls back when the connection is gone.
            if not isinstance(error, (*_UNANSWERED, asyncio.CancelledError)):
                with suppress(asyncpg.PostgresError, *_UNANSWERED):
                    await self._connection.execute("ROLLBACK")
                    rolled_back = True
        finally:
            if not rolled_back:
                self._connection.terminate()

    async def begin(self, fences: Mapping[int, int]) -> None:
        """Begin, and lock the partitions ({partition: fence}) for as long as the transaction lasts. Raises Fenced."""
        leases = ", ".join(f"({int(partition)}, {int(fence)})" for partition, fence in fences.items())
        tag = await self._execute(
            f"BEGIN; SELECT 1 FROM partitions WHERE (id, fence) IN ({leases}) ORDER BY id FOR NO KEY UPDATE"  # noqa: S608 - integers
        )
        if tag != f"SELECT {len(fences)}":
            raise Fenced(sorted(fences))

    async def claim(self, partitions: Sequence[int], limit_each: int) -> tuple[list[Envelope], Book]:
        """The next commands of the partitions in journal order, and an empty book with the database's time."""
        rows = await self._fetch(CLAIM, list(partitions), limit_each)
        now = rows[0][-1] if rows else datetime.min  # noqa: DTZ901 - an empty batch decides nothing
        envelopes = [
            Envelope(row[0], row[1], row[2], row[3], row[4], _read(row[5], row[6]), row[7], row[8]) for row in rows
        ]
        self._told = {row[0]: (row[9], row[5]) for row in rows if row[9] is not None}
        return envelopes, Book(self._settings, now)

    async def load(self, book: Book, envelopes: Sequence[Envelope]) -> None:
        """Lock and load what the commands touch: documents until none asks for more, then accounts."""
        accounts: set[Hashable] = set()
        while True:
            missing: defaultdict[tuple[type[Row], str | None], set[Hashable]] = defaultdict(set)
            for envelope in envelopes:
                for need in touches(book, envelope):
                    if need.document is Account:
                        accounts.add(need.value)
                    elif book.lacks(need):
                        missing[need.document, need.column].add(need.value)
            if not missing:
                break
            for (document, column), values in sorted(missing.items(), key=lambda item: STORED[item[0][0]].table):
                await self._load(book, document, column, values)
        if accounts:
            await self._load(book, Account, None, accounts)

    async def _load(self, book: Book, document: type[Row], column: str | None, values: set[Hashable]) -> None:
        columns = STORED[document].key if column is None else (column,)
        given = [list(values)] if len(columns) == 1 else zip(*cast("Any", values), strict=True)
        types = _array_types(STORED[document].table, columns)
        arrays = (argument(kind, column) for kind, column in zip(types, given, strict=True))
        make = cast("Any", document)._make
        rows = [make(row) for row in await self._fetch(_select(document, columns), *arrays)]
        if column is None:
            book.load(document, values, rows)
        else:
            book.load_found(document, column, values, rows)

    async def write(self, book: Book, outcomes: Mapping[UUID, Outcome]) -> None:
        """Write the book's changes and records, and the outcome of each command."""
        inserted: defaultdict[type[Row], list[Row]] = defaultdict(list)
        updated: defaultdict[type[Row], list[tuple[Row, Row]]] = defaultdict(list)
        deleted: defaultdict[type[Row], list[Row]] = defaultdict(list)
        for document, before, now in book.changes():
            if before is None and now is not None:
                inserted[document].append(now)
            elif before is not None and now is not None:
                updated[document].append((before, now))
            elif before is not None:
                deleted[document].append(before)
        for row in book.records:
            if isinstance(row, FollowUp):
                inserted[Entry].append(self._entry(row, book.now))
                continue
            inserted[type(row)].append(_as_row(row))
            if isinstance(row, Posting):
                self._add_platform(row)
        for id_, (key_id, name) in self._told.items():
            if id_ in outcomes:
                inserted[Event].append(_as_row(finished_event(id_, name, outcomes[id_].status, key_id)))
        pieces = [_Piece("insert", kind, STORED[kind].fields) for kind in inserted]
        pieces += [_Piece("update", kind, _changed(kind, pairs)) for kind, pairs in updated.items()]
        pieces += [_Piece("delete", kind, STORED[kind].key) for kind in deleted]
        pieces.sort(key=lambda piece: (STORED[piece.kind].table, _OPERATIONS.index(piece.operation)))
        arguments: list[Any] = [book.now]
        for piece in pieces:
            if piece.operation == "update":
                arguments += piece.arguments([now for _, now in updated[piece.kind]])
            else:
                arguments += piece.arguments((inserted if piece.operation == "insert" else deleted)[piece.kind])
        outcome_rows = [_outcome_row(id_, outcome) for id_, outcome in outcomes.items()]
        arguments += [
            argument(kind, column) for kind, column in zip(_OUTCOME_TYPES, zip(*outcome_rows, strict=True), strict=True)
        ]
        self.round_trips += 1
        tag = await self._connection.execute(_write_statement(tuple(pieces)), *arguments)
        if tag != f"UPDATE {len(outcomes)}":
            message = f"{len(outcomes)} outcomes to write, but the journal said {tag}"
            raise RuntimeError(message)

    def _add_platform(self, posting: Posting) -> None:
        """The platform's accounts are not in the book: their changes are added up, for the commit."""
        if posting.debit_account < 0:
            self._platform_nano[posting.debit_account] -= posting.amount_nano
        if posting.credit_account < 0:
            self._platform_nano[posting.credit_account] += posting.amount_nano

    def _entry(self, follow_up: FollowUp, now: datetime) -> Entry:
        command = follow_up.command
        payload, asset = command.model_dump_json(), command.asset(follow_up.id, None)
        partition = partition_of(asset, self._settings.partitions)
        later = follow_up.run_at is not None and follow_up.run_at > now
        status, accepted_at = (Status.SCHEDULED, None) if later else (Status.ACCEPTED, now)
        fingerprint = fingerprint_of(command.kind, payload)
        if not later:
            self.follow_ups.append((partition, follow_up.id))
        return Entry(
            follow_up.id, command.kind, asset, partition, payload, status, fingerprint, accepted_at, follow_up.run_at
        )

    async def commit(self) -> None:
        updates = (
            f"UPDATE accounts SET available_nano = available_nano + {int(change)} WHERE id = {int(account)}; "  # noqa: S608 - integers
            for account, change in sorted(self._platform_nano.items())
            if change
        )
        await self._execute("".join(updates) + "COMMIT")
        self._committed = True

    async def _execute(self, script: str) -> str:
        self.round_trips += 1
        return await self._connection.execute(script)

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        self.round_trips += 1
        return await self._connection.fetch(statement, *arguments)


def _read(kind: str, payload: str) -> Command:
    try:
        return decode(kind, payload, stored=True)
    except Invalid as error:
        return Unreadable(reason=str(error))


def _as_row(row: Row) -> tuple[Any, ...]:
    if isinstance(row, Event):
        topics = _TOPICS_SEPARATOR.join(row.topics)
        return row.command_id, row.name, topics, to_json(row.fields).decode()
    return row


def _outcome_row(command_id: UUID, outcome: Outcome) -> tuple[UUID, str, str | None, str | None, str | None]:
    return (
        command_id,
        outcome.status,
        None if outcome.result is None else to_json(outcome.result).decode(),
        None if outcome.rejection is None else to_json(outcome.rejection).decode(),
        outcome.error,
    )


@cache
def _array_types(table: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    types = (metadata.tables[table].columns[column].type.compile(dialect) for column in columns)
    return tuple("text[]" if name.endswith("[]") else f"{name}[]" for name in types)


def _parameters(types: Sequence[str], first: int) -> str:
    return ", ".join(parameter(number, array_type) for number, array_type in enumerate(types, first))


_OPERATIONS = ("delete", "update", "insert")


class _Piece(NamedTuple):
    """A part of the write: the columns `fields` of new or changed rows of one type."""

    operation: Literal["insert", "update", "delete"]
    kind: type[Row]
    fields: tuple[str, ...]

    def types(self) -> tuple[str, ...]:
        return _array_types(STORED[self.kind].table, self.fields)

    def arguments(self, rows: Sequence[Row]) -> list[Any]:
        """One argument a column."""
        positions = [STORED[self.kind].fields.index(field) for field in self.fields]
        columns = ([row[position] for row in rows] for position in positions)
        return [argument(array_type, column) for array_type, column in zip(self.types(), columns, strict=True)]


def _changed(kind: type[Row], pairs: Sequence[tuple[Row, Row]]) -> tuple[str, ...]:
    """The key, and the columns that differ in any of the (before, now) pairs: others need not travel."""
    stored = STORED[kind]
    return tuple(
        field
        for position, field in enumerate(stored.fields)
        if field in stored.key or any(before[position] != now[position] for before, now in pairs)
    )


@cache
def _select(document: type[Row], by: tuple[str, ...]) -> str:
    """SELECT the documents whose columns `by` have the values given as one array a column, in the order of the key."""
    stored = STORED[document]
    table = stored.table
    types = _array_types(table, by)
    columns = ", ".join(f"{table}.{field}" for field in stored.fields)
    order = ", ".join(f"{table}.{column}" for column in stored.key)
    lock = f" FOR UPDATE OF {table}" if stored.locked else ""
    if len(by) == 1:
        scope = _SCOPES[stored.indexes.get(by[0], Scope.ALL)].format(table=table)
        source = f"{table} WHERE {table}.{by[0]} = ANY({_parameters(types, 1)}){scope}"
    else:
        keys = ", ".join(by)
        source = f"unnest({_parameters(types, 1)}) AS wanted({keys}) JOIN {table} USING ({keys})"
    return f"SELECT {columns} FROM {source} ORDER BY {order}{lock}"  # noqa: S608 - names of our own tables


@cache
def _write_statement(pieces: tuple[_Piece, ...]) -> str:
    """One statement for all pieces of a batch, in the order given; outcomes last.

    $1 is the time of the batch.
    """
    parts: list[str] = []
    made: defaultdict[str, list[str]] = defaultdict(list)
    first = 2
    for piece in pieces:
        stored = STORED[piece.kind]
        table, fields, key = stored.table, piece.fields, stored.key
        types = piece.types()
        source = f"unnest({_parameters(types, first)}) AS v({', '.join(fields)})"
        match = " AND ".join(f"{table}.{column} = v.{column}" for column in key)
        first += len(types)
        if piece.operation == "insert":
            values = ", ".join(
                f"string_to_array(v.{field}, E'\\x1f')" if field == "topics" else f"v.{field}" for field in fields
            )
            moment, now = (f", {stored.moment}", ", $1::timestamptz") if stored.moment else ("", "")
            # What opens must find what closes gone from the unique indexes, and sub-statements run in no order but
            # that in which they need each other.
            after = " AND ".join(f"(SELECT count(*) FROM {name}) >= 0" for name in made[table]) or "true"  # noqa: S608
            statement = (
                f"INSERT INTO {table} ({', '.join(fields)}{moment}) SELECT {values}{now} FROM {source} WHERE {after}"  # noqa: S608
            )
        elif piece.operation == "delete":
            statement = f"DELETE FROM {table} USING {source} WHERE {match} RETURNING 1"  # noqa: S608 - names of our own tables
        else:
            changes = ", ".join(f"{field} = v.{field}" for field in fields if field not in key)
            statement = f"UPDATE {table} SET {changes} FROM {source} WHERE {match} RETURNING 1"  # noqa: S608
        name = f"w{len(parts)}"
        parts.append(f"{name} AS ({statement})")
        made[table].append(name)
    ctes = f"WITH {', '.join(parts)}" if parts else ""
    return ctes + _OUTCOMES.format(_parameters(_OUTCOME_TYPES, first))
