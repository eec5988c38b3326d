"""Documents and records: what is stored, declared as named tuples whose fields are columns of a table.

A document has a state and a key; a record only ever comes to the others. The unit of work loads and writes both by
what is declared here, so a mechanism says nowhere else how its things are kept.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from enum import StrEnum
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from uuid import UUID

if TYPE_CHECKING:
    from commands.book import Book

Row = tuple[Any, ...]
"""A document or a record: a NamedTuple declared with @document or @record."""
D = TypeVar("D", bound=Row)


class Scope(StrEnum):
    """Which documents an indexed column finds."""

    ALL = "all"
    OPEN = "open"
    """Those whose `closed_at` is null."""
    RECENT = "recent"
    """Those opened within the last RECENT_SECONDS, by the database's clock."""


RECENT_SECONDS = 90_000
"""A day and an hour: rules look back a day, from a moment that may lie some time before the load."""


class Dependence(NamedTuple):
    """How documents end with another one, `on`, that they depend on.

    `touches` says what ending them asks for, given the key of that one. `end` ends them, given that one, the reason,
    and the ids of the documents by which it happens: these stay. Where several types depend on one, those of the
    smallest `place` end first.
    """

    on: type[Row]
    place: int
    touches: Callable[["Book", Any], Iterator["Need"]]
    end: Callable[["Book", Any, str, Collection[UUID]], None]


class Hold(NamedTuple):
    """Money that a document holds while it is open: the user whose it is and the amount, 0 when none, by their fields.
    `kind` is what its postings call the document."""

    kind: str
    user: str
    amount: str


class Deadline(NamedTuple):
    """When an open document ends by itself: the field of that moment, and the kind of the timer that ends it."""

    at: str
    timer: str


class Stored(NamedTuple):
    """How a type of rows is kept: its fields are columns of `table`, `key_of` gives the key of a row.

    `locked` says whether loading a document locks its row: false for what many read and only commands of one partition
    change. `indexes` are the other columns that documents are found by, and which of them are. `depends` is null for
    documents that end by themselves alone.
    """

    table: str
    fields: tuple[str, ...]
    key: tuple[str, ...]
    key_of: Callable[[Row], Hashable]
    locked: bool
    indexes: Mapping[str, "Scope"]
    moment: str | None
    """The column of a record's time: that of its batch, the same for all, so the rows do not carry it."""
    depends: Dependence | None = None
    holds: tuple[Hold, ...] = ()
    deadline: Deadline | None = None


STORED: dict[type[Row], Stored] = {}
"""Every type of rows; filled by declaring them."""


def document(
    table: str,
    *,
    key: tuple[str, ...] = ("id",),
    locked: bool = True,
    indexes: Mapping[str, Scope] | None = None,
    depends: Dependence | None = None,
    holds: tuple[Hold, ...] = (),
    deadline: Deadline | None = None,
) -> Callable[[type[D]], type[D]]:
    """Declares a NamedTuple as a stored thing with a state. Raises ValueError for a second document in one place."""

    def declare(kind: type[D]) -> type[D]:
        fields: tuple[str, ...] = cast("Any", kind)._fields
        key_of = itemgetter(*(fields.index(column) for column in key))
        if depends is not None and any(other.place == depends.place for other in dependents_of(depends.on)):
            message = f"{table}: another document that depends on {depends.on.__name__} ends in place {depends.place}"
            raise ValueError(message)
        STORED[kind] = Stored(table, fields, key, key_of, locked, indexes or {}, None, depends, holds, deadline)
        return kind

    return declare


def dependents_of(on: type[Row]) -> list[Dependence]:
    """Returns how the documents that depend on the type are loaded and ended, in the order in which they end."""
    found = [stored.depends for stored in STORED.values() if stored.depends is not None and stored.depends.on is on]
    found.sort(key=attrgetter("place"))
    return found


def record(table: str, *, moment: str | None = None) -> Callable[[type[D]], type[D]]:
    """Declares a NamedTuple as a stored thing that never changes and is never read by a rule."""

    def declare(kind: type[D]) -> type[D]:
        fields: tuple[str, ...] = cast("Any", kind)._fields
        STORED[kind] = Stored(table, fields, (), hash, locked=False, indexes={}, moment=moment)
        return kind

    return declare


class Need(NamedTuple):
    """Documents that a command wants loaded: all whose `column` (or key, when None) has the value."""

    document: type[Row]
    value: Hashable
    column: str | None = None


def is_open(row: Row) -> bool:
    """Whether a document can still act."""
    return cast("Any", row).closed_at is None
