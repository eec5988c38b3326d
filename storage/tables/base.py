"""What all tables are made of."""

from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, SmallInteger, Text, column, table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

Moment = DateTime(timezone=True)
# What the view `holds` shows; its definition is in the migrations.
HOLDING = text("held_nano > 0")
HOLDS = table(
    "holds",
    *(column(name, Text) for name in ("document_kind", "document_id")),
    *(column(name, BigInteger) for name in ("user_id", "amount_nano")),
)
# Rows that are updated all the time find room for the new version on their own page.
HOT = {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05}


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


def copied_traits() -> tuple[Column[Any], ...]:
    """What an item is found and sorted by, copied by a trigger when the row is inserted, so that no join is needed."""
    texts = (Column(name, Text) for name in ("collection", "model", "pattern", "backdrop"))
    return *texts, Column("num", Integer), Column("model_permille", SmallInteger)


def opened_closed() -> tuple[Column[Any], Column[Any]]:
    return Column("opened_at", Moment, nullable=False), Column("closed_at", Moment)


@cache
def array_types(table: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the types of arrays that hold columns of a table, in PostgreSQL's words. What is an array itself travels
    as text."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    types = (metadata.tables[table].columns[column].type.compile(dialect) for column in columns)
    return tuple("text[]" if name.endswith("[]") else f"{name}[]" for name in types)
