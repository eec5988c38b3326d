"""What a read is: who may ask, what is asked, and how it is answered with a page or with a single thing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import QueryParams

from api.openapi.columns import BIG_ID, Schema, list_of, object_of, row_schema
from api.openapi.operation import Parameter
from api.pages import UUID_TEXT, Page, integer, read_page, require_known
from api.problems import not_found
from commands.command import BIGINT_MAX
from commands.nft.items import NftState
from storage.settings import Settings
from storage.tables import nfts


class Audience(Enum):
    """Who may ask. ALL are told the same, save for what is theirs; MINE is about the one who asks."""

    ALL = "all"
    MINE = "mine"
    OPERATORS = "operators"


class Listed:
    """How many items are on sale in each collection.

    Only counting can tell, and counting 200,000 takes longer than a read may. So counts are used again, for as long as
    keeps counting at a hundredth of the time: a small market's are always fresh, a large one's some seconds old.
    """

    _SHARE = 0.01
    _INSTANT_SECONDS = 0.005

    def __init__(self) -> None:
        self._counts: Mapping[str, int] = {}
        self._good_until = 0.0
        self._counting = asyncio.Lock()

    async def by_collection(self, connection: AsyncConnection) -> Mapping[str, int]:
        async with self._counting:
            start = time.monotonic()
            if start >= self._good_until:
                rows = await connection.execute(_COUNT_LISTED)
                self._counts = {row.collection: row.listed for row in rows}
                took = time.monotonic() - start
                self._good_until = 0.0 if took < self._INSTANT_SECONDS else start + took / self._SHARE
            return self._counts


_COUNT_LISTED = (
    select(nfts.c.collection, func.count().label("listed"))
    .where(nfts.c.state == NftState.LISTED.value)
    .group_by(nfts.c.collection)
)


class Asked(NamedTuple):
    """A request to read. `user_id` is whose private things may be shown, or None."""

    user_id: int | None
    path: Mapping[str, str]
    query: QueryParams
    settings: Settings
    listed: Listed

    @property
    def me(self) -> int:
        assert self.user_id is not None  # noqa: S101 - the audience is MINE
        return self.user_id

    def number(self, name: str) -> int:
        """The large id in the path. Raises Invalid."""
        return integer(name, self.path[name], 1, BIGINT_MAX)

    def uuid(self, name: str = "id") -> UUID:
        """The document's id in the path: what is none names nothing. Raises Problem 404."""
        try:
            return UUID(self.path[name])
        except ValueError:
            raise not_found() from None


class _Probe(Asked):
    """Asked by nobody, to learn what a view takes and shows: it notes the ids that are looked for in the path."""

    def number(self, name: str) -> int:
        self.path[name] = BIG_ID  # type: ignore[index]
        return 1

    def uuid(self, name: str = "id") -> UUID:
        self.path[name] = UUID_TEXT  # type: ignore[index]
        return UUID(int=0)


class Told(NamedTuple):
    """What a view takes and shows."""

    parameters: list[Parameter]
    shown: Schema


class View(NamedTuple):
    """What a path under /v1 answers with, what that is, and how it describes itself."""

    answer: Callable[[AsyncConnection, Asked], Awaitable[Any]]
    summary: str
    told: Callable[[Asked], Told]

    async def __call__(self, connection: AsyncConnection, asked: Asked) -> Any:
        return await self.answer(connection, asked)

    def describe(self, settings: Settings) -> Told:
        looked_for: dict[str, Any] = {}
        told = self.told(_Probe(1, looked_for, QueryParams(), settings, Listed()))
        ids = [Parameter(name, schema, place="path", required=True) for name, schema in looked_for.items()]
        return Told([*ids, *told.parameters], told.shown)


def page(summary: str, of: Page | Callable[[Asked], Page], **more: Schema) -> View:
    """A view that answers with a page of the list, whose items have `more` than its columns."""

    def page_of(asked: Asked) -> Page:
        return of if isinstance(of, Page) else of(asked)

    async def answer(connection: AsyncConnection, asked: Asked) -> Any:
        return await read_page(connection, page_of(asked), asked.query)

    def told(asked: Asked) -> Told:
        described = page_of(asked)
        return Told(described.parameters(), page_schema(described.item_schema(more)))

    return View(answer, summary, told)


def one(summary: str, of: Callable[[Asked], Select[Any]], *parameters: Parameter) -> View:
    """A view that answers with the one thing that the select finds. Some of it may be there for parameters alone."""
    names = {parameter.name for parameter in parameters}

    async def answer(connection: AsyncConnection, asked: Asked) -> Any:
        require_known(asked.query, {"actor", *names})
        row = (await connection.execute(of(asked))).mappings().first()
        if row is None:
            raise not_found()
        return dict(row)

    def told(asked: Asked) -> Told:
        plain = row_schema(of(asked))
        full = row_schema(of(asked._replace(query=QueryParams(dict.fromkeys(names, str(UUID(int=0)))))))
        return Told([*parameters], full | {"required": plain["required"]})

    return View(answer, summary, told)


def shown(
    summary: str, schema: Schema | Callable[[Asked], Schema], *parameters: Parameter
) -> Callable[[Callable[[AsyncConnection, Asked], Awaitable[Any]]], View]:
    """A view of its own making, which shows the schema."""

    def declare(answer: Callable[[AsyncConnection, Asked], Awaitable[Any]]) -> View:
        def told(asked: Asked) -> Told:
            return Told([*parameters], schema(asked) if callable(schema) else schema)

        return View(answer, summary, told)

    return declare


def page_schema(item: Schema, **more: Schema) -> Schema:
    """A page of such items."""
    cursor = {"type": ["string", "null"], "description": "The cursor of the next page; null on the last."}
    return object_of({"items": list_of(item), "next": cursor, **more})
