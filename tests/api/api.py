"""The application in this process on an installation of its own, asked over HTTP; and what tests look at beside it."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from api.app import make_app
from storage.keys import Role, create_key
from storage.postgres.connection import engine as make_engine
from storage.settings import Settings
from storage.tables import metadata
from tests.deadline import again_while_busy
from tests.installation import connected
from workers.worker import execute

DIGEST = "md5(string_agg(t::text, '' ORDER BY t::text))"
TABLES = "UNION ALL ".join(
    f"SELECT '{table}' AS name, count(*) AS rows, {DIGEST} AS content FROM {table} t "
    for table in sorted(metadata.tables)
)


class Api:
    """`operator` is a client with an operator's key; `as_role` makes others. No worker runs: `settle` stands in."""

    def __init__(self, settings: Settings, engine: AsyncEngine, transport: httpx.ASGITransport) -> None:
        self.settings = settings
        self.engine = engine
        self._transport = transport
        self.anonymous = self.with_key(None)
        self.operator = self.anonymous

    @property
    def app(self) -> Starlette:
        assert isinstance(self._transport.app, Starlette)
        return self._transport.app

    def with_key(self, key: str | None) -> httpx.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(transport=self._transport, base_url="http://souk", headers=headers, timeout=60)

    async def as_role(self, role: Role, user_id: int | None = None) -> httpx.AsyncClient:
        _, key = await create_key(self.engine, role, user_id)
        return self.with_key(key)

    async def tables(self) -> dict[str, tuple[int, str | None]]:
        """Rows and a digest of the content of each table."""
        async with self.engine.connect() as connection:
            found = await connection.execute(text(TABLES))
            return {row.name: (row.rows, row.content) for row in found}

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """Nothing that happens within changes a row of any table."""
        before = await self.tables()
        yield
        after = await self.tables()
        changed = [name for name in after if after[name] != before[name]]
        assert not changed, f"changed: {changed}"

    async def send(self, command: Mapping[str, Any], **extra: Any) -> dict[str, Any]:
        """The receipt of a command that the operator sends."""
        response = await again_while_busy(lambda: self.operator.post("/v1/commands", json={**command, **extra}))
        assert response.status_code == 202, response.text
        receipt: dict[str, Any] = response.json()
        return receipt

    async def settle(self, commands: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Send commands of the operator's in order, and bring each to its outcome; answers the final receipts."""
        ids = [(await self.send(command))["id"] for command in commands]
        for command_id in ids:
            await execute({"settings": self.settings}, command_id)
        return [(await self.operator.get(f"/v1/commands/{command_id}")).json() for command_id in ids]

    async def count(self, where: str = "TRUE") -> int:
        """Commands in the journal that meet the condition."""
        async with connected(self.settings) as connection:
            return int(await connection.fetchval(f"SELECT count(*) FROM commands WHERE {where}"))


@asynccontextmanager
async def running(settings: Settings, *, raise_bugs: bool = True) -> AsyncIterator[Api]:
    """The application as long as the context lasts; what it answers with 500 is raised here, unless said otherwise."""
    app = make_app(settings)
    engine = make_engine(settings)
    try:
        async with app.router.lifespan_context(app):
            api = Api(settings, engine, httpx.ASGITransport(app, raise_app_exceptions=raise_bugs))
            api.operator = await api.as_role(Role.OPERATOR)
            yield api
    finally:
        await engine.dispose()


def assert_problem(
    response: httpx.Response, status: int, code: str, paths: Iterable[str] | None = None
) -> dict[str, Any]:
    """The answer is this problem, in full form; for `invalid`, it names exactly these paths."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    if paths is not None:
        assert sorted(error["path"] for error in problem["errors"]) == sorted(paths)
        assert all(error["message"] for error in problem["errors"])
    return problem
