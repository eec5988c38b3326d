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
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
    column,
    func,
    literal,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import QueryParams

from api.openapi.columns import Schema, list_of, object_of, row_schema
from api.openapi.operation import Parameter
from commands.command import BIGINT_MAX, Invalid

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
VALUES_MAX = 50
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_ALWAYS = {"sort", "cursor", "limit", "actor"}
_CURSOR: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
TEXT: Schema = {"type": "string", "pattern": r"^[^\x00]*$"}
INTEGER: Schema = {"type": "integer", "format": "int64", "minimum": -BIGINT_MAX, "maximum": BIGINT_MAX}
COUNT: Schema = INTEGER | {"minimum": 0}
UUID_TEXT: Schema = {"type": "string", "format": "uuid"}
TIME: Schema = {"type": "string", "format": "date-time"}

Condition = ColumnElement[bool]


class Filter(NamedTuple):
    """A query parameter: `passes`, given its name and values, gives the condition of what passes them, or raises
    Invalid; `schema` is that of one value, of which there may be `many`."""

    passes: Callable[[str, list[str]], Condition]
    schema: Schema
    many: bool = True


class Spread(NamedTuple):
    """A filter whose values, all when none is given, are found one by one, each in the order of an index, and merged.
    No row meets two of its conditions."""

    passes: Callable[[str, list[str]], list[Condition]]
    schema: Schema


class Page(NamedTuple):
    """A list that can be read in pages.

    `rows` says which rows there are; `show` their columns, under the names of the answer, or null when `rows` has them.
    A sort is one or more columns, `ids` break ties. `some` holds filters that one and the same of several parts of a
    row has to pass: a select of the parts, and the filters. `defaults` are the values of parameters not given. `also`
    are the rows of another table, of the same columns, sorts and filters, in the same order among those of `rows`.

    Merging in order: `parts` divides the rows, always; `spreads` by the values of filters; `ordered` names texts, the
    most telling first, which have an index in each order: the first of them that is asked for is looked up value by
    value when there are several, the others are left to the planner.
    """

    rows: Select[Any]
    show: Select[Any] | None
    ids: tuple[ColumnElement[Any], ...]
    sorts: Mapping[str, ColumnElement[Any] | tuple[ColumnElement[Any], ...]]
    default: str
    filters: Mapping[str, Filter] = {}
    parts: Sequence[Condition] = (true(),)
    spreads: Mapping[str, Spread] = {}
    ordered: Mapping[str, ColumnElement[str]] = {}
    some: tuple[Select[Any], Mapping[str, Filter]] | None = None
    defaults: Mapping[str, list[str]] = {}
    also: "Page | None" = None
    shape: Callable[[dict[str, Any]], Mapping[str, Any]] = dict

    def parameters(self) -> list[Parameter]:
        """The query parameters it takes."""
        sorts = [sign + name for name in self.sorts for sign in ("", "-")]
        some = self.some[1] if self.some else {}
        filters: dict[str, Filter | Spread] = {**self.filters, **self.spreads, **some}
        return [
            Parameter(
                "sort", {"type": "string", "enum": sorts, "default": self.default}, "The order; - is descending."
            ),
            Parameter("cursor", _CURSOR, "The `next` of the page before, asked for in the same order."),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}),
            *(self._filter(name, each) for name, each in filters.items()),
        ]

    def item_schema(self, more: Mapping[str, Schema] = MappingProxyType({})) -> Schema:
        """What its items look like, where nothing shapes them anew."""
        schema = row_schema(self.rows if self.show is None else self.show)
        return object_of({**schema["properties"], **more})

    def _filter(self, name: str, given: Filter | Spread) -> Parameter:
        if name in _ALWAYS or (isinstance(given, Filter) and not given.many):
            return Parameter(name, given.schema)
        default = {"default": self.defaults[name]} if name in self.defaults else {}
        return Parameter(name, list_of(given.schema, minItems=1, maxItems=VALUES_MAX, **default), "Any of them.")


async def read_page(connection: AsyncConnection, page: Page, query: QueryParams) -> dict[str, Any]:
    """One page of the list. Raises Invalid for a bad filter, sort, limit or cursor."""
    _require_known(page, query)
    limit = integer("limit", query.get("limit", str(LIMIT_DEFAULT)), 1, LIMIT_MAX)
    order = _order(page, query.get("sort", page.default))
    rows = (await connection.execute(_whole_statement(page, query, order, limit))).mappings().all()
    keys = [rows[limit - 1][label] for label in order.labels] if len(rows) > limit else None
    items = [page.shape({name: row[name] for name in row if name not in order.labels}) for row in rows[:limit]]
    return {"items": items, "next": None if keys is None else _cursor(order.name, keys)}


class _Order(NamedTuple):
    """A sort as it was asked for: its name, its keys and what they are called in the statement."""

    name: str
    descending: bool
    keys: list[ColumnElement[Any]]

    @property
    def labels(self) -> list[str]:
        return [f"key{number}" for number in range(len(self.keys))]

    def labelled(self) -> list[ColumnElement[Any]]:
        return [key.label(label) for key, label in zip(self.keys, self.labels, strict=True)]

    def of(self, columns: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
        return [column.desc() if self.descending else column.asc() for column in columns]

    def of_rows(self, rows: FromClause) -> list[ColumnElement[Any]]:
        return self.of([rows.c[label] for label in self.labels])

    def after(self, cursor: str) -> Iterator[Condition]:
        """What comes after the cursor."""
        values = _cursor_values(cursor, self.name, self.keys)
        last, after = tuple_(*self.keys), tuple_(*values)
        yield last < after if self.descending else last > after
        if len({getattr(key, "table", None) for key in self.keys}) > 1:
            # No index answers for columns of two tables, but one does for the first.
            yield self.keys[0] <= values[0] if self.descending else self.keys[0] >= values[0]


def _whole_statement(page: Page, query: QueryParams, order: _Order, limit: int) -> Select[Any]:
    """One statement for all tables of the page, so that a row that moves from one to another is seen once."""
    statement = _statement(page, query, order, limit)
    if page.also is None:
        return statement
    others = _statement(page.also, query, _order(page.also, query.get("sort", page.default)), limit)
    rows = union_all(statement, others).subquery("both")
    return select(rows).order_by(*order.of_rows(rows)).limit(limit + 1)


def _statement(page: Page, query: QueryParams, order: _Order, limit: int) -> Select[Any]:
    """The page and one row more: found by keys, merged where there are several ways to them, then shown."""
    columns = order.labelled()
    if page.show is None:
        found = page.rows.add_columns(*columns)
    else:
        found = page.rows.with_only_columns(*columns, maintain_column_froms=True)
    found = found.where(*_conditions(page, query)).order_by(*order.of(order.keys)).limit(limit + 1)
    if "cursor" in query:
        found = found.where(*order.after(query["cursor"]))
    spreads = [spread.passes(name, _values(page, query, name)) for name, spread in page.spreads.items()]
    branches = [_value_by_value(page, query, found.where(*each)) for each in product(page.parts, *spreads)]
    if len(branches) == 1 and page.show is None:
        return branches[0]
    merged = branches[0] if len(branches) == 1 else union_all(*branches)
    rows: FromClause = merged.subquery("rows")
    rows = select(rows).order_by(*order.of_rows(rows)).limit(limit + 1).subquery("page")
    if page.show is None:
        return select(rows).order_by(*order.of_rows(rows))
    found_ids = [rows.c[label] for label in order.labels[-len(page.ids) :]]
    same = (id_ == found_id for id_, found_id in zip(page.ids, found_ids, strict=True))
    shown = page.show.add_columns(*(rows.c[label] for label in order.labels))
    return shown.where(*same).order_by(*order.of_rows(rows))


def _value_by_value(page: Page, query: QueryParams, found: Select[Any]) -> Select[Any]:
    """The same rows, where several values of one of the ordered texts are asked for, each in the order of its index."""
    name = next((name for name in page.ordered if query.getlist(name)), None)
    values = list(dict.fromkeys(query.getlist(name))) if name is not None else []
    if name is None or len(values) < 2:  # noqa: PLR2004 - several
        return found
    wanted = func.unnest(literal(values, ARRAY(Text))).table_valued(column("value", Text), name="wanted")
    wanted_values = wanted.render_derived()
    each = found.where(page.ordered[name] == wanted_values.c.value).correlate(wanted_values).lateral("each")
    return select(each).select_from(wanted_values.join(each, true()))


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
        return [filters[name].passes(name, values) for name, values in given if values]

    yield from passed(page.filters)
    if page.some is not None:
        parts, filters = page.some
        conditions = passed(filters)
        if conditions:
            yield parts.where(*conditions).exists()


def _order(page: Page, text: str) -> _Order:
    name = text.removeprefix("-")
    if name not in page.sorts:
        raise Invalid(("sort", f"must be one of {', '.join(page.sorts)}, with - in front for descending"))
    columns = page.sorts[name]
    columns = columns if isinstance(columns, tuple) else (columns,)
    before_ids = [column for column in columns if not any(column is id_ for id_ in page.ids)]
    return _Order(name, text.startswith("-"), [*before_ids, *page.ids])


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

    return Filter(condition, TEXT if choices is None else {"type": "string", "enum": list(choices)})


def one_of_integers(column: ColumnElement[Any]) -> Filter:
    """Passes any of the integers."""

    def condition(name: str, values: list[str]) -> Condition:
        numbers = [_number(name, value, -BIGINT_MAX) for value in values]
        return column == numbers[0] if len(numbers) == 1 else column.in_(numbers)

    return Filter(condition, INTEGER)


def at_least(column: ColumnElement[Any]) -> Filter:
    return Filter(lambda name, values: column >= _number(name, values[-1], 0), COUNT, many=False)


def at_most(column: ColumnElement[Any]) -> Filter:
    return Filter(lambda name, values: column <= _number(name, values[-1], 0), COUNT, many=False)


def holds(condition: Condition) -> Filter:
    """A yes or no: `true` passes what meets the condition, `false` the rest."""

    def passes(name: str, values: list[str]) -> Condition:
        return condition if choice(name, values[-1], ("true", "false")) == "true" else condition.is_not(true())

    return Filter(passes, {"type": "boolean"}, many=False)


def either(choices: Mapping[str, Condition]) -> Spread:
    """Any of the choices; each of them when none is given."""

    def conditions(name: str, values: list[str]) -> list[Condition]:
        return [choices[choice(name, value, list(choices))] for value in dict.fromkeys(values) or choices]

    return Spread(conditions, {"type": "string", "enum": list(choices)})


def _number(name: str, text: str, minimum: int) -> ColumnElement[Any]:
    """Wider than some columns: a number that they cannot hold is met by none of their rows, and no error."""
    return literal(integer(name, text, minimum), BigInteger)
