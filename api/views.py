"""The reads, declared in tables: each list is a Page, each single thing a select.

A read changes nothing and calls nothing outside.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, Select, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.auth import Keyring, reader
from api.pages import Page, at_least, at_most, integer, one_of, one_of_integers, read_page
from api.problems import json_response, not_found
from commands.command import BIGINT_MAX, Invalid
from commands.items import Gift, NftState
from storage.tables import accounts, deals, gifts, nfts, users

_GIFT_COLUMNS = [gifts.c[name].label(f"gift_{name}") for name in Gift._fields if name != "availability_total"]
_ITEM_COLUMNS = [nfts.c[name] for name in ("id", "state", "price_nano", "opened_at", "reserved_by", "reserved_kind")]
_ITEMS: Select[Any] = select(*_ITEM_COLUMNS, *_GIFT_COLUMNS).join_from(nfts, gifts, gifts.c.id == nfts.c.gift_id)

_GIFT_FILTERS = {name: one_of(gifts.c[name]) for name in ("collection", "model", "pattern", "backdrop")} | {
    "num": one_of_integers(gifts.c.num, "num"),
    "num_min": at_least(gifts.c.num, "num_min"),
    "num_max": at_most(gifts.c.num, "num_max"),
}
_PRICE_FILTERS = {
    "price_min_nano": at_least(nfts.c.price_nano, "price_min_nano"),
    "price_max_nano": at_most(nfts.c.price_nano, "price_max_nano"),
}


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    gift = {name: row[f"gift_{name}"] for name in Gift._fields if name != "availability_total"}
    return {
        "nft_id": str(row["id"]),
        "gift": gift | {"id": str(gift["id"])},
        "state": row["state"],
        "price_nano": row["price_nano"],
        "received_at": row["opened_at"],
    }


def _own_item(row: Mapping[str, Any]) -> dict[str, Any]:
    return _item(row) | {"reserved_by": row["reserved_by"], "reserved_kind": row["reserved_kind"]}


def _deal(user_id: int, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "deal_id": row["id"],
        "source": row["source"],
        "side": "sell" if row["seller_id"] == user_id else "buy",
        "price_nano": row["price_nano"],
        "fee_nano": row["fee_nano"],
        "made_at": row["made_at"],
    }


LISTINGS = Page(
    select=_ITEMS.where(nfts.c.state == NftState.LISTED),
    id_column=nfts.c.id,
    sorts={
        "price": nfts.c.price_nano,
        "created_at": nfts.c.opened_at,
        "num": sql_cast(gifts.c.num, BigInteger),
        "model_permille": gifts.c.model_permille,
    },
    default="price",
    shape=_item,
    filters=_GIFT_FILTERS | _PRICE_FILTERS,
)


def items_of(user_id: int) -> Page:
    return Page(
        select=_ITEMS.where(nfts.c.owner_id == user_id),
        id_column=nfts.c.id,
        sorts={
            "received_at": nfts.c.opened_at,
            "price": nfts.c.price_nano,
            "num": sql_cast(gifts.c.num, BigInteger),
            "model_permille": gifts.c.model_permille,
        },
        default="-received_at",
        shape=_own_item,
        filters=_GIFT_FILTERS | {"state": one_of(nfts.c.state)},
    )


def deals_of(user_id: int) -> Page:
    sides = {"sell": deals.c.seller_id == user_id, "buy": deals.c.buyer_id == user_id}

    def side(values: list[str]) -> Any:
        if values[-1] not in sides:
            raise Invalid(("side", "must be sell or buy"))
        return sides[values[-1]]

    return Page(
        select=select(deals).where(sides["sell"] | sides["buy"]),
        id_column=deals.c.id,
        sorts={"made_at": deals.c.made_at},
        default="-made_at",
        shape=lambda row: _deal(user_id, row),
        filters={"side": side, "source": one_of(deals.c.source)},
    )


def _user(user_id: int) -> Select[Any]:
    return (
        select(
            users.c.id.label("user_id"),
            users.c.language,
            accounts.c.available_nano,
            accounts.c.held_nano,
            users.c.blocked,
            users.c.memo,
            users.c.opened_at.label("registered_at"),
        )
        .join_from(users, accounts, accounts.c.id == users.c.id)
        .where(users.c.id == user_id)
    )


class Views:
    """The routes of the reads."""

    def __init__(self, engine: AsyncEngine, keyring: Keyring) -> None:
        self._engine = engine
        self._keyring = keyring
        self.routes = [
            Route("/v1/listings", self._listings),
            Route("/v1/nfts/{nft_id}", self._nft),
            Route("/v1/users/me", self._me),
            Route("/v1/users/me/nfts", self._mine(items_of)),
            Route("/v1/users/me/deals", self._mine(deals_of)),
        ]

    async def _listings(self, request: Request) -> Response:
        await self._keyring.authenticate(request)
        async with self._engine.connect() as connection:
            return json_response(await read_page(connection, LISTINGS, request.query_params))

    async def _nft(self, request: Request) -> Response:
        await self._keyring.authenticate(request)
        nft_id = integer(request.path_params["nft_id"], "nft_id", 1, BIGINT_MAX)
        statement = _ITEMS.where(nfts.c.id == nft_id, nfts.c.state != NftState.EXTERNAL)
        return await self._one(statement, _item)

    async def _me(self, request: Request) -> Response:
        user_id = reader(await self._keyring.authenticate(request), request.query_params.get("actor"))
        return await self._one(_user(user_id), dict)

    def _mine(self, page_of: Any) -> Any:
        async def view(request: Request) -> Response:
            user_id = reader(await self._keyring.authenticate(request), request.query_params.get("actor"))
            async with self._engine.connect() as connection:
                return json_response(await read_page(connection, page_of(user_id), request.query_params))

        return view

    async def _one(self, statement: Select[Any], shape: Any) -> Response:
        async with self._engine.connect() as connection:
            row = (await connection.execute(statement)).mappings().first()
        if row is None:
            raise not_found()
        return json_response(shape(row))
