"""Auctions: an item reserved for whoever bids most by the end. Key `nft:<nft_id>`.

Only the leading bid holds money. A change of leader near the end moves it, so nobody wins by bidding last; a raise of
one's own bid does not.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from commands.book import Account, Book
from commands.command import SYSTEM, USER, Envelope, Price, Within
from commands.deals import sell_item
from commands.document import Deadline, Hold, Need, document
from commands.nft.items import (
    ItemCommand,
    Nft,
    NftState,
    end_dependents,
    require_free,
    require_nft,
    require_owner,
    touch_dependents,
)
from commands.outcome import Code, Rejection
from commands.terms import Terms


class AuctionState(StrEnum):
    ACTIVE = "active"
    CANCELLED = "cancelled"
    SOLD = "sold"
    UNSOLD = "unsold"


class BidState(StrEnum):
    LEADING = "leading"
    OUTBID = "outbid"
    RAISED = "raised"
    WON = "won"


@document("auctions", deadline=Deadline("ends_at", "auctions.settle"))
class Auction(NamedTuple):
    """`current_nano` is the leading bid, or the start price when there is none."""

    id: UUID
    nft_id: int
    seller_id: int
    start_nano: int
    current_nano: int
    bid_count: int
    step_bp: int
    fee_bp: int
    ends_at: datetime
    planned_ends_at: datetime
    leader_bid_id: UUID | None
    state: str
    opened_at: datetime
    closed_at: datetime | None


@document("bids", holds=(Hold("bid", "bidder_id", "held_nano"),))
class Bid(NamedTuple):
    """`held_nano` is the amount while the bid leads, else 0. A raised bid's hold passes to the bid that raised it."""

    id: UUID
    auction_id: UUID
    bidder_id: int
    amount_nano: int
    held_nano: int
    state: str
    opened_at: datetime
    closed_at: datetime | None


class Create(
    ItemCommand,
    kind="auctions.create",
    sent_by=USER,
    rejects=(
        Code.NFT_NOT_FOUND,
        Code.NFT_PERMISSION_DENIED,
        Code.AUCTION_ALREADY_EXISTS,
        Code.NFT_LISTED,
        Code.NFT_IN_BUNDLE,
        Code.NFT_NOT_AVAILABLE,
    ),
):
    """Reserve a held item for an auction."""

    start_nano: Price
    step_bp: Annotated[int, Within("auction_step_min_bp", "auction_step_max_bp")] = 1_000
    duration_seconds: Annotated[int, Within("auction_duration_min_seconds", "auction_duration_max_seconds")] = 3_600

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Nft, self.nft_id)
        yield from touch_dependents(book, self.nft_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        nft = require_nft(book, self.nft_id)
        require_owner(nft, envelope.actor)
        if nft.state == NftState.ON_AUCTION:
            raise Rejection(Code.AUCTION_ALREADY_EXISTS)
        if nft.state == NftState.LISTED:
            raise Rejection(Code.NFT_LISTED)
        require_free(nft)

        assert nft.owner_id is not None  # noqa: S101 - found in custody
        ends_at = envelope.accepted_at + timedelta(seconds=self.duration_seconds)
        auction = Auction(
            id=envelope.id,
            nft_id=nft.id,
            seller_id=nft.owner_id,
            start_nano=self.start_nano,
            current_nano=self.start_nano,
            bid_count=0,
            step_bp=self.step_bp,
            fee_bp=book.terms.auction_fee_bp,
            ends_at=ends_at,
            planned_ends_at=ends_at,
            leader_bid_id=None,
            state=AuctionState.ACTIVE,
            opened_at=book.now,
            closed_at=None,
        )
        nft = end_dependents(book, nft, "auctioned")
        book.put(nft._replace(state=NftState.ON_AUCTION, reserved_by=auction.id, reserved_kind="auction"))
        book.put(auction)
        _set_end(book, auction)
        _tell(book, "auction.opened", auction, start_nano=auction.start_nano)
        return {"auction_id": str(auction.id), "ends_at": ends_at}


class _AuctionCommand(ItemCommand):
    """What the commands about an auction that was opened share."""

    auction_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Auction, self.auction_id)

    def auction(self, book: Book) -> Auction:
        auction = book.get(Auction, self.auction_id)
        if auction is None or auction.nft_id != self.nft_id:
            raise Rejection(Code.AUCTION_NOT_FOUND)
        return auction


class Cancel(
    _AuctionCommand,
    kind="auctions.cancel",
    sent_by=USER,
    releases_only=True,
    rejects=(
        Code.AUCTION_NOT_FOUND,
        Code.AUCTION_PERMISSION_DENIED,
        Code.AUCTION_NOT_ACTIVE,
        Code.AUCTION_HAS_BIDS,
        Code.AUCTION_EXPIRED,
    ),
):
    """The seller ends an auction without bids, before its time."""

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield Need(Nft, self.nft_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        auction = self.auction(book)
        if envelope.actor != auction.seller_id:
            raise Rejection(Code.AUCTION_PERMISSION_DENIED)
        _require_active(auction)
        if auction.leader_bid_id is not None:
            raise Rejection(Code.AUCTION_HAS_BIDS)
        _require_in_time(auction, envelope)

        _free(book, auction)
        auction = _end(book, auction, AuctionState.CANCELLED)
        _tell(book, "auction.cancelled", auction, state=auction.state)
        return {"auction_id": str(auction.id)}


class PlaceBid(
    _AuctionCommand,
    kind="auctions.place_bid",
    sent_by=USER,
    rejects=(
        Code.AUCTION_NOT_FOUND,
        Code.AUCTION_NOT_ACTIVE,
        Code.AUCTION_EXPIRED,
        Code.SELF_TRADE_NOT_ALLOWED,
        Code.BID_TOO_LOW,
        Code.INSUFFICIENT_BALANCE,
    ),
):
    """Bid a step above the leading bid or more, be it one's own."""

    amount_nano: Price

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield from _touch_leader(book, self.auction_id)
        if envelope.actor is not None:
            yield Need(Account, envelope.actor)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        auction = self.auction(book)
        _require_active(auction)
        _require_in_time(auction, envelope)
        if envelope.actor == auction.seller_id:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)
        minimum_nano = _lowest_bid(auction)
        if self.amount_nano < minimum_nano:
            raise Rejection(Code.BID_TOO_LOW, minimum_nano=minimum_nano)
        bidder_id, leader = envelope.actor, _leader(book, auction)
        assert bidder_id is not None  # noqa: S101 - sent as a user
        own_nano = leader.held_nano if leader is not None and leader.bidder_id == bidder_id else 0
        book.require_available(bidder_id, self.amount_nano - own_nano)

        if leader is not None:
            _unseat(book, auction, leader, BidState.RAISED if own_nano else BidState.OUTBID)
        amount_nano = self.amount_nano
        bid = Bid(envelope.id, auction.id, bidder_id, amount_nano, amount_nano, BidState.LEADING, book.now, None)
        book.hold(bidder_id, amount_nano - own_nano, "bid", bid.id)
        book.put(bid)
        ends_at = auction.ends_at if own_nano else _extended(auction, envelope.accepted_at, book.terms)
        extended = ends_at > auction.ends_at
        auction = auction._replace(
            current_nano=amount_nano, bid_count=auction.bid_count + 1, leader_bid_id=bid.id, ends_at=ends_at
        )
        book.put(auction)
        _tell(book, "auction.bid_placed", auction, amount_nano=amount_nano)
        if extended:
            _set_end(book, auction)
            _tell(book, "auction.extended", auction, ends_at=ends_at)
        return {"bid_id": str(bid.id), "amount_nano": amount_nano, "ends_at": ends_at}


class Settle(
    _AuctionCommand,
    kind="auctions.settle",
    sent_by=USER | SYSTEM,
    rejects=(Code.AUCTION_NOT_FOUND, Code.AUCTION_NOT_ACTIVE, Code.AUCTION_NOT_EXPIRED),
):
    """The end: the item to the leader and the leading bid to the seller, or the item back to its owner."""

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield Need(Nft, self.nft_id)
        yield from touch_dependents(book, self.nft_id)
        yield from _touch_leader(book, self.auction_id)
        auction = book.peek(Auction, self.auction_id)
        if auction is not None:
            yield Need(Account, auction.seller_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        auction = self.auction(book)
        _require_active(auction)
        if not book.is_due(envelope.accepted_at, auction.ends_at):
            raise Rejection(Code.AUCTION_NOT_EXPIRED)

        leader = _leader(book, auction)
        if leader is None:
            _free(book, auction)
            auction = _end(book, auction, AuctionState.UNSOLD)
            _tell(book, "auction.settled", auction, state=auction.state)
            return {"auction_id": str(auction.id), "state": auction.state}

        price_nano, buyer_id, nft = leader.amount_nano, leader.bidder_id, require_nft(book, auction.nft_id)
        book.put(leader._replace(state=BidState.WON, held_nano=0, closed_at=book.now))
        auction = _end(book, auction, AuctionState.SOLD)
        _tell(book, "auction.settled", auction, state=auction.state, price_nano=price_nano)
        _tell_bidder(book, "bid.won", auction, leader)
        fee = sell_item(book, nft, buyer_id, "auction", price_nano, auction.fee_bp, ("bid", leader.id))
        return {
            "auction_id": str(auction.id),
            "state": auction.state,
            "deal_id": str(envelope.id),
            "buyer_id": buyer_id,
            "price_nano": price_nano,
            "fee_nano": fee,
        }


# -- guards and effects that the commands share


def _require_active(auction: Auction) -> None:
    if auction.state != AuctionState.ACTIVE:
        raise Rejection(Code.AUCTION_NOT_ACTIVE)


def _require_in_time(auction: Auction, envelope: Envelope) -> None:
    if envelope.accepted_at >= auction.ends_at:
        raise Rejection(Code.AUCTION_EXPIRED)


def _touch_leader(book: Book, auction_id: UUID) -> Iterator[Need]:
    auction = book.peek(Auction, auction_id)
    if auction is None or auction.leader_bid_id is None:
        return
    yield Need(Bid, auction.leader_bid_id)
    leader = book.peek(Bid, auction.leader_bid_id)
    if leader is not None:
        yield Need(Account, leader.bidder_id)


def _leader(book: Book, auction: Auction) -> Bid | None:
    return None if auction.leader_bid_id is None else book.get(Bid, auction.leader_bid_id)


def _lowest_bid(auction: Auction) -> int:
    leading_nano = auction.current_nano
    if auction.leader_bid_id is None:
        return leading_nano
    return leading_nano + max(1, leading_nano * auction.step_bp // 10_000)


def _extended(auction: Auction, accepted_at: datetime, terms: Terms) -> datetime:
    """When the auction ends after a change of leader: a window from then, but within the extension, and not sooner."""
    window = timedelta(seconds=terms.auction_window_seconds)
    latest = auction.planned_ends_at + timedelta(seconds=terms.auction_extension_max_seconds)
    return max(auction.ends_at, min(accepted_at + window, latest))


def _unseat(book: Book, auction: Auction, leader: Bid, state: BidState) -> None:
    """The leading bid leads no more; what it holds goes back to its bidder unless that one's next bid takes it over."""
    book.put(leader._replace(state=state, held_nano=0, closed_at=book.now))
    if state is BidState.OUTBID:
        book.release(leader.bidder_id, leader.held_nano, "bid", leader.id)
        _tell_bidder(book, "bid.outbid", auction, leader, released_nano=leader.held_nano)


def _free(book: Book, auction: Auction) -> None:
    """The item is its owner's again, held."""
    nft = require_nft(book, auction.nft_id)
    book.put(nft._replace(state=NftState.HELD, reserved_by=None, reserved_kind=None))


def _end(book: Book, auction: Auction, state: AuctionState) -> Auction:
    auction = auction._replace(state=state, closed_at=book.now)
    book.put(auction)
    return auction


def _set_end(book: Book, auction: Auction) -> None:
    book.set_timer(Settle(nft_id=auction.nft_id, auction_id=auction.id), auction.ends_at)


def _tell(book: Book, name: str, auction: Auction, **fields: Any) -> None:
    """The public, and the seller."""
    ids = {"auction_id": str(auction.id), "nft_id": str(auction.nft_id)}
    book.emit(name, f"nft:{auction.nft_id}", f"auctions:{auction.id}", "market", **ids, **fields)
    book.emit(name, f"user:{auction.seller_id}", **ids, **fields)


def _tell_bidder(book: Book, name: str, auction: Auction, bid: Bid, **fields: Any) -> None:
    book.emit(
        name,
        f"user:{bid.bidder_id}",
        auction_id=str(auction.id),
        bid_id=str(bid.id),
        nft_id=str(auction.nft_id),
        amount_nano=bid.amount_nano,
        **fields,
    )
