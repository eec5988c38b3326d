"""Keyset pages: `{"items": […], "next": cursor or null}`.

The cursor encodes the sort key and id of the last item, so that no item is repeated or skipped while others change.
A page is found by its keys alone, in the order of an index; only then are its rows read with all that hangs on them.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import BigInteger, ColumnElement, Select, literal, select, true, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import QueryParams

from commands.command import BIGINT_MAX, Invalid

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
VALUES_MAX = 50
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_ALWAYS = {"sort", "cursor", "limit", "actor"}

Condition = ColumnElement[bool]
Filter = Callable[[str, list[str]], Condition]
"""Given the name and the values of its query parameter, gives the condition that passes them, or raises Invalid."""
Spread = Callable[[str, list[str]], list[Condition]]
"""A filter whose values, all when none is given, are found one by one, each in the order of an index, and merged.
No row meets two of its conditions."""


class Page(NamedTuple):
    """A list that can be read in pages.

    `rows` says which rows there are; `show` their columns, under the names of the answer, or null when `rows` has them.
    A sort is one or more columns, `ids` break ties. `some` holds filters that one and the same of several parts of a
    row has to pass: a select of the parts, and the filters. `defaults` are the values of parameters not given.
    """

    rows: Select[Any]
    show: Select[Any] | None
    ids: tuple[ColumnElement[Any], ...]
    sorts: Mapping[str, ColumnElement[Any] | tuple[ColumnElement[Any], ...]]
    default: str
    filters: Mapping[str, Filter] = {}
    spreads: Mapping[str, Spread] = {}
    some: tuple[Select[Any], Mapping[str, Filter]] | None = None
    defaults: Mapping[str, list[str]] = {}
    shape: Callable[[dict[str, Any]], Mapping[str, Any]] = dict


async def read_page(connection: AsyncConnection, page: Page, query: QueryParams) -> dict[str, Any]:
    """One page of the list. Raises Invalid for a bad filter, sort, limit or cursor."""
    limit, name, keys, statement = page_statement(page, query)
    rows = (await connection.execute(statement)).mappings().all()
    labels = [f"key{number}" for number in range(len(keys))]
    cursor = _cursor(name, [rows[limit - 1][label] for label in labels]) if len(rows) > limit else None
    items = [page.shape({name: row[name] for name in row if name not in labels}) for row in rows[:limit]]
    return {"items": items, "next": cursor}


def page_statement(page: Page, query: QueryParams) -> tuple[int, str, list[ColumnElement[Any]], Select[Any]]:
    """The limit, the sort's name and keys, and the statement that reads a page and one row more."""
    _require_known(page, query)
    limit = integer("limit", query.get("limit", str(LIMIT_DEFAULT)), 1, LIMIT_MAX)
    name, descending = _sort(page, query.get("sort", page.default))
    keys = _keys(page, name)
    conditions = list(_conditions(page, query))
    if "cursor" in query:
        values = _cursor_values(query["cursor"], name, keys)
        last, after = tuple_(*keys), tuple_(*values)
        conditions.append(last < after if descending else last > after)
        if len({getattr(key, "table", None) for key in keys}) > 1:
            # No index answers for columns of two tables, but one does for the first.
            conditions.append(keys[0] <= values[0] if descending else keys[0] >= values[0])
    labelled = [key.label(f"key{number}") for number, key in enumerate(keys)]
    found = (
        page.rows.add_columns(*labelled)
        if page.show is None
        else page.rows.with_only_columns(*labelled, maintain_column_froms=True)
    ).where(*conditions)
    branches = [
        found.where(*each).order_by(*(key.desc() if descending else key.asc() for key in keys)).limit(limit + 1)
        for each in product(*(spread(name, _values(page, query, name)) for name, spread in page.spreads.items()))
    ]
    if page.show is None and len(branches) == 1:
        return limit, name, keys, branches[0]
    merged = branches[0] if len(branches) == 1 else union_all(*branches)
    rows = merged.subquery("page")
    order = [rows.c[key.name].desc() if descending else rows.c[key.name].asc() for key in labelled]
    if len(branches) > 1:
        rows = select(rows).order_by(*order).limit(limit + 1).subquery("merged")
        order = [rows.c[key.name].desc() if descending else rows.c[key.name].asc() for key in labelled]
    if page.show is None:
        return limit, name, keys, select(rows).order_by(*order)
    places = [rows.c[labelled[number - len(page.ids)].name] for number in range(len(page.ids))]
    shown = page.show.add_columns(*(rows.c[key.name] for key in labelled))
    same = (id_ == place for id_, place in zip(page.ids, places, strict=True))
    return limit, name, keys, shown.where(*same).order_by(*order)


def _require_known(page: Page, query: QueryParams) -> None:
    some = page.some[1].keys() if page.some else set()
    require_known(query, {*page.filters, *page.spreads, *some, *_ALWAYS})
    for name in query:
        if len(query.getlist(name)) > (1 if name in _ALWAYS else VALUES_MAX):
            raise Invalid((name, f"at most {1 if name in _ALWAYS else VALUES_MAX} values"))


def require_known(query: QueryParams, names: set[str]) -> None:
    """Raises Invalid for parameters of other names."""
    unknown = sorted(query.keys() - names)
    if unknown:
        raise Invalid(*((name, "unknown parameter") for name in unknown))


def _values(page: Page, query: QueryParams, name: str) -> list[str]:
    values = query.getlist(name)
    if any("\0" in value for value in values):
        raise Invalid((name, "must be printable"))
    return values or list(page.defaults.get(name, []))


def _conditions(page: Page, query: QueryParams) -> Iterator[Condition]:
    def passed(filters: Mapping[str, Filter]) -> list[Condition]:
        given = ((name, _values(page, query, name)) for name in filters)
        return [filters[name](name, values) for name, values in given if values]

    yield from passed(page.filters)
    if page.some is not None:
        parts, filters = page.some
        conditions = passed(filters)
        if conditions:
            yield parts.where(*conditions).exists()


def _sort(page: Page, text: str) -> tuple[str, bool]:
    name = text.removeprefix("-")
    if name not in page.sorts:
        raise Invalid(("sort", f"must be one of {', '.join(page.sorts)}, with - in front for descending"))
    return name, text.startswith("-")


def _keys(page: Page, name: str) -> list[ColumnElement[Any]]:
    columns = page.sorts[name]
    columns = columns if isinstance(columns, tuple) else (columns,)
    return [*(column for column in columns if not any(column is id_ for id_ in page.ids)), *page.ids]


def _cursor(sort: str, values: Sequence[Any]) -> str:
    plain = [str(value) if isinstance(value, UUID) else value for value in values]
    return base64.urlsafe_b64encode(to_json([sort, *plain])).decode().rstrip("=")


def _cursor_values(cursor: str, sort: str, keys: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """The values in a cursor of this sort, of the keys' types."""
    try:
        made_for, *values = from_json(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        typed = [_typed(value, key) for value, key in zip(values, keys, strict=True)]
    except (ValueError, TypeError, OverflowError):
        made_for, typed = None, []
    if made_for != sort:
        raise Invalid(("cursor", "is not a cursor of this list in this order"))
    return typed


def _typed(value: Any, key: ColumnElement[Any]) -> ColumnElement[Any]:
    wanted = key.type.python_type
    if wanted is datetime:
        return literal(datetime.fromisoformat(value).astimezone(UTC), key.type)
    if wanted is UUID:
        return literal(UUID(str(value)), key.type)
    if wanted in (int, Decimal):
        return literal(integer("cursor", str(value), -BIGINT_MAX, BIGINT_MAX), BigInteger)
    if not isinstance(value, wanted) or "\0" in value:
        raise TypeError(value)
    return literal(value, key.type)


def integer(name: str, text: str, minimum: int = -BIGINT_MAX, maximum: int = BIGINT_MAX) -> int:
    """The integer of a query parameter. Raises Invalid."""
    if _INTEGER.fullmatch(text) and minimum <= int(text) <= maximum:
        return int(text)
    raise Invalid((name, f"must be an integer between {minimum} and {maximum}"))


def document_id(name: str, text: str) -> UUID:
    """The id of a query parameter. Raises Invalid."""
    try:
        return UUID(text)
    except ValueError:
        raise Invalid((name, "must be the id of a document")) from None


def moment(name: str, text: str) -> datetime:
    """The time of a query parameter. Raises Invalid."""
    try:
        read = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a query is a space
        return read.replace(tzinfo=read.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid((name, "must be a time, as 2030-01-01T00:00:00Z")) from None


def choice(name: str, text: str, choices: Sequence[str]) -> str:
    """One of the choices. Raises Invalid."""
    if text not in choices:
        raise Invalid((name, f"must be one of {', '.join(choices)}"))
    return text


# -- filters


def one_of(column: ColumnElement[Any], choices: Sequence[str] | None = None) -> Filter:
    """Passes any of the texts; where there are choices, nothing else may be asked for."""

    def condition(name: str, values: list[str]) -> Condition:
        for value in values if choices is not None else ():
            choice(name, value, choices or ())
        return column == values[0] if len(set(values)) == 1 else column.in_(values)

    return condition


def one_of_integers(column: ColumnElement[Any]) -> Filter:
    """Passes any of the integers."""

    def condition(name: str, values: list[str]) -> Condition:
        numbers = [_number(name, value, -BIGINT_MAX) for value in values]
        return column == numbers[0] if len(numbers) == 1 else column.in_(numbers)

    return condition


def at_least(column: ColumnElement[Any]) -> Filter:
    return lambda name, values: column >= _number(name, values[-1], 0)


def at_most(column: ColumnElement[Any]) -> Filter:
    return lambda name, values: column <= _number(name, values[-1], 0)


def holds(condition: Condition) -> Filter:
    """A yes or no: `true` passes what meets the condition, `false` the rest."""
    return lambda name, values: (
        condition if choice(name, values[-1], ("true", "false")) == "true" else condition.is_not(true())
    )


def each(column: ColumnElement[Any]) -> Spread:
    """Any of the texts; all rows when none is given."""
    return lambda _, values: [column == value for value in dict.fromkeys(values)] or [true()]


def either(choices: Mapping[str, Condition]) -> Spread:
    """Any of the choices; each of them when none is given."""

    def conditions(name: str, values: list[str]) -> list[Condition]:
        return [choices[choice(name, value, list(choices))] for value in dict.fromkeys(values) or choices]

    return conditions


def _number(name: str, text: str, minimum: int) -> ColumnElement[Any]:
    """Wider than some columns: a number that they cannot hold is met by none of their rows, and no error."""
    return literal(integer(name, text, minimum), BigInteger)
