"""What a column of an answer looks like in JSON: read from its type, its constraints and the expression it is.

JSON that the database makes says its schema by its type, `Shaped`, which stays with the expression wherever it goes.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    Label,
    Select,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    Case,
    Cast,
    Grouping,
    Null,
    TypeCoerce,
)
from sqlalchemy.sql.functions import FunctionElement, coalesce
from sqlalchemy.sql.operators import is_, is_not
from sqlalchemy.sql.selectable import ScalarSelect

from commands.command import BIGINT_MAX

Schema = dict[str, Any]


def _up_to(maximum: int) -> str:
    """A pattern of the decimals from 1 to the maximum."""
    digits = str(maximum)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    smaller = (
        f"{digits[:place]}[{int(place == 0)}-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}"
        for place, digit in enumerate(digits)
        if int(digit) > int(place == 0)
    )
    return f"({'|'.join([shorter, *smaller, digits])})"


DECIMAL = _up_to(BIGINT_MAX)
INT64: Schema = {"type": "integer", "format": "int64"}
BIG_ID: Schema = {"$ref": "#/components/schemas/BigId"}
NAMED: dict[str, Schema] = {}
"""Components of the description, filled by declaring them."""
_ONE_OF = re.compile(r"(\w+) IN \(((?:'\w+'(?:, )?)+)\)")


class Shaped(JSON):
    """JSON that the database makes, of a schema. Never null."""

    cache_ok = True

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self._schema = schema

    @property
    def schema(self) -> Schema:
        return self._schema


class BigIdText(Text):
    """An id as a decimal string."""


class TextOrNull(Text):
    """A text of a table whose row may not be there."""


def named(name: str, schema: Schema) -> Schema:
    """A reference to the schema, which is a component of that name."""
    assert NAMED.setdefault(name, schema) == schema  # noqa: S101 - names are given once
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(properties: Mapping[str, Schema], *, optional: Iterable[str] = ()) -> Schema:
    """An object with these properties and no others."""
    required = [name for name in properties if name not in set(optional)]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def list_of(items: Schema, **bounds: Any) -> Schema:
    return {"type": "array", "items": items, **bounds}


def or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str):
        choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
        return schema | {"type": [schema["type"], "null"]} | choices
    return {"anyOf": [schema, {"type": "null"}]}


def row_schema(shown: Select[Any]) -> Schema:
    """The rows of a select."""
    return object_of({column.key or "": column_schema(column) for column in shown.selected_columns})


def column_schema(column: ColumnElement[Any]) -> Schema:
    schema = _by_type(column)
    return or_null(schema) if _may_be_null(column) else schema


def _by_type(column: ColumnElement[Any]) -> Schema:
    match column.type:
        case Shaped() as shaped:
            return shaped.schema
        case BigIdText():
            return BIG_ID
        case Boolean():
            return {"type": "boolean"}
        case BigInteger():
            return INT64
        case Integer():
            return {"type": "integer", "format": "int32"}
        case Uuid():
            return {"type": "string", "format": "uuid"}
        case DateTime():
            return {"type": "string", "format": "date-time"}
    choices = _choices(column)
    if choices:
        return {"type": "string", "enum": choices}
    if column.type.python_type is str:
        return {"type": "string"}
    raise TypeError(f"{column!r}: {column.type!r}")


def _choices(column: ColumnElement[Any]) -> list[str]:
    """The texts it may be, if that can be told."""
    column = _bare(column)
    if isinstance(column, Case):
        branches = [*(result for _, result in column.whens), *([] if column.else_ is None else [column.else_])]
        texts = [
            branch.value for branch in branches if isinstance(branch, BindParameter) and isinstance(branch.value, str)
        ]
        return texts if len(texts) == len(branches) else []
    [*roots] = column.base_columns
    if len(roots) != 1 or not isinstance(roots[0], Column) or not isinstance(roots[0].table, Table):
        return []
    for constraint in roots[0].table.constraints:
        found = _ONE_OF.fullmatch(str(constraint.sqltext)) if isinstance(constraint, CheckConstraint) else None
        if found is not None and found[1] == roots[0].name:
            return re.findall(r"'(\w+)'", found[2])
    return []


def _bare(column: ColumnElement[Any]) -> Any:
    bare: Any = column
    while isinstance(bare, Label | Grouping):
        bare = bare.element
    return bare


def _may_be_null(column: ColumnElement[Any]) -> bool:
    """Whether it may be, as far as the expression tells."""
    column = _bare(column)
    match column:
        case _ if isinstance(column.type, Shaped):
            return False
        case _ if isinstance(column.type, TextOrNull):
            return True
        case Column():
            return bool(column.nullable)
        case Case():
            branches = [result for _, result in column.whens]
            return column.else_ is None or any(map(_may_be_null, [*branches, column.else_]))
        case Cast() | TypeCoerce():
            return _may_be_null(column.clause)
        case BindParameter():
            return column.value is None
        case BinaryExpression() if column.operator in (is_, is_not):
            return False
        case BinaryExpression():
            return _may_be_null(column.left) or _may_be_null(column.right)
        case coalesce():
            return all(map(_may_be_null, column.clauses))
        case FunctionElement():
            return any(map(_may_be_null, column.clauses))
        case Null() | ScalarSelect():
            return True
    return False
