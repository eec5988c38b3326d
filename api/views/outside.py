"""Telegram accounts, and channels with their gifts."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Text, and_, case, cast, func, literal, or_, select

from api.pages import Page, either, one_of
from api.views.mine import request_state
from api.views.reads import Asked
from api.views.shapes import GIFT_OBJECT, as_list, as_object, columns, gift_filters, price_filters, text_id
from commands.command import BIGINT_MAX
from storage.tables import (
    account_channels,
    account_gifts,
    channel_gifts,
    channel_purchases,
    channels,
    gifts,
    telegram_accounts,
)

# -- Telegram accounts

_ACCOUNT = {"account_id": telegram_accounts.c.id, "phone": func.right(telegram_accounts.c.phone, 4, type_=Text)} | {
    name: telegram_accounts.c[name]
    for name in ("name", "state", "telegram_id", "stars", "premium", "connected_at", "reason")
}


def my_accounts(asked: Asked) -> Page:
    return Page(
        rows=select(*columns(_ACCOUNT)).where(telegram_accounts.c.user_id == asked.me),
        show=None,
        ids=(telegram_accounts.c.id,),
        sorts={"opened_at": telegram_accounts.c.opened_at},
        default="opened_at",
    )


def account(asked: Asked) -> Select[Any]:
    return select(*columns(_ACCOUNT)).where(
        telegram_accounts.c.id == asked.uuid(), telegram_accounts.c.user_id == asked.me
    )


def gifts_of_accounts(asked: Asked) -> Page:
    """What the last snapshots of my accounts saw; never tradable here."""
    snapshots = account_gifts.join(telegram_accounts, telegram_accounts.c.id == account_gifts.c.account_id)
    return Page(
        rows=select().select_from(snapshots).where(telegram_accounts.c.user_id == asked.me),
        show=select(account_gifts.c.account_id, GIFT_OBJECT.label("gift")).select_from(
            snapshots.join(gifts, gifts.c.id == account_gifts.c.gift_id)
        ),
        ids=(account_gifts.c.account_id, account_gifts.c.gift_id),
        sorts={"opened_at": telegram_accounts.c.opened_at},
        default="opened_at",
    )


def channels_of_account(asked: Asked) -> Page:
    shown = {"channel_id": text_id(account_channels.c.channel_id)} | {
        name: account_channels.c[name] for name in ("title", "username")
    }
    snapshots = account_channels.join(telegram_accounts, telegram_accounts.c.id == account_channels.c.account_id)
    return Page(
        rows=select(*columns(shown))
        .select_from(snapshots)
        .where(account_channels.c.account_id == asked.uuid(), telegram_accounts.c.user_id == asked.me),
        show=None,
        ids=(account_channels.c.channel_id,),
        sorts={"opened_at": telegram_accounts.c.opened_at},
        default="opened_at",
    )


# -- channels

CHANNEL_STATES = ("checking", "unlisted", "listed", "selling", "refused")
_GONE = ("sold", "deleted")
_PURCHASE_STATES = ("requested", "confirmed", "failed")

_gifts_here = select(channel_gifts.c.gift_id).where(channel_gifts.c.channel_id == channels.c.id)
_CHANNEL = {
    "channel_id": text_id(channels.c.id),
    "title": channels.c.title,
    "username": channels.c.username,
    "price_nano": channels.c.price_nano,
    "gifts": as_list(
        _gifts_here.join(gifts, gifts.c.id == channel_gifts.c.gift_id),
        as_object({"gift": GIFT_OBJECT, "quantity": channel_gifts.c.quantity}),
        channel_gifts.c.gift_id,
    ),
    "state": channels.c.state,
}
CHANNELS = Page(
    rows=select().select_from(channels).where(channels.c.state == "listed"),
    show=select(*columns(_CHANNEL)),
    ids=(channels.c.id,),
    sorts={"price": channels.c.price_nano, "created_at": channels.c.opened_at},
    default="price",
    filters=price_filters(channels.c.price_nano),
    some=(_gifts_here, gift_filters(channel_gifts)),
)


def channel(asked: Asked) -> Select[Any]:
    """What is for sale, and what is one's own."""
    visible: ColumnElement[bool] = channels.c.state.in_(["listed", "selling"])
    if asked.user_id is not None:
        visible = or_(visible, and_(channels.c.owner_id == asked.user_id, channels.c.state.not_in(_GONE)))
    return select(*columns(_CHANNEL)).where(channels.c.id == asked.number("id"), visible)


def my_channels(asked: Asked) -> Page:
    return Page(
        rows=select().select_from(channels).where(channels.c.owner_id == asked.me, channels.c.state.not_in(_GONE)),
        show=select(*columns(_CHANNEL), channels.c.account_id, channels.c.reason),
        ids=(channels.c.id,),
        # Those without a price come last, as items do.
        sorts={
            "created_at": channels.c.opened_at,
            "price": func.coalesce(channels.c.price_nano, cast(literal(BIGINT_MAX), BigInteger)),
        },
        default="created_at",
        filters={"state": one_of(channels.c.state, CHANNEL_STATES)},
    )


def my_purchases(asked: Asked) -> Page:
    table = channel_purchases.c
    roles: dict[str, ColumnElement[bool]] = {"buyer": table.buyer_id == asked.me, "seller": table.seller_id == asked.me}
    shown = {
        "purchase_id": table.id,
        "channel_id": text_id(table.channel_id),
        "role": case((roles["buyer"], "buyer"), else_="seller"),
        "price_nano": table.price_nano,
        "state": table.state,
        "request_state": request_state(table.id),
        "reason": table.reason,
    }
    return Page(
        rows=select().select_from(channel_purchases),
        show=select(*columns(shown)),
        ids=(table.id,),
        sorts={"created_at": table.opened_at},
        default="-created_at",
        filters={"state": one_of(table.state, _PURCHASE_STATES)},
        spreads={"role": either(roles)},
    )
