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
from typing import Any, Self, cast
from uuid import UUID

import asyncpg

from commands.book import Account, Book
from commands.command import Command, Envelope, Invalid, Unreadable, decode
from commands.decide import touches
from commands.document import RECENT_SECONDS, STORED, Row, Scope
from commands.outcome import Outcome, Status
from storage.journal.changes import changes_of, entries_of, finished_event, platform_changes, write_of
from storage.postgres.arrays import arguments, parameters
from storage.postgres.connection import Connection
from storage.settings import Settings
from storage.tables.base import array_types

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

_SCOPES = {
    Scope.ALL: "",
    Scope.OPEN: " AND {table}.closed_at IS NULL",
    Scope.RECENT: f" AND {{table}}.opened_at > clock_timestamp() - interval '{RECENT_SECONDS} seconds'",
}

_UNANSWERED = (asyncpg.InterfaceError, OSError, TimeoutError)


class Fenced(Exception):
    """The lease on a partition has passed to another worker; nothing was done."""


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
        arrays = arguments(array_types(STORED[document].table, columns), given)
        make = cast("Any", document)._make
        rows = [make(row) for row in await self._fetch(_select(document, columns), *arrays)]
        if column is None:
            book.load(document, values, rows)
        else:
            book.load_found(document, column, values, rows)

    async def write(self, book: Book, outcomes: Mapping[UUID, Outcome]) -> None:
        """Write the book's changes and records, and the outcome of each command."""
        entries = entries_of(book, self._settings.partitions)
        endings = [
            finished_event(command_id, kind, outcomes[command_id].status, key_id)
            for command_id, (key_id, kind) in self._told.items()
            if command_id in outcomes
        ]
        self.follow_ups += [
            (entry.partition, entry.id) for entry in entries if entry.status_at(book.now) is Status.ACCEPTED
        ]
        self._platform_nano.update(platform_changes(book))
        write = write_of(changes_of(book, entries, endings), outcomes, book.now)
        tag = await self._execute(write.statement, *write.arguments)
        if tag != f"UPDATE {len(outcomes)}":
            message = f"{len(outcomes)} outcomes to write, but the journal said {tag}"
            raise RuntimeError(message)

    async def commit(self) -> None:
        updates = (
            f"UPDATE accounts SET available_nano = available_nano + {int(change)} WHERE id = {int(account)}; "  # noqa: S608 - integers
            for account, change in sorted(self._platform_nano.items())
            if change
        )
        await self._execute("".join(updates) + "COMMIT")
        self._committed = True

    async def _execute(self, script: str, *arguments: Any) -> str:
        self.round_trips += 1
        return await self._connection.execute(script, *arguments)

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        self.round_trips += 1
        return await self._connection.fetch(statement, *arguments)


def _read(kind: str, payload: str) -> Command:
    try:
        return decode(kind, payload, stored=True)
    except Invalid as error:
        return Unreadable(reason=str(error))


@cache
def _select(document: type[Row], by: tuple[str, ...]) -> str:
    """SELECT the documents whose columns `by` have the values given as one array a column, in the order of the key."""
    stored = STORED[document]
    table = stored.table
    types = array_types(table, by)
    columns = ", ".join(f"{table}.{field}" for field in stored.fields)
    order = ", ".join(f"{table}.{column}" for column in stored.key)
    lock = f" FOR UPDATE OF {table}" if stored.locked else ""
    if len(by) == 1:
        scope = _SCOPES[stored.indexes.get(by[0], Scope.ALL)].format(table=table)
        source = f"{table} WHERE {table}.{by[0]} = ANY({parameters(types)}){scope}"
    else:
        keys = ", ".join(by)
        source = f"unnest({parameters(types)}) AS wanted({keys}) JOIN {table} USING ({keys})"
    return f"SELECT {columns} FROM {source} ORDER BY {order}{lock}"  # noqa: S608 - names of our own tables
