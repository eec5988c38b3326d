"""Keyset pages under change: whatever happens between two pages, what stays is seen exactly once."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.datastructures import QueryParams

from api.pages import Page, either, one_of, read_page
from storage.postgres.connection import engine as make_engine
from tests.installation import Installer

rows = Table("rows", MetaData(), Column("id", BigInteger), Column("rank", BigInteger), Column("kind", Text))
PAGE = Page(
    rows=select().select_from(rows),
    show=select(rows.c.id, rows.c.rank, rows.c.kind),
    ids=(rows.c.id,),
    sorts={"rank": rows.c.rank, "id": rows.c.id},
    default="rank",
)
KINDS = ("a", "b", "c")
PAGES = {
    "plain": PAGE,
    "spread over its kinds": PAGE._replace(spreads={"kind": either({kind: rows.c.kind == kind for kind in KINDS})}),
    "value by value": PAGE._replace(filters={"kind": one_of(rows.c.kind)}, ordered={"kind": rows.c.kind}),
    "in parts": PAGE._replace(parts=(rows.c.rank < 3, rows.c.rank >= 3), filters={"kind": one_of(rows.c.kind)}),
    "shown as found": PAGE._replace(
        rows=select(rows.c.id, rows.c.rank, rows.c.kind), show=None, filters={"kind": one_of(rows.c.kind)}
    ),
}
"""Every way in which pages are found."""

ids = st.integers(-(2**62), 2**62)
row = st.tuples(st.integers(0, 5), st.sampled_from(KINDS))
"""Few ranks, so that ids have to break ties."""


@pytest.fixture(scope="module")
async def engine(installer: Installer) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(await installer.empty())
    async with engine.begin() as connection:
        await connection.run_sync(rows.metadata.create_all)
    yield engine
    await engine.dispose()


async def walk(
    engine: AsyncEngine,
    page: Page,
    query: list[tuple[str, str]],
    start: dict[int, tuple[int, str]],
    between: list[dict[int, tuple[int, str] | None]],
) -> tuple[list[dict[str, Any]], dict[int, tuple[int, str]], set[int]]:
    """All pages, with changes between them; what was seen, what there was at the start, and whose rows were touched."""
    touched: set[int] = set()
    seen: list[dict[str, Any]] = []
    pending = list(between)
    async with engine.connect() as connection:
        await connection.execute(delete(rows))
        for id_, (rank, kind) in start.items():
            await connection.execute(insert(rows).values(id=id_, rank=rank, kind=kind))
        cursor: list[tuple[str, str]] = []
        while True:
            found = await read_page(connection, page, QueryParams(query + cursor))
            seen += found["items"]
            if found["next"] is None:
                break
            cursor = [("cursor", found["next"])]
            for id_, changed in (pending.pop(0) if pending else {}).items():
                touched.add(id_)
                await connection.execute(delete(rows).where(rows.c.id == id_))
                if changed is not None:
                    await connection.execute(insert(rows).values(id=id_, rank=changed[0], kind=changed[1]))
        await connection.rollback()
    return seen, start, touched


@pytest.mark.parametrize("name", PAGES)
@given(
    start=st.dictionaries(ids, row, max_size=12),
    data=st.data(),
    sort=st.sampled_from(["rank", "-rank", "id", "-id"]),
    limit=st.integers(1, 5),
    kinds=st.sets(st.sampled_from(KINDS)),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_what_stays_is_seen_once_and_in_order(
    engine: AsyncEngine,
    name: str,
    start: dict[int, tuple[int, str]],
    data: st.DataObject,
    sort: str,
    limit: int,
    kinds: set[str],
) -> None:
    between = data.draw(st.lists(st.dictionaries(st.sampled_from([*start, 1, 2]), st.none() | row, max_size=4)))
    wanted = set() if name == "plain" else kinds
    query = [("sort", sort), ("limit", str(limit)), *(("kind", kind) for kind in sorted(wanted))]
    seen, before, touched = await walk(engine, PAGES[name], query, start, between)

    def key(item: dict[str, Any]) -> tuple[int, ...]:
        return (item["rank"], item["id"]) if "rank" in sort else (item["id"],)

    stayed = [item for item in seen if item["id"] not in touched]
    passing = {id_ for id_, (_, kind) in before.items() if id_ not in touched and (not wanted or kind in wanted)}
    assert sorted(item["id"] for item in stayed) == sorted(passing)
    keys = [key(item) for item in seen]
    assert keys == sorted(keys, reverse=sort.startswith("-"))
    assert len(keys) == len(set(keys))
