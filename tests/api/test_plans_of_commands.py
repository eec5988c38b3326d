"""What the list of commands costs with a long journal and a longer archive."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.datastructures import QueryParams

from api.pages import _cursor, read_page
from api.results import list_for
from storage.keys import Credential, Role
from storage.postgres.connection import engine as make_engine
from tests.api.plans import explain
from tests.installation import Installer, connected

JOURNALED, ARCHIVED, ACTORS = 20_000, 100_000, 100
BUFFERS_MAX = 500
OWN = (JOURNALED + ARCHIVED) // ACTORS
"""Commands of an actor: a filter that none of them passes has to look at all."""

_COLUMNS = "id, kind, asset, partition, actor, payload, status, accepted_at, finished_at"
_FILL = """
INSERT INTO {table} ({columns}{more})
SELECT lpad(to_hex($1 + n), 32, '0')::uuid, CASE n % 2 WHEN 0 THEN 'nft.buy' ELSE 'nft.set_price' END,
    'nft:' || n % 1000, n % 4, 1 + n % $3, '{{}}', 'succeeded', now(), now(){values}
FROM generate_series(1, $2::integer) AS n
"""


@pytest.fixture(scope="module")
async def engine(installer: Installer) -> AsyncIterator[AsyncEngine]:
    settings = await installer.install()
    async with connected(settings) as connection:
        archive = _FILL.format(table="archived_commands", columns=_COLUMNS, more=", seq", values=", n")
        journal = _FILL.format(table="commands", columns=_COLUMNS, more=", fingerprint", values=", ''")
        await connection.execute(archive, 0, ARCHIVED, ACTORS)
        await connection.execute(journal, ARCHIVED, JOURNALED, ACTORS)
        await connection.execute("ANALYZE commands, archived_commands")
    engine = make_engine(settings)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize(
    ("role", "query"),
    [
        (Role.OPERATOR, {}),
        (Role.OPERATOR, {"limit": 100}),
        (Role.OPERATOR, {"sort": "id"}),
        (Role.OPERATOR, {"actor": 7}),
        (Role.OPERATOR, {"kind": "nft.buy", "status": "succeeded"}),
        (Role.SERVICE, {}),
        (Role.USER, {}),
        (Role.USER, {"kind": "nft.buy"}),
        (Role.USER, {"status": "rejected"}),
        (Role.USER, {"asset": "nft:7"}),
        (Role.FEED, {}),
    ],
)
async def test_a_page_of_commands_costs_little_in_the_journal_and_in_the_archive(
    engine: AsyncEngine, role: Role, query: dict[str, Any]
) -> None:
    page = list_for(Credential("key", role, 8 if role is Role.USER else None))
    sent: list[tuple[str, Any]] = []

    def record(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        sent.append((statement, parameters))

    asked = {name: str(value) for name, value in query.items()}
    places = [{}] if "sort" in query else [{}, {"cursor": _cursor("id", [UUID(int=ARCHIVED)])}]
    async with engine.connect() as connection:
        for place in places:  # the first page, and one where the archive begins
            event.listen(engine.sync_engine, "before_cursor_execute", record)
            try:
                await read_page(connection, page, QueryParams(asked | place))
            finally:
                event.remove(engine.sync_engine, "before_cursor_execute", record)
        plans = [await explain(connection, *each) for each in sent]
    assert len(plans) == len(places)
    for plan in plans:
        assert plan.scanned == frozenset(), plan.text
        assert plan.buffers <= BUFFERS_MAX + (OWN if role is Role.USER else 0), plan.text
