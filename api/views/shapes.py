"""What things look like in answers: columns by the names they are shown under, and objects and lists made of them.

Objects and lists are made by the database, so that one statement reads a page with all that hangs on it.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, ColumnElement, DateTime, Select, cast, func, literal, null, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from api.openapi.columns import BigIdText, Shaped, column_schema, list_of, named, object_of
from api.pages import Filter, at_least, at_most, one_of, one_of_integers
from storage.tables import deal_items, gifts, nfts

Shape = Mapping[str, ColumnElement[Any]]


def columns(shape: Shape) -> list[ColumnElement[Any]]:
    return [column.label(name) for name, column in shape.items()]


def as_object(shape: Shape, title: str = "") -> ColumnElement[Any]:
    """The columns as one JSON object; with a title, a component of the API's description."""
    fields = [part for name, column in shape.items() for part in (literal(name), _as_json(column))]
    schema = object_of({name: column_schema(column) for name, column in shape.items()})
    return func.json_build_object(*fields, type_=Shaped(named(title, schema) if title else schema))


def as_list(found: Select[Any], item: ColumnElement[Any], *order: ColumnElement[Any]) -> ColumnElement[Any]:
    """What the select finds, as a JSON list of the item."""
    listed = func.json_agg(aggregate_order_by(item, *order), type_=JSON)
    schema = list_of(column_schema(item))
    return func.coalesce(
        found.with_only_columns(listed, maintain_column_froms=True).scalar_subquery(), _EMPTY, type_=Shaped(schema)
    )


_EMPTY = cast("[]", JSON)


def text_id(column: ColumnElement[Any]) -> ColumnElement[str]:
    """Ids of nfts, gifts and channels do not fit into the numbers of JSON."""
    return cast(column, BigIdText)


def _as_json(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Times as they are written elsewhere in answers."""
    if isinstance(column.type, DateTime):
        return func.to_char(func.timezone("UTC", column), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    return column


GIFT: Shape = {"id": text_id(gifts.c.id)} | {
    name: gifts.c[name]
    for name in (
        *("collection", "num", "model", "pattern", "backdrop"),
        *("model_permille", "pattern_permille", "backdrop_permille"),
        *("center_color", "edge_color", "pattern_color", "text_color"),
        "slug",
    )
}
GIFT_OBJECT = as_object(GIFT, "Gift")

ITEM: Shape = {
    "nft_id": text_id(nfts.c.id),
    "gift": GIFT_OBJECT,
    "state": nfts.c.state,
    "price_nano": nfts.c.price_nano,
    "promoted_until": cast(null(), DateTime(timezone=True)),
    "received_at": nfts.c.opened_at,
}
ITEM_OBJECT = as_object(ITEM, "Item")
ITEMS_AND_GIFTS = select().select_from(nfts).join(gifts, gifts.c.id == nfts.c.gift_id)

DEAL_ITEMS = select(deal_items.c.deal_id).join_from(deal_items, gifts, gifts.c.id == deal_items.c.gift_id)
DEAL_ITEM: Shape = {
    "nft_id": text_id(deal_items.c.nft_id),
    "gift": GIFT_OBJECT,
    "direction": deal_items.c.direction,
    "quantity": deal_items.c.quantity,
}


TRAITS = ("model", "pattern", "backdrop", "collection")
"""The most telling first: fewest items have one model, most have one collection."""


def gift_filters(table: Any) -> dict[str, Filter]:
    """The gift filters, on a table that has a gift's columns."""
    texts = {name: one_of(table.c[name]) for name in TRAITS}
    return texts | {
        "num": one_of_integers(table.c.num),
        "num_min": at_least(table.c.num),
        "num_max": at_most(table.c.num),
    }


def price_filters(column: ColumnElement[Any]) -> dict[str, Filter]:
    return {"price_min_nano": at_least(column), "price_max_nano": at_most(column)}
