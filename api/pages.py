"""Keyset pages: `{"items": […], "next": cursor or null}`.

The cursor encodes the sort key and id of the last item, so that no item is repeated or skipped while others change.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import BigInteger, ColumnElement, Select, literal, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import QueryParams

from commands.command import BIGINT_MAX, Invalid

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
VALUES_MAX = 50
_INTEGER = re.compile(r"-?[0-9]{1,19}")


class Page(NamedTuple):
    """A list that can be read in pages.

    `id_column` breaks ties; `shape` makes an item of a row; a filter takes the values of its query parameter
    and gives a condition.
    """

    select: Select[Any]
    id_column: ColumnElement[Any]
    sorts: Mapping[str, ColumnElement[Any]]
    default: str
    shape: Callable[[Mapping[str, Any]], dict[str, Any]]
    filters: Mapping[str, Callable[[list[str]], ColumnElement[bool]]]


async def read_page(connection: AsyncConnection, page: Page, query: QueryParams) -> dict[str, Any]:
    """One page of the list. Raises Invalid for a bad filter, sort, limit or cursor."""
    unknown = query.keys() - page.filters.keys() - {"sort", "cursor", "limit", "actor"}
    if unknown:
        raise Invalid(*((name, "unknown parameter") for name in sorted(unknown)))
    limit = integer(query.get("limit", str(LIMIT_DEFAULT)), "limit", 1, LIMIT_MAX)
    name, descending = _sort(page, query.get("sort", page.default))
    column = page.sorts[name]
    keys = [page.id_column] if column is page.id_column else [column, page.id_column]
    statement = page.select
    for parameter, condition in page.filters.items():
        values = query.getlist(parameter)
        if len(values) > VALUES_MAX:
            raise Invalid((parameter, f"at most {VALUES_MAX} values"))
        if values:
            statement = statement.where(condition(values))
    if "cursor" in query:
        last = tuple_(*keys)
        after = tuple_(*_cursor_values(query["cursor"], name, keys))
        statement = statement.where(last < after if descending else last > after)
    order = [key.desc() if descending else key.asc() for key in keys]
    statement = statement.add_columns(*(key.label(f"_key{number}") for number, key in enumerate(keys)))
    rows = (await connection.execute(statement.order_by(*order).limit(limit + 1))).mappings().all()
    more = len(rows) > limit
    cursor = _cursor(name, [rows[limit - 1][f"_key{number}"] for number in range(len(keys))]) if more else None
    return {"items": [page.shape(row) for row in rows[:limit]], "next": cursor}


def _sort(page: Page, text: str) -> tuple[str, bool]:
    name = text.removeprefix("-")
    if name not in page.sorts:
        raise Invalid(("sort", f"must be one of {', '.join(page.sorts)}, with - in front for descending"))
    return name, text.startswith("-")


def _cursor(sort: str, values: Sequence[Any]) -> str:
    plain = [str(value) if isinstance(value, UUID) else value for value in values]
    return base64.urlsafe_b64encode(to_json([sort, *plain])).decode().rstrip("=")


def _cursor_values(cursor: str, sort: str, keys: Sequence[ColumnElement[Any]]) -> list[Any]:
    """The values in a cursor of this sort, of the keys' types."""
    try:
        made_for, *values = from_json(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        typed = [_typed(value, key.type.python_type) for value, key in zip(values, keys, strict=True)]
    except (ValueError, TypeError, OverflowError):
        made_for, typed = None, []
    if made_for != sort:
        raise Invalid(("cursor", "is not a cursor of this list in this order"))
    return typed


def _typed(value: Any, wanted: type) -> Any:
    if wanted is datetime:
        return datetime.fromisoformat(value).astimezone(UTC)
    if wanted is UUID:
        return UUID(str(value))
    if wanted in (int, Decimal):
        return integer(str(value), "cursor", -BIGINT_MAX, BIGINT_MAX)
    if not isinstance(value, wanted):
        raise TypeError(value)
    return value


def integer(text: str, name: str, minimum: int, maximum: int) -> int:
    """The integer of a query parameter. Raises Invalid."""
    if _INTEGER.fullmatch(text) and minimum <= int(text) <= maximum:
        return int(text)
    raise Invalid((name, f"must be an integer between {minimum} and {maximum}"))


def one_of(column: ColumnElement[Any]) -> Callable[[list[str]], ColumnElement[bool]]:
    """A filter that passes any of the texts."""

    def condition(values: list[str]) -> ColumnElement[bool]:
        if any("\0" in value for value in values):
            raise Invalid((column.key or "filter", "must be printable"))
        return column.in_(values)

    return condition


def one_of_integers(column: ColumnElement[Any], name: str) -> Callable[[list[str]], ColumnElement[bool]]:
    """A filter that passes any of the integers."""
    return lambda values: column.in_([_number(value, name, -BIGINT_MAX) for value in values])


def at_least(column: ColumnElement[Any], name: str) -> Callable[[list[str]], ColumnElement[bool]]:
    return lambda values: column >= _number(values[-1], name, 0)


def at_most(column: ColumnElement[Any], name: str) -> Callable[[list[str]], ColumnElement[bool]]:
    return lambda values: column <= _number(values[-1], name, 0)


def _number(text: str, name: str, minimum: int) -> ColumnElement[Any]:
    """Wider than some columns: a number that they cannot hold is met by none of their rows, and no error."""
    return literal(integer(text, name, minimum, BIGINT_MAX), BigInteger)
