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

from api.pages import Page, integer, read_page, require_known
from api.problems import not_found
from commands.command import BIGINT_MAX
from commands.items import NftState
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


View = Callable[[AsyncConnection, Asked], Awaitable[Any]]


def page(of: Page | Callable[[Asked], Page]) -> View:
    """A view that answers with a page of the list."""

    async def view(connection: AsyncConnection, asked: Asked) -> Any:
        return await read_page(connection, of if isinstance(of, Page) else of(asked), asked.query)

    return view


def one(of: Callable[[Asked], Select[Any]], *parameters: str) -> View:
    """A view that answers with the one thing that the select finds."""

    async def view(connection: AsyncConnection, asked: Asked) -> Any:
        require_known(asked.query, {"actor", *parameters})
        row = (await connection.execute(of(asked))).mappings().first()
        if row is None:
            raise not_found()
        return dict(row)

    return view
