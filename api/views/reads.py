"""What a read is: who may ask, what is asked, and how it is answered with a page or with a single thing."""

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import QueryParams

from api.pages import Page, integer, read_page, require_known
from api.problems import not_found
from commands.command import BIGINT_MAX
from storage.settings import Settings


class Audience(Enum):
    """Who may ask. ALL are told the same, save for what is theirs; MINE is about the one who asks."""

    ALL = "all"
    MINE = "mine"
    OPERATORS = "operators"


class Asked(NamedTuple):
    """A request to read. `user_id` is whose private things may be shown, or None."""

    user_id: int | None
    path: Mapping[str, str]
    query: QueryParams
    settings: Settings

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
