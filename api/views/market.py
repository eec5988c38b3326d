"""What everybody may see of the market: listings, items, gifts and their deals, what there is of each trait, floors."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import to_jsonable_python
from sqlalchemy import BigInteger, Select, column, func, literal, literal_column, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from api.openapi.columns import INT64, list_of, object_of, or_null
from api.openapi.operation import Parameter
from api.pages import TEXT, TIME, Page, choice, one_of, read_page, require_known
from api.views.reads import Asked, Told, View, page_schema, shown
from api.views.shapes import GIFT, ITEM, ITEMS_AND_GIFTS, TRAITS, columns, gift_filters, price_filters, text_id
from commands.command import Invalid
from commands.nft.items import NftState
from commands.terms import Integration, Terms
from storage.tables import (
    HOUR,
    Moment,
    auctions,
    deal_items,
    deals,
    floor_points,
    floors,
    gifts,
    nfts,
    presales,
    traits,
)

_LISTED = nfts.c.state == NftState.LISTED.value

LISTINGS = Page(
    rows=select().select_from(nfts).where(_LISTED),
    show=ITEMS_AND_GIFTS.add_columns(*columns(ITEM)),
    ids=(nfts.c.id,),
    sorts={
        "price": nfts.c.price_nano,
        "created_at": nfts.c.listed_at,
        "num": nfts.c.num,
        "model_permille": nfts.c.model_permille,
    },
    default="price",
    filters=gift_filters(nfts) | price_filters(nfts.c.price_nano),
    ordered={name: nfts.c[name] for name in TRAITS},
)


def nft(asked: Asked) -> Select[Any]:
    auction = select(auctions.c.id).where(auctions.c.nft_id == nfts.c.id, auctions.c.closed_at.is_(None))
    return ITEMS_AND_GIFTS.add_columns(*columns(ITEM), auction.scalar_subquery().label("auction_id")).where(
        nfts.c.id == asked.number("nft_id"), nfts.c.state != NftState.EXTERNAL.value
    )


def gift(asked: Asked) -> Select[Any]:
    item = select(text_id(nfts.c.id)).where(nfts.c.gift_id == gifts.c.id, nfts.c.state != NftState.EXTERNAL.value)
    presale = select(presales.c.id).where(presales.c.gift_id == gifts.c.id, presales.c.closed_at.is_(None))
    return select(
        *columns(GIFT), item.scalar_subquery().label("nft_id"), presale.scalar_subquery().label("presale_id")
    ).where(gifts.c.id == asked.number("gift_id"))


def deals_of_gift(asked: Asked) -> Page:
    shown = {"deal_id": deals.c.id, "source": deals.c.source, "price_nano": deals.c.price_nano}
    of_gift = select(deal_items.c.deal_id).where(deal_items.c.gift_id == asked.number("gift_id"))
    return Page(
        rows=select(*columns(shown | {"made_at": deals.c.made_at})).where(deals.c.id.in_(of_gift)),
        show=None,
        ids=(deals.c.id,),
        sorts={"made_at": deals.c.made_at},
        default="-made_at",
    )


# -- traits

_lowest_here = (
    select(nfts.c.price_nano)
    .where(_LISTED, nfts.c.collection == traits.c.name)
    .order_by(nfts.c.price_nano, nfts.c.id)
    .limit(1)
)
_COLLECTIONS = Page(
    rows=select().select_from(traits).where(traits.c.trait == "collection", traits.c["count"] > 0),
    show=select(traits.c.name, traits.c["count"], _lowest_here.scalar_subquery().label("floor_nano")).where(
        traits.c.trait == "collection", traits.c.collection == traits.c.name
    ),
    ids=(traits.c.name,),
    sorts={"name": traits.c.name},
    default="name",
)


async def _collections(connection: AsyncConnection, asked: Asked) -> Any:
    found = await read_page(connection, _COLLECTIONS, asked.query)
    listed = await asked.listed.by_collection(connection) if found["items"] else {}
    return found | {"items": [item | {"listed": listed.get(item["name"], 0)} for item in found["items"]]}


def _told_of_collections(_: Asked) -> Told:
    return Told(_COLLECTIONS.parameters(), page_schema(_COLLECTIONS.item_schema({"listed": INT64})))


collections = View(
    _collections, "Collections, how many items of each are here, on sale, and the lowest price", _told_of_collections
)


def trait(name: str, *more: str) -> Page:
    """The models, patterns or backdrops of all collections or of some. What has one name in several collections is
    counted together, and is as rare as it is where it is rarest."""
    rarest = [func.min(traits.c[name]).label(name) for name in ("permille", *more)]
    counted = func.sum(traits.c["count"]).cast(BigInteger).label("count")
    rows = select(traits.c.name, counted, *rarest).where(traits.c.trait == name, traits.c["count"] > 0)
    return Page(
        rows=rows.group_by(traits.c.name),
        show=None,
        ids=(traits.c.name,),
        sorts={"name": traits.c.name},
        default="name",
        filters={"collection": one_of(traits.c.collection)},
    )


MODELS = trait("model")
PATTERNS = trait("pattern")
BACKDROPS = trait("backdrop", "center_color", "edge_color", "pattern_color", "text_color")


# -- floors

_BUCKET_HOURS = {"1": 1, "7": 6, "30": 24}
"""Of a chart of so many days."""


def _asked_model(asked: Asked, *more: str) -> tuple[str, str | None]:
    require_known(asked.query, {"collection", "model", "actor", *more})
    for name in ("collection", "model"):
        if len(asked.query.getlist(name)) > 1 or "\0" in asked.query.get(name, ""):
            raise Invalid((name, "must be one name"))
    if "collection" not in asked.query:
        raise Invalid(("collection", "name one"))
    return asked.query["collection"], asked.query.get("model")


def fresh(asked: Asked) -> Any:
    """The condition of a floor that is not too old."""
    return floors.c.recorded_at >= func.now() - timedelta(seconds=asked.settings.floor_fresh_seconds)


_NAMED = {"collection": TEXT, "model": TEXT | {"type": ["string", "null"]}}
_POINT = {"at": TIME, "price_nano": INT64}
_OF_COLLECTION = Parameter("collection", TEXT, required=True)
_OF_MODEL = Parameter("model", TEXT, "Of the whole collection when none is named.")


@shown(
    "The lowest price of a model over all markets, or else of its collection",
    object_of(
        _NAMED
        | {
            "price_nano": or_null(INT64),
            "market": {"type": ["string", "null"]},
            "recorded_at": {"type": ["string", "null"], "format": "date-time"},
        }
    ),
    _OF_COLLECTION,
    _OF_MODEL,
)
async def floor(connection: AsyncConnection, asked: Asked) -> Any:
    collection, model = _asked_model(asked)
    lowest = (
        select(floors.c.price_nano, floors.c.market, floors.c.recorded_at)
        .where(floors.c.collection == collection, floors.c.model.in_(["", model or ""]), fresh(asked))
        .order_by(floors.c.model.desc(), floors.c.price_nano, floors.c.market)
        .limit(1)
    )
    row = (await connection.execute(lowest)).mappings().first()
    found = dict(row) if row else dict.fromkeys(("price_nano", "market", "recorded_at"))
    return {"collection": collection, "model": model} | found


@shown(
    "The lowest prices over some days",
    object_of(_NAMED | {"points": list_of(object_of(_POINT))}),
    _OF_COLLECTION,
    _OF_MODEL,
    Parameter("days", {"type": "integer", "enum": [int(days) for days in _BUCKET_HOURS], "default": 1}),
)
async def charts(connection: AsyncConnection, asked: Asked) -> Any:
    """The lowest of each hour is looked up in the index, however often floors are recorded."""
    collection, model = _asked_model(asked, "days")
    days = choice("days", asked.query.get("days", "1"), list(_BUCKET_HOURS))
    origin = literal(datetime.fromtimestamp(0, UTC), Moment)

    def bucket(hours: int, at: Any) -> Any:
        return func.date_bin(timedelta(hours=hours), at, origin)

    size = _BUCKET_HOURS[days]
    newest = bucket(size, func.now())
    first = newest - timedelta(days=int(days)) + timedelta(hours=size)
    series = func.generate_series(first, func.now(), timedelta(hours=1)).table_valued(column("at", Moment), name="hour")
    hour = series.render_derived()
    lowest = (
        select(floor_points.c.price_nano)
        .where(
            floor_points.c.collection == collection,
            floor_points.c.model == (model or ""),
            literal_column(HOUR) == hour.c.at,
        )
        .order_by(floor_points.c.price_nano)
        .limit(1)
        .lateral("lowest")
    )
    at = bucket(size, hour.c.at).label("at")
    points = (
        select(at, func.min(lowest.c.price_nano).label("price_nano"))
        .join_from(hour, lowest, true())
        .group_by(at)
        .order_by(at)
    )
    rows = (await connection.execute(points)).mappings().all()
    return {"collection": collection, "model": model, "points": [dict(row) for row in rows]}


# -- the terms


@shown(
    "Other markets, whose floors are known here",
    page_schema(object_of({name: {"type": "string"} for name in Integration.model_fields})),
)
async def integrations(_: AsyncConnection, asked: Asked) -> Any:
    require_known(asked.query, {"actor"})
    return {"items": [to_jsonable_python(item) for item in asked.settings.integrations], "next": None}


_LIMITS_AND_FEES = [name for name, field in Terms.model_fields.items() if field.annotation is int]


@shown("Every limit and fee", object_of(dict.fromkeys(_LIMITS_AND_FEES, INT64)))
async def settings(_: AsyncConnection, asked: Asked) -> Any:
    require_known(asked.query, {"actor"})
    return {name: getattr(asked.settings, name) for name in _LIMITS_AND_FEES}
