"""What is offered and asked for: offers, presales, auctions and bids."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, case, cast, false, func, literal, or_, select

from api.pages import Page, either, one_of
from api.views.reads import Asked
from api.views.shapes import (
    GIFT_OBJECT,
    ITEM_OBJECT,
    columns,
    gift_filters,
    price_filters,
)
from commands.command import BIGINT_MAX
from storage.tables import auctions, bids, gifts, nfts, offers, presales

# -- offers

OFFER_STATES = ("open", "accepted", "withdrawn", "refused", "expired", "closed")


def _offer_sides(user_id: int) -> dict[str, ColumnElement[bool]]:
    return {"received": offers.c.owner_id == user_id, "sent": offers.c.author_id == user_id}


def _offers_shown(user_id: int) -> Select[Any]:
    mine = offers.c.author_id == user_id
    return select(
        offers.c.id.label("offer_id"),
        case((mine, "sent"), else_="received").label("direction"),
        ITEM_OBJECT.label("item"),
        offers.c.price_nano,
        offers.c.counter_nano,
        case((mine, offers.c.held_nano)).label("held_nano"),
        offers.c.expires_at,
        offers.c.state,
    ).select_from(offers.join(nfts, nfts.c.id == offers.c.nft_id).join(gifts, gifts.c.id == nfts.c.gift_id))


def my_offers(asked: Asked) -> Page:
    return Page(
        rows=select().select_from(offers),
        show=_offers_shown(asked.me),
        ids=(offers.c.id,),
        sorts={"updated_at": offers.c.updated_at},
        default="-updated_at",
        spreads={
            "direction": either(_offer_sides(asked.me)),
            "state": either({state: offers.c.state == state for state in OFFER_STATES}),
        },
        defaults={"state": ["open"]},
    )


def offer(asked: Asked) -> Select[Any]:
    return _offers_shown(asked.me).where(offers.c.id == asked.uuid(), or_(*_offer_sides(asked.me).values()))


# -- presales

PRESALE_STATES = ("registered", "listed", "sold", "delivered", "failed", "lapsed", "deleted")
_PRESALE = {"presale_id": presales.c.id, "gift": GIFT_OBJECT} | {
    name: presales.c[name] for name in ("price_nano", "state", "transferable_at", "deadline_at")
}
_PRESALES_AND_GIFTS = presales.join(gifts, gifts.c.id == presales.c.gift_id)
PRESALES = Page(
    rows=select().select_from(presales).where(presales.c.state == "listed"),
    show=select(*columns(_PRESALE)).select_from(_PRESALES_AND_GIFTS),
    ids=(presales.c.id,),
    sorts={
        "price": presales.c.price_nano,
        "created_at": presales.c.opened_at,
        "num": presales.c.num,
        "model_permille": presales.c.model_permille,
    },
    default="price",
    filters=gift_filters(presales) | price_filters(presales.c.price_nano),
)


def presale(asked: Asked) -> Select[Any]:
    return select(*columns(_PRESALE)).select_from(_PRESALES_AND_GIFTS).where(presales.c.id == asked.uuid())


def my_presales(asked: Asked) -> Page:
    roles = {"seller": presales.c.seller_id == asked.me, "buyer": presales.c.buyer_id == asked.me}
    role = case((roles["seller"], "seller"), else_="buyer")
    assert PRESALES.show is not None  # noqa: S101 - above
    return PRESALES._replace(
        rows=select().select_from(presales),
        show=PRESALES.show.add_columns(presales.c.deposit_held_nano, role.label("role")),
        # What has no price comes after what has one.
        sorts={**PRESALES.sorts, "price": func.coalesce(presales.c.price_nano, cast(literal(BIGINT_MAX), BigInteger))},
        filters={**PRESALES.filters, "state": one_of(presales.c.state, PRESALE_STATES)},
        spreads={"role": either(roles)},
    )


# -- auctions

AUCTION_STATES = ("active", "cancelled", "sold", "unsold")
_least_raise = func.greatest(1, auctions.c.current_nano * auctions.c.step_bp // 10_000)
_AUCTION = {
    "auction_id": auctions.c.id,
    "item": ITEM_OBJECT,
    "start_nano": auctions.c.start_nano,
    "current_nano": auctions.c.current_nano,
    "minimum_next_nano": case(
        (auctions.c.bid_count == 0, auctions.c.start_nano), else_=auctions.c.current_nano + _least_raise
    ),
    **{name: auctions.c[name] for name in ("bid_count", "ends_at", "planned_ends_at", "state")},
}
_AUCTIONS_AND_ITEMS = auctions.join(nfts, nfts.c.id == auctions.c.nft_id)
_AUCTIONS_SHOWN = select(*columns(_AUCTION)).select_from(_AUCTIONS_AND_ITEMS.join(gifts, gifts.c.id == nfts.c.gift_id))
AUCTIONS = Page(
    rows=select().select_from(auctions).where(auctions.c.closed_at.is_(None), auctions.c.ends_at > func.now()),
    show=_AUCTIONS_SHOWN,
    ids=(auctions.c.id,),
    sorts={
        "price": auctions.c.current_nano,
        "ends_at": auctions.c.ends_at,
        "created_at": auctions.c.opened_at,
        "num": auctions.c.num,
        "model_permille": auctions.c.model_permille,
    },
    default="price",
    filters=gift_filters(auctions) | price_filters(auctions.c.current_nano),
)


def auction(asked: Asked) -> Select[Any]:
    return _AUCTIONS_SHOWN.where(auctions.c.id == asked.uuid())


def my_auctions(asked: Asked) -> Page:
    bid_on = select(bids.c.auction_id).where(bids.c.bidder_id == asked.me)
    return AUCTIONS._replace(
        rows=select().select_from(auctions),
        filters={**AUCTIONS.filters, "state": one_of(auctions.c.state, AUCTION_STATES)},
        spreads={"role": either({"seller": auctions.c.seller_id == asked.me, "bidder": auctions.c.id.in_(bid_on)})},
    )


def auction_bids(asked: Asked) -> Page:
    shown = {
        "bid_id": bids.c.id,
        "amount_nano": bids.c.amount_nano,
        "at": bids.c.opened_at,
        "mine": false() if asked.user_id is None else bids.c.bidder_id == asked.user_id,
    }
    return Page(
        rows=select(*columns(shown)).where(bids.c.auction_id == asked.uuid()),
        show=None,
        ids=(bids.c.id,),
        sorts={"amount": bids.c.amount_nano},
        default="-amount",
    )
