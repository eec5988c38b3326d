"""Swaps: trades, which give items for others, and the proposals made to them."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Numeric,
    Select,
    Text,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    type_coerce,
)

from api.openapi.columns import Shaped, list_of, object_of
from api.openapi.operation import Parameter
from api.pages import TEXT, UUID_TEXT, Condition, Filter, Page, document_id, either, one_of
from api.views.market import fresh
from api.views.reads import Asked
from api.views.shapes import ITEM_OBJECT, as_list, columns, gift_filters
from storage.tables import floors, gifts, nfts, proposal_items, proposals, trade_items, trades

TRADE_STATES = ("open", "accepted", "deleted", "closed")
_REQUIREMENTS = Shaped(list_of(object_of({"collection": {"type": "string"}, "backdrop": {"type": ["string", "null"]}})))
PROPOSAL_STATES = ("open", "accepted", "withdrawn", "declined", "closed")


def _items(of: Any, document: ColumnElement[Any]) -> ColumnElement[Any]:
    """The items of a trade or proposal, `of` being the table of them."""
    [parent] = [column for column in of.primary_key if column.name != "nft_id"]
    found = select(of.c.nft_id).join_from(of, nfts, nfts.c.id == of.c.nft_id).join(gifts, gifts.c.id == nfts.c.gift_id)
    return as_list(found.where(parent == document), ITEM_OBJECT, of.c.nft_id)


def _parties(user_id: int) -> Condition:
    return or_(trades.c.owner_id == user_id, trades.c.receiver_id == user_id)


def _trades_shown(asked: Asked) -> Select[Any]:
    is_party = literal(value=False) if asked.user_id is None else _parties(asked.user_id)
    shown = {
        "trade_id": trades.c.id,
        "items": _items(trade_items, trades.c.id),
        "requirements": type_coerce(trades.c.requirements, _REQUIREMENTS),
        "private": trades.c.receiver_id.is_not(None),
        "receiver_id": case((is_party, trades.c.receiver_id)),
        "state": trades.c.state,
    }
    return select(*columns(shown))


_given = select(trade_items.c.nft_id).where(trade_items.c.trade_id == trades.c.id, trade_items.c.closed_at.is_(None))


def _wants(names: ColumnElement[Any]) -> Filter:
    """Trades with a requirement that asks for any of the names."""
    return Filter(lambda _, values: names.op("&&")(literal(values, ARRAY(Text))), TEXT)


_SORTS = {"created_at": trades.c.opened_at}


def public_trades(asked: Asked) -> Page:
    return Page(
        rows=select().select_from(trades).where(trades.c.closed_at.is_(None), trades.c.receiver_id.is_(None)),
        show=_trades_shown(asked),
        ids=(trades.c.id,),
        sorts=_SORTS,
        default="-created_at",
        filters={
            "wants_collection": _wants(trades.c.wants_collections),
            "wants_backdrop": _wants(trades.c.wants_backdrops),
        },
        some=(_given, gift_filters(trade_items)),
    )


def my_trades(asked: Asked) -> Page:
    return Page(
        rows=select().select_from(trades).where(trades.c.owner_id == asked.me),
        show=_trades_shown(asked),
        ids=(trades.c.id,),
        sorts=_SORTS,
        default="-created_at",
        filters={"state": one_of(trades.c.state, TRADE_STATES)},
    )


def personal_trades(asked: Asked) -> Page:
    """Open trades that are addressed to me alone."""
    addressed = (trades.c.receiver_id == asked.me, trades.c.closed_at.is_(None))
    return my_trades(asked)._replace(rows=select().select_from(trades).where(*addressed), filters={})


def _fee_now(asked: Asked) -> ColumnElement[Any]:
    """What the trade's owner would pay now for accepting the proposal: on the floor of each item received."""

    def lowest(model: ColumnElement[Any]) -> ColumnElement[Any]:
        of_collection = floors.c.collection == nfts.c.collection
        found = select(func.min(floors.c.price_nano)).where(of_collection, floors.c.model == model, fresh(asked))
        return found.correlate(nfts).scalar_subquery()

    floor_nano = func.coalesce(lowest(nfts.c.model), lowest(literal("")), 0)
    # A feed may tell of floors above all prices here: times a rate they need not fit 64 bits.
    fees = func.sum(func.div(floor_nano.cast(Numeric) * trades.c.fee_bp, 10_000)).cast(BigInteger)
    items = select(fees).join_from(proposal_items, nfts, nfts.c.id == proposal_items.c.nft_id)
    return items.where(proposal_items.c.proposal_id == proposals.c.id).correlate(proposals, trades).scalar_subquery()


OF_PROPOSAL = Parameter(
    "proposal_id", UUID_TEXT, "Tells the trade's owner what accepting this proposal would cost now."
)


def trade(asked: Asked) -> Select[Any]:
    """With `proposal_id`, the trade's owner is told what accepting that proposal would cost now."""
    public = trades.c.receiver_id.is_(None)
    if asked.user_id is None:
        return _trades_shown(asked).where(trades.c.id == asked.uuid(), public)
    shown = _trades_shown(asked).where(trades.c.id == asked.uuid(), or_(public, _parties(asked.user_id)))
    if "proposal_id" not in asked.query:
        return shown
    proposed = (
        select(_fee_now(asked))
        .where(
            proposals.c.id == document_id("proposal_id", asked.query["proposal_id"]),
            proposals.c.trade_id == trades.c.id,
            trades.c.owner_id == asked.user_id,
        )
        .correlate(trades)
    )
    return shown.add_columns(proposed.scalar_subquery().label("fee_estimate_nano"))


# -- proposals


def _of_trade(name: str, values: list[str]) -> Condition:
    return proposals.c.trade_id.in_([document_id(name, value) for value in values])


def my_proposals(asked: Asked) -> Page:
    sides = {"received": proposals.c.owner_id == asked.me, "sent": proposals.c.author_id == asked.me}
    shown = {
        "trade_id": proposals.c.trade_id,
        "proposal_id": proposals.c.id,
        "direction": case((sides["sent"], "sent"), else_="received"),
        "items": _items(proposal_items, proposals.c.id),
        "state": proposals.c.state,
        "fee_nano": case((and_(sides["received"], proposals.c.state == "open"), _fee_now(asked))),
    }
    return Page(
        rows=select().select_from(proposals),
        show=select(*columns(shown)).select_from(proposals.join(trades, trades.c.id == proposals.c.trade_id)),
        ids=(proposals.c.id,),
        sorts={"created_at": proposals.c.opened_at},
        default="-created_at",
        filters={"trade_id": Filter(_of_trade, UUID_TEXT)},
        spreads={
            "direction": either(sides),
            "state": either({state: proposals.c.state == state for state in PROPOSAL_STATES}),
        },
        defaults={"state": ["open"]},
    )
