"""Trades, proposals and the floors that their fee is taken from."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from tests.commands.model.items import close_trade, found, gift_facts, hand_over, held_for, require_free
from tests.commands.model.market import BP, Deal, Item, Market, Proposal, Refused, Sent, Trade, refuse, rule

TRADE_FEE_BP = 200
FLOOR_FRESH = timedelta(seconds=86_400)
CLOCK_SKEW = timedelta(seconds=60)


@rule("market.record_floor")
def record_floor(market: Market, sent: Sent) -> None:
    """Of one market: the test knows no other."""
    place, observed_at = (sent["collection"], sent["model"] or ""), sent["observed_at"]
    known = market.floors.get(place)
    refuse(known and observed_at <= known[1], "FLOOR_OUT_OF_DATE")
    refuse(observed_at > sent.accepted_at + CLOCK_SKEW, "FLOOR_OUT_OF_DATE")

    market.floors[place] = sent["price_nano"], observed_at


def floor_of(market: Market, sent: Sent, nft_id: int) -> int:
    gift = gift_facts(market, nft_id)
    for model in (gift["model"], ""):
        price, recorded_at = market.floors.get((gift["collection"], model), (0, None))
        if recorded_at and recorded_at >= sent.now - FLOOR_FRESH:
            return price
    return 0


def own_items(market: Market, sent: Sent) -> list[Item]:
    items = [found(market, nft_id) for nft_id in sent["nft_ids"]]
    others = [str(nft_id) for nft_id in sent["nft_ids"] if market.items[nft_id].owner_id != sent.actor]
    refuse(others, "NFTS_NOT_OWNED", nft_ids=others)
    return items


def refuse_crowded(market: Market, sent: Sent) -> None:
    """No item is in too many open trades and proposals."""
    open_ones = {id_ for id_, trade in market.trades.items() if trade.is_open}
    open_ones |= {id_ for id_, proposal in market.proposals.items() if proposal.is_open}
    limit = market.limits.trades_per_item
    for nft_id in sent["nft_ids"]:
        refuse(sum(nft_id in market.given[id_] for id_ in open_ones) >= limit, "LIMIT_REACHED", limit=limit)


def best_match(market: Market, requirements: Sequence[dict[str, Any]], nft_ids: Sequence[int]) -> int:
    """How many requirements can have an item of their own: every way is tried."""
    if not requirements:
        return 0
    first, rest = requirements[0], requirements[1:]
    ways = [best_match(market, rest, nft_ids)]
    for nft_id in nft_ids:
        gift = gift_facts(market, nft_id)
        if gift["collection"] == first["collection"] and first.get("backdrop") in (None, gift["backdrop"]):
            ways.append(1 + best_match(market, rest, [other for other in nft_ids if other != nft_id]))
    return max(ways)


def refuse_unmatched(market: Market, trade_id: UUID, nft_ids: Sequence[int]) -> None:
    wanted = market.wanted[trade_id]
    missing = len(wanted) - best_match(market, wanted, nft_ids)
    refuse(missing, "TRADE_REQUIREMENTS_NOT_MET", unmatched=missing)


@rule("trades.create")
def create(market: Market, sent: Sent) -> None:
    receiver_id = sent["receiver_id"]
    refuse(receiver_id is not None and receiver_id not in market.blocked, "USER_NOT_FOUND", user_id=receiver_id)
    for item in own_items(market, sent):
        require_free(item)
    refuse(receiver_id == sent.actor, "SELF_TRADE_NOT_ALLOWED")
    refuse_crowded(market, sent)

    market.trades[sent.id] = Trade("open", sent.user, receiver_id)
    market.given[sent.id] = list(sent["nft_ids"])
    market.wanted[sent.id] = list(sent["requirements"])


def named_trade(market: Market, sent: Sent) -> Trade:
    """To strangers a private trade does not exist."""
    trade = market.trades.get(sent["trade_id"])
    if trade is None or (trade.receiver_id is not None and sent.actor not in (trade.owner_id, trade.receiver_id)):
        raise Refused("TRADE_NOT_FOUND", {})
    return trade


def named_proposal(market: Market, sent: Sent) -> Proposal:
    proposal = market.proposals.get(sent["proposal_id"])
    if proposal is None or proposal.trade_id != sent["trade_id"]:
        raise Refused("PROPOSAL_NOT_FOUND", {})
    return proposal


@rule("trades.delete", releases_only=True)
def delete(market: Market, sent: Sent) -> None:
    trade = named_trade(market, sent)
    refuse(sent.actor not in (trade.owner_id, trade.receiver_id), "TRADE_PERMISSION_DENIED")
    refuse(not trade.is_open, "TRADE_NOT_OPEN")

    close_trade(market, sent["trade_id"], "deleted")


@rule("trades.propose")
def propose(market: Market, sent: Sent) -> None:
    trade, items = named_trade(market, sent), own_items(market, sent)
    rivals = [one for one in market.proposals.values() if one.is_open and one.trade_id == sent["trade_id"]]
    refuse(any(rival.author_id == sent.actor for rival in rivals), "PROPOSAL_ALREADY_EXISTS")
    refuse(not trade.is_open, "TRADE_NOT_OPEN")
    for item in items:
        require_free(item)
    refuse(sent.actor == trade.owner_id, "SELF_TRADE_NOT_ALLOWED")
    refuse_unmatched(market, sent["trade_id"], sent["nft_ids"])
    limit = market.limits.proposals_per_trade
    refuse(len(rivals) >= limit, "LIMIT_REACHED", limit=limit)
    refuse_crowded(market, sent)

    market.proposals[sent.id] = Proposal("open", sent["trade_id"], sent.user)
    market.given[sent.id] = list(sent["nft_ids"])


@rule("trades.withdraw_proposal", releases_only=True)
def withdraw_proposal(market: Market, sent: Sent) -> None:
    named_trade(market, sent)
    proposal = named_proposal(market, sent)
    refuse(sent.actor != proposal.author_id, "TRADE_PERMISSION_DENIED")
    refuse(not proposal.is_open, "PROPOSAL_NOT_OPEN")

    proposal.state = "withdrawn"


@rule("trades.decline", releases_only=True)
def decline(market: Market, sent: Sent) -> None:
    trade, proposal = named_trade(market, sent), named_proposal(market, sent)
    refuse(sent.actor != trade.owner_id, "TRADE_PERMISSION_DENIED")
    refuse(not proposal.is_open, "PROPOSAL_NOT_OPEN")

    proposal.state = "declined"


@rule("trades.accept")
def accept(market: Market, sent: Sent) -> None:
    trade, proposal = named_trade(market, sent), named_proposal(market, sent)
    refuse(sent.actor != trade.owner_id, "TRADE_PERMISSION_DENIED")
    refuse(not trade.is_open, "TRADE_NOT_OPEN")
    refuse(not proposal.is_open, "PROPOSAL_NOT_OPEN")
    swap = (sent["trade_id"], sent["proposal_id"])
    given, received = market.given[swap[0]], market.given[swap[1]]
    fee = sum(floor_of(market, sent, nft_id) * TRADE_FEE_BP // BP for nft_id in received)
    fee_max = sent["fee_max_nano"]
    refuse(fee_max is not None and fee > fee_max, "FEE_TOO_HIGH", fee_nano=fee)
    refuse_unmatched(market, swap[0], received)
    market.require(trade.owner_id, fee, sum(held_for(market, nft_id, trade.owner_id) for nft_id in received))

    for nft_id in given:
        hand_over(market, nft_id, proposal.author_id, swap)
    for nft_id in received:
        hand_over(market, nft_id, trade.owner_id, swap)
    close_trade(market, swap[0], "accepted", swap)
    proposal.state = "accepted"
    market.available[trade.owner_id] -= fee
    market.platform["fees"] += fee
    market.deals[sent.id] = Deal("trade", trade.owner_id, proposal.author_id, None, fee)
