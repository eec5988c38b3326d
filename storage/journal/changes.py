"""The changes of a batch: what a book holds, as the operations that write it; pure, so nothing is sent here.

An operation knows its SQL. Those of a batch are the parts of one statement, whose arguments are arrays, one a column;
the outcomes come last. The text depends on which columns change and not on how many rows do, so it is made once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from commands.book import Book, Event, FollowUp, Posting
from commands.document import STORED, Row
from commands.outcome import Outcome, Status
from storage.journal.entry import Entry, Facts
from storage.postgres.arrays import arguments, parameters
from storage.tables.base import array_types

# Not `status = 'accepted'`: that would let the planner scan the index of all that waits.
_OUTCOMES = """
UPDATE commands SET status = v.status, result = v.result, rejection = v.rejection, error = v.error,
    finished_at = $1::timestamptz
FROM unnest({}) AS v(id, status, result, rejection, error)
WHERE commands.id = v.id AND commands.finished_at IS NULL
"""
_OUTCOME_TYPES = ("uuid[]", "text[]", "json[]", "json[]", "text[]")

_ENTRY_COLUMNS = ("id", "kind", "asset", "partition", "payload", "status", "fingerprint", "accepted_at", "run_at")

# unnest() flattens arrays of arrays, so an event's topics travel as one text.
_TOPICS_SEPARATOR = "\x1f"


class Delete(NamedTuple):
    """Rows that go; `columns` are the key."""

    table: str
    columns: tuple[str, ...]

    def sql(self, source: str, before: Sequence[str]) -> str:
        return f"DELETE FROM {self.table} USING {source} WHERE {_match(self.table, self.columns)} RETURNING 1"  # noqa: S608 - names of our own tables


class Update(NamedTuple):
    """Rows that have changed; `columns` are the key and whatever differs in any of them."""

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def sql(self, source: str, before: Sequence[str]) -> str:
        changes = ", ".join(f"{column} = v.{column}" for column in self.columns if column not in self.key)
        return f"UPDATE {self.table} SET {changes} FROM {source} WHERE {_match(self.table, self.key)} RETURNING 1"  # noqa: S608 - names of our own tables


class Insert(NamedTuple):
    """New rows; `moment` is the column that takes the time of the batch, if any does."""

    table: str
    columns: tuple[str, ...]
    moment: str | None

    def sql(self, source: str, before: Sequence[str]) -> str:
        names, values = list(self.columns), [f"v.{column}" for column in self.columns]
        if "topics" in names:
            values[names.index("topics")] = "string_to_array(v.topics, E'\\x1f')"
        if self.moment is not None:
            names.append(self.moment)
            values.append("$1::timestamptz")
        # What opens must find what closes gone from the unique indexes, and sub-statements run in no order but that in
        # which they need each other.
        after = " AND ".join(f"(SELECT count(*) FROM {name}) >= 0" for name in before) or "true"  # noqa: S608 - our own names
        return f"INSERT INTO {self.table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {source} WHERE {after}"  # noqa: S608 - names of our own tables


Operation = Delete | Update | Insert
"""`sql` takes the rows as the table expression `source`, and the names of the operations on the same table that come
before it in the statement."""
_ORDER = {Delete: 0, Update: 1, Insert: 2}
"""Of the operations on one table."""


class Change(NamedTuple):
    """An operation with its arguments, one a column."""

    operation: Operation
    arguments: list[Any]


class Write(NamedTuple):
    """A whole batch as one statement, with all its arguments."""

    statement: str
    arguments: list[Any]


def entries_of(book: Book, partitions: int) -> list[Entry]:
    """Returns the entries of the commands that those of the batch write."""
    follow_ups = (row for row in book.records if isinstance(row, FollowUp))
    return [Entry.of(one.command, Facts(one.id, run_at=one.run_at), partitions) for one in follow_ups]


def finished_event(command_id: UUID, kind: str, status: Status, key_id: str) -> Event:
    """Returns what tells the credential that submitted a command of its end."""
    return Event(
        command_id,
        "command.finished",
        (f"commands:{key_id}",),
        {"id": str(command_id), "kind": kind, "status": status},
    )


def platform_changes(book: Book) -> Counter[int]:
    """Returns by how many nano each of the platform's accounts changes: they are not in the book, but added up for the
    commit."""
    changes: Counter[int] = Counter()
    for posting in book.records:
        if isinstance(posting, Posting):
            if posting.debit_account < 0:
                changes[posting.debit_account] -= posting.amount_nano
            if posting.credit_account < 0:
                changes[posting.credit_account] += posting.amount_nano
    return changes


def changes_of(book: Book, entries: Iterable[Entry], endings: Iterable[Event]) -> list[Change]:
    """Returns what writes the book's documents and records, the entries, and the events that tell of ends: by table,
    and of one table in the order delete, update, insert."""
    deleted: defaultdict[type[Row], list[Row]] = defaultdict(list)
    updated: defaultdict[type[Row], list[tuple[Row, Row]]] = defaultdict(list)
    inserted: defaultdict[type[Row], list[Row]] = defaultdict(list)
    for document, before, now in book.changes():
        if before is None and now is not None:
            inserted[document].append(now)
        elif before is not None and now is not None:
            updated[document].append((before, now))
        elif before is not None:
            deleted[document].append(before)
    for row in (*book.records, *endings):
        if not isinstance(row, FollowUp):
            inserted[type(row)].append(_event_row(row) if isinstance(row, Event) else row)
    changes = [
        *(_delete(kind, rows) for kind, rows in deleted.items()),
        *(_update(kind, pairs) for kind, pairs in updated.items()),
        *(_insert(kind, rows) for kind, rows in inserted.items()),
        *_entries(entries, book.now),
    ]
    return sorted(changes, key=lambda change: (change.operation.table, _ORDER[type(change.operation)]))


def write_of(changes: Sequence[Change], outcomes: Mapping[UUID, Outcome], now: datetime) -> Write:
    """Returns the one statement that makes the changes and writes the outcomes, at the time of the batch."""
    rows = [_outcome_row(command_id, outcome) for command_id, outcome in outcomes.items()]
    return Write(
        _statement(tuple(change.operation for change in changes)),
        [
            now,
            *(argument for change in changes for argument in change.arguments),
            *arguments(_OUTCOME_TYPES, zip(*rows, strict=True)),
        ],
    )


@cache
def _statement(operations: tuple[Operation, ...]) -> str:
    """The operations in the order given, and the outcomes last. $1 is the time of the batch."""
    parts: list[str] = []
    before: defaultdict[str, list[str]] = defaultdict(list)
    first = 2
    for operation in operations:
        types = array_types(operation.table, operation.columns)
        source = f"unnest({parameters(types, first)}) AS v({', '.join(operation.columns)})"
        first += len(types)
        name = f"w{len(parts)}"
        parts.append(f"{name} AS ({operation.sql(source, before[operation.table])})")
        before[operation.table].append(name)
    ctes = f"WITH {', '.join(parts)}" if parts else ""
    return ctes + _OUTCOMES.format(parameters(_OUTCOME_TYPES, first))


def _match(table: str, key: Sequence[str]) -> str:
    return " AND ".join(f"{table}.{column} = v.{column}" for column in key)


def _change(operation: Operation, fields: Sequence[str], rows: Sequence[Row]) -> Change:
    """The columns of the operation, out of rows with these fields."""
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True)
    if operation.columns is not fields:
        given = dict(zip(fields, columns, strict=True))
        columns = [given[column] for column in operation.columns]
    return Change(operation, arguments(array_types(operation.table, operation.columns), columns))


def _delete(kind: type[Row], rows: Sequence[Row]) -> Change:
    stored = STORED[kind]
    return _change(Delete(stored.table, stored.key), stored.fields, rows)


def _update(kind: type[Row], pairs: Sequence[tuple[Row, Row]]) -> Change:
    """Columns that differ in none of the (before, now) pairs need not travel."""
    stored = STORED[kind]
    columns = tuple(
        field
        for place, field in enumerate(stored.fields)
        if field in stored.key or any(before[place] != now[place] for before, now in pairs)
    )
    return _change(Update(stored.table, columns, stored.key), stored.fields, [now for _, now in pairs])


def _insert(kind: type[Row], rows: Sequence[Row]) -> Change:
    stored = STORED[kind]
    return _change(Insert(stored.table, stored.fields, stored.moment), stored.fields, rows)


def _entries(entries: Iterable[Entry], now: datetime) -> Iterator[Change]:
    rows = [_entry_row(entry, now) for entry in entries]
    if rows:
        yield _change(Insert("commands", _ENTRY_COLUMNS, moment=None), _ENTRY_COLUMNS, rows)


def _entry_row(entry: Entry, now: datetime) -> Row:
    status = entry.status_at(now)
    accepted_at = now if status is Status.ACCEPTED else None
    return (
        *(entry.id, entry.kind, entry.asset, entry.partition, entry.payload),
        *(status, entry.fingerprint, accepted_at, entry.run_at),
    )


def _event_row(event: Event) -> Row:
    topics = _TOPICS_SEPARATOR.join(event.topics)
    return event.command_id, event.name, topics, to_json(event.fields).decode()


def _outcome_row(command_id: UUID, outcome: Outcome) -> tuple[UUID, str, str | None, str | None, str | None]:
    return (
        command_id,
        outcome.status,
        None if outcome.result is None else to_json(outcome.result).decode(),
        None if outcome.rejection is None else to_json(outcome.rejection).decode(),
        outcome.error,
    )
