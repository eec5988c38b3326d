"""Items, their sale, offers for them, and auctions."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from tests.commands.model.market import (
    BP,
    TIMER_GRACE,
    Auction,
    Bid,
    Deal,
    Item,
    Market,
    Offer,
    Refused,
    Sent,
    refuse,
    rule,
)

MARKET_FEE_BP, AUCTION_FEE_BP = 100, 500
OFFER_MIN_BP = 5_000
OFFER_LIFE = timedelta(hours=24)
WINDOW, EXTENSION_MAX = timedelta(seconds=300), timedelta(seconds=3_600)


# -- guards


def found(market: Market, nft_id: int) -> Item:
    item = market.items.get(nft_id)
    if item is None or item.state == "external":
        raise Refused("NFT_NOT_FOUND", {"nft_id": str(nft_id)})
    return item


def require_free(item: Item) -> None:
    refuse(item.state == "on_auction", "NFT_ON_AUCTION")
    refuse(item.state == "withdrawing", "NFT_NOT_AVAILABLE", state="withdrawing")


def own_free_item(market: Market, sent: Sent) -> Item:
    item = found(market, sent["nft_id"])
    refuse(item.owner_id != sent.actor, "NFT_PERMISSION_DENIED")
    require_free(item)
    return item


def require_outside(market: Market, sent: Sent, gift_id: int) -> None:
    """The gift may be taken into custody."""
    refuse(sent["message_ref"] in market.intakes, "INTAKE_ALREADY_RECORDED")
    item = market.items.get(sent["nft_id"])
    refuse(item and item.state == "withdrawing", "NFT_RETURN_OPEN")
    refuse(item and (item.state != "external" or item.gift_id != gift_id), "NFT_ALREADY_IN_CUSTODY")
    others = [other for nft_id, other in market.items.items() if nft_id != sent["nft_id"]]
    refuse(any(other.gift_id == gift_id for other in others), "NFT_ALREADY_IN_CUSTODY")


# -- effects


def take_in(market: Market, sent: Sent, owner_id: int) -> None:
    market.gifts[sent["gift"]["id"]] = sent["gift"]
    market.intakes.add(sent["message_ref"])
    market.items[sent["nft_id"]] = Item("held", sent["gift"]["id"], owner_id)


def end_offer(market: Market, offer: Offer, state: str) -> None:
    market.available[offer.author_id] += offer.price_nano
    offer.state = state


def detach(market: Market, nft_id: int, keep: Collection[UUID] = ()) -> None:
    """What hangs on the item ends, and its price is gone."""
    for id_, offer in market.offers.items():
        if offer.is_open and offer.nft_id == nft_id and id_ not in keep:
            end_offer(market, offer, "closed")
    for id_, trade in market.trades.items():
        if trade.is_open and nft_id in market.given[id_] and id_ not in keep:
            close_trade(market, id_, "closed")
    for id_, proposal in market.proposals.items():
        if proposal.is_open and nft_id in market.given[id_] and id_ not in keep:
            proposal.state = "closed"
    market.items[nft_id].price_nano = None


def close_trade(market: Market, trade_id: UUID, state: str, keep: Collection[UUID] = ()) -> None:
    market.trades[trade_id].state = state
    for id_, proposal in market.proposals.items():
        if proposal.trade_id == trade_id and proposal.is_open and id_ not in keep:
            proposal.state = "closed"


def reserve(market: Market, nft_id: int, state: str, document_id: UUID) -> None:
    detach(market, nft_id)
    market.items[nft_id].state, market.items[nft_id].reserved_by = state, document_id


def hand_over(market: Market, nft_id: int, owner_id: int, keep: Collection[UUID] = ()) -> None:
    detach(market, nft_id, keep)
    hold_free(market.items[nft_id], owner_id)


def hold_free(item: Item, owner_id: int | None) -> None:
    item.owner_id, item.state, item.price_nano, item.reserved_by = owner_id, "held", None, None


def held_for(market: Market, nft_id: int, user_id: int) -> int:
    """What the user's own open offer on the item holds."""
    return sum(
        offer.price_nano
        for offer in market.offers.values()
        if offer.is_open and offer.nft_id == nft_id and offer.author_id == user_id
    )


def sell(market: Market, sent: Sent, source: str, nft_id: int, buyer_id: int, price_nano: int, fee_bp: int) -> None:
    """Of money that the buyer has given already."""
    seller_id = market.items[nft_id].owner_id
    assert seller_id is not None
    hand_over(market, nft_id, buyer_id)
    fee = market.pay(seller_id, price_nano, fee_bp)
    market.deals[sent.id] = Deal(source, seller_id, buyer_id, price_nano, fee)


# -- items


@rule("nft.receive")
def receive(market: Market, sent: Sent) -> None:
    gift_id, sender_id = sent["gift"]["id"], sent["sender_id"]
    require_outside(market, sent, gift_id)
    for id_, presale in market.presales.items():
        own = presale.is_open and presale.gift_id == gift_id and presale.seller_id == sender_id
        refuse(own, "GIFT_HAS_PRESALE", presale_id=str(id_))

    market.register(sender_id)
    take_in(market, sent, sender_id)


@rule("nft.set_price")
def set_price(market: Market, sent: Sent) -> None:
    item = own_free_item(market, sent)

    item.price_nano = sent["price_nano"]
    item.state = "held" if item.price_nano is None else "listed"


@rule("nft.buy")
def buy(market: Market, sent: Sent) -> None:
    item = found(market, sent["nft_id"])
    refuse(item.state == "held", "NFT_NOT_ON_SALE")
    require_free(item)
    refuse(item.owner_id == sent.actor, "SELF_TRADE_NOT_ALLOWED")
    price = item.price_nano
    assert price is not None
    refuse(sent["price_nano"] != price, "PRICE_CHANGED", price_nano=price)
    market.require(sent.user, price, held_for(market, sent["nft_id"], sent.user))

    market.available[sent.user] -= price
    sell(market, sent, "sale", sent["nft_id"], sent.user, price, MARKET_FEE_BP)


@rule("nft.transfer")
def transfer(market: Market, sent: Sent) -> None:
    refuse(sent["to_user_id"] not in market.blocked, "USER_NOT_FOUND", user_id=sent["to_user_id"])
    own_free_item(market, sent)
    refuse(sent["to_user_id"] == sent.actor, "SELF_TRADE_NOT_ALLOWED")

    hand_over(market, sent["nft_id"], sent["to_user_id"])


# -- offers


@rule("offers.create")
def create_offer(market: Market, sent: Sent) -> None:
    item, price = found(market, sent["nft_id"]), sent["price_nano"]
    rivals = [offer for offer in market.offers.values() if offer.is_open and offer.nft_id == sent["nft_id"]]
    refuse(any(rival.author_id == sent.actor for rival in rivals), "OFFER_ALREADY_EXISTS")
    refuse(item.state == "held", "NFT_NOT_ON_SALE")
    require_free(item)
    refuse(item.owner_id == sent.actor, "SELF_TRADE_NOT_ALLOWED")
    assert item.price_nano is not None
    assert item.owner_id is not None
    refuse(price * BP < item.price_nano * OFFER_MIN_BP, "OFFER_PRICE_TOO_LOW")
    limit = market.limits.offers_per_item
    refuse(len(rivals) >= limit, "LIMIT_REACHED", limit=limit)
    market.require(sent.user, price)

    market.available[sent.user] -= price
    expires_at = sent.accepted_at + OFFER_LIFE
    market.offers[sent.id] = Offer("open", sent["nft_id"], item.owner_id, sent.user, price, expires_at)
    market.set_timer(expires_at, "offers.expire", nft_id=sent["nft_id"], offer_id=sent.id)


def named_offer(market: Market, sent: Sent) -> Offer:
    offer = market.offers.get(sent["offer_id"])
    if offer is None or offer.nft_id != sent["nft_id"]:
        raise Refused("OFFER_NOT_FOUND", {})
    return offer


def owns(market: Market, offer: Offer, user_id: int | None) -> bool:
    """Whether the user is the owner to whom the offer was made, or the owner by now: H21 names both."""
    return user_id in (offer.owner_id, market.items[offer.nft_id].owner_id)


@rule("offers.withdraw", releases_only=True)
def withdraw_offer(market: Market, sent: Sent) -> None:
    offer = named_offer(market, sent)
    refuse(sent.actor != offer.author_id, "OFFER_PERMISSION_DENIED")
    refuse(not offer.is_open, "OFFER_NOT_OPEN")

    end_offer(market, offer, "withdrawn")


@rule("offers.refuse", releases_only=True)
def refuse_offer(market: Market, sent: Sent) -> None:
    offer = named_offer(market, sent)
    refuse(not owns(market, offer, sent.actor), "OFFER_PERMISSION_DENIED")
    refuse(not offer.is_open, "OFFER_NOT_OPEN")

    end_offer(market, offer, "refused")


@rule("offers.counter")
def counter_offer(market: Market, sent: Sent) -> None:
    offer = named_offer(market, sent)
    refuse(not owns(market, offer, sent.actor), "OFFER_PERMISSION_DENIED")
    refuse(not offer.is_open, "OFFER_NOT_OPEN")
    refuse(sent.accepted_at >= offer.expires_at, "OFFER_EXPIRED")

    offer.counter_nano = sent["price_nano"]
    offer.expires_at = sent.accepted_at + OFFER_LIFE
    market.set_timer(offer.expires_at, "offers.expire", nft_id=offer.nft_id, offer_id=sent["offer_id"])


@rule("offers.accept")
def accept_offer(market: Market, sent: Sent) -> None:
    offer = named_offer(market, sent)
    by_author = sent.actor == offer.author_id
    refuse(not by_author and not owns(market, offer, sent.actor), "OFFER_PERMISSION_DENIED")
    refuse(not offer.is_open, "OFFER_NOT_OPEN")
    agreed = offer.counter_nano if by_author else offer.price_nano
    if agreed is None:
        raise Refused("OFFER_NO_COUNTER", {})
    refuse(sent.accepted_at >= offer.expires_at, "OFFER_EXPIRED")
    refuse(sent["price_nano"] != agreed, "PRICE_CHANGED", price_nano=agreed)
    market.require(offer.author_id, agreed, offer.price_nano)

    end_offer(market, offer, "accepted")
    market.available[offer.author_id] -= agreed
    sell(market, sent, "offer", offer.nft_id, offer.author_id, agreed, MARKET_FEE_BP)


@rule("offers.expire")
def expire_offer(market: Market, sent: Sent) -> None:
    offer = named_offer(market, sent)
    refuse(not offer.is_open, "OFFER_NOT_OPEN")
    refuse(sent.accepted_at < offer.expires_at + TIMER_GRACE, "OFFER_NOT_EXPIRED")

    end_offer(market, offer, "expired")


# -- auctions


@rule("auctions.create")
def create_auction(market: Market, sent: Sent) -> None:
    item, nft_id = found(market, sent["nft_id"]), sent["nft_id"]
    refuse(item.owner_id != sent.actor, "NFT_PERMISSION_DENIED")
    refuse(item.state == "on_auction", "AUCTION_ALREADY_EXISTS")
    refuse(item.state == "listed", "NFT_LISTED")
    require_free(item)

    ends_at = sent.accepted_at + timedelta(seconds=sent["duration_seconds"] or 3_600)
    market.auctions[sent.id] = Auction(
        "active", nft_id, sent.user, sent["start_nano"], sent["step_bp"] or 1_000, ends_at, ends_at
    )
    reserve(market, nft_id, "on_auction", sent.id)
    market.set_timer(ends_at, "auctions.settle", nft_id=nft_id, auction_id=sent.id)


def named_auction(market: Market, sent: Sent) -> Auction:
    auction = market.auctions.get(sent["auction_id"])
    if auction is None or auction.nft_id != sent["nft_id"]:
        raise Refused("AUCTION_NOT_FOUND", {})
    return auction


@rule("auctions.cancel", releases_only=True)
def cancel_auction(market: Market, sent: Sent) -> None:
    auction = named_auction(market, sent)
    refuse(sent.actor != auction.seller_id, "AUCTION_PERMISSION_DENIED")
    refuse(not auction.is_open, "AUCTION_NOT_ACTIVE")
    refuse(auction.leader_bid_id, "AUCTION_HAS_BIDS")
    refuse(sent.accepted_at >= auction.ends_at, "AUCTION_EXPIRED")

    auction.state = "cancelled"
    hold_free(market.items[auction.nft_id], auction.seller_id)


@rule("auctions.place_bid")
def place_bid(market: Market, sent: Sent) -> None:
    auction, amount = named_auction(market, sent), sent["amount_nano"]
    refuse(not auction.is_open, "AUCTION_NOT_ACTIVE")
    refuse(sent.accepted_at >= auction.ends_at, "AUCTION_EXPIRED")
    refuse(sent.actor == auction.seller_id, "SELF_TRADE_NOT_ALLOWED")
    leader = market.bids[auction.leader_bid_id] if auction.leader_bid_id else None
    minimum = auction.start_nano
    if leader:
        minimum = leader.amount_nano + max(1, leader.amount_nano * auction.step_bp // BP)
    refuse(amount < minimum, "BID_TOO_LOW", minimum_nano=minimum)
    own = leader is not None and leader.bidder_id == sent.actor
    market.require(sent.user, amount, leader.amount_nano if leader and own else 0)

    if leader:
        leader.state = "raised" if own else "outbid"
        market.available[leader.bidder_id] += leader.amount_nano
    market.available[sent.user] -= amount
    market.bids[sent.id] = Bid("leading", sent["auction_id"], sent.user, amount)
    auction.leader_bid_id = sent.id
    if not own and sent.accepted_at >= auction.ends_at - WINDOW:
        ends_at = min(sent.accepted_at + WINDOW, auction.planned_ends_at + EXTENSION_MAX)
        if ends_at > auction.ends_at:
            auction.ends_at = ends_at
            market.set_timer(ends_at, "auctions.settle", nft_id=auction.nft_id, auction_id=sent["auction_id"])


@rule("auctions.settle")
def settle_auction(market: Market, sent: Sent) -> None:
    auction = named_auction(market, sent)
    refuse(not auction.is_open, "AUCTION_NOT_ACTIVE")
    refuse(sent.accepted_at < auction.ends_at + TIMER_GRACE, "AUCTION_NOT_EXPIRED")

    if auction.leader_bid_id is None:
        auction.state = "unsold"
        hold_free(market.items[auction.nft_id], auction.seller_id)
        return
    leader = market.bids[auction.leader_bid_id]
    leader.state, auction.state = "won", "sold"
    sell(market, sent, "auction", auction.nft_id, leader.bidder_id, leader.amount_nano, AUCTION_FEE_BP)


def gift_facts(market: Market, nft_id: int) -> dict[str, Any]:
    return market.gifts[market.items[nft_id].gift_id]
