"""What PostgreSQL does for a read: the plans of the statements that a view sends."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.datastructures import QueryParams

from api.views import READS
from api.views.reads import Asked, Listed, View
from storage.settings import Settings


class Plan(NamedTuple):
    """`buffers` are the pages touched, `rows` those read from tables, whether they passed or not, `scanned` the tables
    that were read from one end to the other."""

    buffers: int
    rows: int
    scanned: frozenset[str]
    milliseconds: float
    planning_milliseconds: float
    text: str


class Reader:
    """Reads as the API does, and explains what was sent."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self.engine = engine
        self._settings = settings
        self._listed = Listed()

    async def read(self, path: str, user_id: int | None = None, **query: Any) -> tuple[Any, list[Plan]]:
        """What the view of the path answers, and the plans of its statements."""
        view, names = _view(path)
        pairs = [(name, str(value)) for name, values in query.items() for value in _listed(values)]
        asked = Asked(user_id, names, QueryParams(pairs), self._settings, self._listed)
        sent: list[tuple[str, Any]] = []

        def record(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            sent.append((statement, parameters))

        async with self.engine.connect() as connection:
            event.listen(self.engine.sync_engine, "before_cursor_execute", record)
            try:
                answer = await view(connection, asked)
            finally:
                event.remove(self.engine.sync_engine, "before_cursor_execute", record)
            plans = [await explain(connection, *each) for each in sent]
        return answer, plans


async def explain(connection: Any, statement: str, parameters: Any) -> Plan:
    """What PostgreSQL does for a statement that SQLAlchemy sent."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    found = (await connection.exec_driver_sql(explain, parameters)).scalar()
    [explained] = json.loads(found) if isinstance(found, str) else found
    nodes = list(_nodes(explained["Plan"]))
    return Plan(
        explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"],
        int(sum(_rows_read(node) for node in nodes)),
        frozenset(node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"),
        explained["Execution Time"],
        explained["Planning Time"],
        json.dumps(explained["Plan"]),
    )


def _view(path: str) -> tuple[View, dict[str, str]]:
    for route, _, view in READS:
        parts, wanted = path.split("/"), route.split("/")
        if len(parts) == len(wanted) and all(w in ("{" + w[1:-1] + "}", p) for p, w in zip(parts, wanted, strict=True)):
            return view, {w[1:-1]: p for p, w in zip(parts, wanted, strict=True) if w.startswith("{")}
    raise LookupError(path)


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _rows_read(node: Mapping[str, Any]) -> float:
    if node["Node Type"] not in ("Seq Scan", "Index Scan", "Bitmap Heap Scan"):
        return 0
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])
