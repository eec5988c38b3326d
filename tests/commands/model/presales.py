"""Presales: gifts that cannot move yet."""

from datetime import timedelta

from tests.commands.model.items import require_outside, take_in
from tests.commands.model.market import BP, TIMER_GRACE, Deal, Market, Presale, Refused, Sent, deposit_of, refuse, rule

PRESALE_FEE_BP, PENALTY_BP = 0, 1_000
DELIVERY = timedelta(hours=48)


@rule("presale.register")
def register(market: Market, sent: Sent) -> None:
    gift_id = sent["gift_id"]
    in_custody = any(item.is_open and item.gift_id == gift_id for item in market.items.values())
    refuse(in_custody, "NFT_ALREADY_IN_CUSTODY")
    known = any(presale.is_open and presale.gift_id == gift_id for presale in market.presales.values())
    refuse(known, "PRESALE_ALREADY_EXISTS")
    refuse(sent["transferable_at"] <= sent.accepted_at, "PRESALE_EXPIRED")

    market.register(sent["seller_id"])
    market.gifts[gift_id] = sent["gift"]
    deadline_at = sent["transferable_at"] + DELIVERY
    market.presales[sent.id] = Presale("registered", gift_id, sent["seller_id"], sent["transferable_at"], deadline_at)
    market.set_timer(deadline_at, "presale.expire", gift_id=gift_id, presale_id=sent.id)


def named(market: Market, sent: Sent) -> Presale:
    presale = market.presales.get(sent["presale_id"])
    if presale is None or presale.gift_id != sent["gift_id"]:
        raise Refused("PRESALE_NOT_FOUND", {})
    return presale


def release_deposit(market: Market, presale: Presale) -> None:
    if presale.state in ("listed", "sold"):
        market.available[presale.seller_id] += deposit_of(presale.price)


@rule("presale.set_price")
def set_price(market: Market, sent: Sent) -> None:
    presale, price = named(market, sent), sent["price_nano"]
    refuse(sent.actor != presale.seller_id, "PRESALE_PERMISSION_DENIED")
    refuse(presale.state == "sold", "PRESALE_ALREADY_BOUGHT")
    refuse(not presale.is_open, "PRESALE_NOT_AVAILABLE")
    refuse(price is not None and sent.accepted_at >= presale.transferable_at, "PRESALE_EXPIRED")
    old, new = deposit_of(presale.price), deposit_of(price or 0)
    if new > old:
        market.require(sent.user, new, old)

    market.available[sent.user] += old - new
    presale.price_nano = price
    presale.state = "registered" if price is None else "listed"


@rule("presale.delete", releases_only=True)
def delete(market: Market, sent: Sent) -> None:
    presale = named(market, sent)
    refuse(sent.actor not in (None, presale.seller_id), "PRESALE_PERMISSION_DENIED")
    refuse(presale.state == "sold", "PRESALE_ALREADY_BOUGHT")
    refuse(not presale.is_open, "PRESALE_NOT_AVAILABLE")

    release_deposit(market, presale)
    presale.state = "deleted"


@rule("presale.buy")
def buy(market: Market, sent: Sent) -> None:
    presale = named(market, sent)
    refuse(presale.state == "sold", "PRESALE_ALREADY_BOUGHT")
    refuse(presale.state != "listed", "PRESALE_NOT_AVAILABLE")
    refuse(sent.accepted_at >= presale.transferable_at, "PRESALE_EXPIRED")
    refuse(sent.actor == presale.seller_id, "SELF_TRADE_NOT_ALLOWED")
    refuse(sent["price_nano"] != presale.price_nano, "PRICE_CHANGED", price_nano=presale.price_nano)
    market.require(sent.user, presale.price)

    market.available[sent.user] -= presale.price
    presale.state, presale.buyer_id = "sold", sent.user


@rule("presale.deliver")
def deliver(market: Market, sent: Sent) -> None:
    presale = named(market, sent)
    refuse(sent["sender_id"] != presale.seller_id, "PRESALE_PERMISSION_DENIED")
    require_outside(market, sent, presale.gift_id)
    refuse(not presale.is_open, "PRESALE_NOT_AVAILABLE")

    release_deposit(market, presale)
    if presale.buyer_id is None:
        take_in(market, sent, presale.seller_id)
    else:
        take_in(market, sent, presale.buyer_id)
        fee = market.pay(presale.seller_id, presale.price, PRESALE_FEE_BP)
        market.deals[sent.id] = Deal("presale", presale.seller_id, presale.buyer_id, presale.price, fee)
    presale.state = "delivered"


@rule("presale.expire")
def expire(market: Market, sent: Sent) -> None:
    presale = named(market, sent)
    refuse(not presale.is_open, "PRESALE_NOT_AVAILABLE")
    refuse(sent.accepted_at < presale.deadline_at + TIMER_GRACE, "PRESALE_NOT_EXPIRED")

    if presale.buyer_id is None:
        release_deposit(market, presale)
        presale.state = "lapsed"
        return
    penalty = presale.price * PENALTY_BP // BP
    market.available[presale.buyer_id] += presale.price + penalty
    market.platform["fees"] += deposit_of(presale.price) - penalty
    presale.state = "failed"
