"""The audit: proves from the tables that money and items are conserved.

Each invariant is a query that returns what breaks it, by id, and a figure that says how much it looked at. Needs only
read access. Queries are joins of whole tables, so that their time grows with the tables and with nothing else.
"""

from typing import NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from commands.terms import Terms
from storage.audit.documents import DOCUMENT_INVARIANTS
from storage.audit.invariant import TERMS
from storage.audit.items import ITEM_INVARIANTS
from storage.audit.money import MONEY_INVARIANTS

INVARIANTS = tuple(
    sorted((*MONEY_INVARIANTS, *ITEM_INVARIANTS, *DOCUMENT_INVARIANTS), key=lambda invariant: int(invariant.name[1:]))
)
_SHOWN_MAX = 10


class Finding(NamedTuple):
    """An invariant as found. `broken` are the first of what breaks it."""

    name: str
    statement: str
    figure: int
    broken: list[str]


async def audit(engine: AsyncEngine, terms: Terms) -> list[Finding]:
    """Every invariant as found in one snapshot of the database."""
    async with engine.connect() as plain:
        return await examine(await plain.execution_options(isolation_level="REPEATABLE READ"), terms)


async def examine(connection: AsyncConnection, terms: Terms) -> list[Finding]:
    """Every invariant as found in the connection's transaction."""
    findings = []
    for invariant in INVARIANTS:
        rows = await connection.scalars(_query(invariant.broken, terms))
        found = [str(row) for row in rows.fetchmany(_SHOWN_MAX)]
        figure = int(await connection.scalar(text(invariant.figure)) or 0)
        findings.append(Finding(invariant.name, invariant.statement, figure, found))
    return findings


def _query(broken: str, terms: Terms) -> TextClause:
    named = [name for name in TERMS if f":{name}" in broken]
    return text(broken).bindparams(**{name: float(getattr(terms, name)) for name in named})
