"""Offers: money that a user sets aside for somebody's listed item, until one of them ends it. Key `nft:<nft_id>`.

The owner accepts the price or names a counter-price, which the author may accept; the item's sale or reservation by
any other path closes the offer.
"""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from commands.book import Account, Book
from commands.command import SYSTEM, USER, Envelope, Price
from commands.deals import sell_item
from commands.document import Deadline, Dependence, Hold, Need, Scope, document
from commands.nft.items import (
    NOT_FREE,
    ItemCommand,
    Nft,
    NftState,
    hang,
    require_free,
    require_nft,
    touch_dependents,
)
from commands.outcome import Code, Rejection
from commands.terms import Terms


class OfferState(StrEnum):
    OPEN = "open"
    ACCEPTED = "accepted"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"
    EXPIRED = "expired"
    CLOSED = "closed"


def _touch_offers_of(book: Book, nft_id: int) -> Iterator[Need]:
    yield Need(Offer, nft_id, "nft_id")
    for offer in book.peek_found(Offer, "nft_id", nft_id):
        yield Need(Account, offer.author_id)


def _close_offers_of(book: Book, nft: Nft, reason: str, except_for: Collection[UUID]) -> None:
    """An offer by which the item goes is not open any more, so none needs excepting."""
    for offer in book.find(Offer, "nft_id", nft.id):
        _end(book, offer, OfferState.CLOSED, reason)


@document(
    "offers",
    indexes={"nft_id": Scope.OPEN},
    depends=Dependence(Nft, 1, _touch_offers_of, _close_offers_of),
    holds=(Hold("offer", "author_id", "held_nano"),),
    deadline=Deadline("expires_at", "offers.expire"),
)
class Offer(NamedTuple):
    """`owner_id` is the item's owner while the offer is open; `held_nano` is the price until it closes, then 0."""

    id: UUID
    nft_id: int
    owner_id: int
    author_id: int
    price_nano: int
    counter_nano: int | None
    fee_bp: int
    held_nano: int
    state: str
    reason: str | None
    expires_at: datetime
    updated_at: datetime
    opened_at: datetime
    closed_at: datetime | None


def held_for_offers(book: Book, nft: Nft, user_id: int) -> int:
    """What the user gets back when what depends on the item ends."""
    offers = book.find(Offer, "nft_id", nft.id) if nft.hanging else []
    return sum(offer.held_nano for offer in offers if offer.author_id == user_id)


# -- guards and effects that the commands share


def _require_owner(book: Book, offer: Offer, user_id: int | None) -> None:
    """The owner to whom it was made, or the one the item has by now: a closed offer says so to both."""
    nft = book.get(Nft, offer.nft_id)
    if user_id != offer.owner_id and (nft is None or user_id != nft.owner_id):
        raise Rejection(Code.OFFER_PERMISSION_DENIED)


def _require_open(offer: Offer) -> None:
    if offer.state != OfferState.OPEN:
        raise Rejection(Code.OFFER_NOT_OPEN)


def _require_in_time(offer: Offer, envelope: Envelope) -> None:
    if envelope.accepted_at >= offer.expires_at:
        raise Rejection(Code.OFFER_EXPIRED)


def _end(book: Book, offer: Offer, state: OfferState, reason: str | None = None) -> dict[str, Any]:
    """The offer closes without a deal, and what it holds goes back to its author."""
    released = offer.held_nano
    book.release(offer.author_id, released, "offer", offer.id)
    book.put(offer._replace(state=state, reason=reason, held_nano=0, updated_at=book.now, closed_at=book.now))
    _tell(book, f"offer.{state}", offer, released_nano=released, **({} if reason is None else {"reason": reason}))
    return {"offer_id": str(offer.id), "released_nano": released}


def _set_expiry(book: Book, offer: Offer) -> None:
    book.set_timer(Expire(nft_id=offer.nft_id, offer_id=offer.id), offer.expires_at)


def _tell(book: Book, name: str, offer: Offer, **fields: Any) -> None:
    for user_id in (offer.author_id, offer.owner_id):
        book.emit(name, f"user:{user_id}", offer_id=str(offer.id), nft_id=str(offer.nft_id), **fields)


# -- commands


class Create(
    ItemCommand,
    kind="offers.create",
    sent_by=USER,
    rejects=(
        Code.NFT_NOT_FOUND,
        Code.OFFER_ALREADY_EXISTS,
        Code.NFT_NOT_ON_SALE,
        *NOT_FREE,
        Code.SELF_TRADE_NOT_ALLOWED,
        Code.OFFER_PRICE_TOO_LOW,
        Code.LIMIT_REACHED,
        Code.INSUFFICIENT_BALANCE,
    ),
):
    """Offer a price for a listed item."""

    price_nano: Price

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Nft, self.nft_id)
        if envelope.actor is not None:
            yield Need(Account, envelope.actor)
        if book.peek(Nft, self.nft_id) is not None:
            yield Need(Offer, self.nft_id, "nft_id")

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        nft = require_nft(book, self.nft_id)
        author_id, owner_id = envelope.actor, nft.owner_id
        assert author_id is not None and owner_id is not None  # noqa: PT018,S101
        rivals = book.find(Offer, "nft_id", nft.id)
        if any(rival.author_id == author_id for rival in rivals):
            raise Rejection(Code.OFFER_ALREADY_EXISTS)
        if nft.state == NftState.HELD:
            raise Rejection(Code.NFT_NOT_ON_SALE)
        require_free(nft)
        if author_id == owner_id:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)
        minimum_nano = _lowest_offer(nft, book.terms)
        if self.price_nano < minimum_nano:
            raise Rejection(Code.OFFER_PRICE_TOO_LOW, minimum_nano=minimum_nano)
        if len(rivals) >= book.terms.offers_per_item_max:
            raise Rejection(Code.LIMIT_REACHED, limit=book.terms.offers_per_item_max)
        book.require_available(author_id, self.price_nano)

        offer = Offer(
            id=envelope.id,
            nft_id=nft.id,
            owner_id=owner_id,
            author_id=author_id,
            price_nano=self.price_nano,
            counter_nano=None,
            fee_bp=book.terms.market_fee_bp,
            held_nano=self.price_nano,
            state=OfferState.OPEN,
            reason=None,
            expires_at=envelope.accepted_at + timedelta(seconds=book.terms.offer_life_seconds),
            updated_at=book.now,
            opened_at=book.now,
            closed_at=None,
        )
        book.hold(author_id, offer.held_nano, "offer", offer.id)
        book.put(offer)
        hang(book, nft.id)
        _set_expiry(book, offer)
        _tell(book, "offer.made", offer, price_nano=offer.price_nano, expires_at=offer.expires_at)
        return {"offer_id": str(offer.id), "held_nano": offer.held_nano, "expires_at": offer.expires_at}


def _lowest_offer(nft: Nft, terms: Terms) -> int:
    """The least offer that is offer_min_bp of the listed price or more."""
    assert nft.price_nano is not None  # noqa: S101 - it is listed
    return -(-nft.price_nano * terms.offer_min_bp // 10_000)


class _OfferCommand(ItemCommand):
    """What the commands about an offer that was made share."""

    offer_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Nft, self.nft_id)
        yield Need(Offer, self.offer_id)
        offer = book.peek(Offer, self.offer_id)
        if offer is not None:
            yield Need(Account, offer.author_id)

    def offer(self, book: Book) -> Offer:
        offer = book.get(Offer, self.offer_id)
        if offer is None or offer.nft_id != self.nft_id:
            raise Rejection(Code.OFFER_NOT_FOUND)
        return offer


class Withdraw(
    _OfferCommand,
    kind="offers.withdraw",
    sent_by=USER,
    releases_only=True,
    rejects=(Code.OFFER_NOT_FOUND, Code.OFFER_PERMISSION_DENIED, Code.OFFER_NOT_OPEN),
):
    """The author takes the offer back."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        offer = self.offer(book)
        if envelope.actor != offer.author_id:
            raise Rejection(Code.OFFER_PERMISSION_DENIED)
        _require_open(offer)

        return _end(book, offer, OfferState.WITHDRAWN)


class Refuse(
    _OfferCommand,
    kind="offers.refuse",
    sent_by=USER,
    releases_only=True,
    rejects=(Code.OFFER_NOT_FOUND, Code.OFFER_PERMISSION_DENIED, Code.OFFER_NOT_OPEN),
):
    """The owner turns the offer down."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        offer = self.offer(book)
        _require_owner(book, offer, envelope.actor)
        _require_open(offer)

        return _end(book, offer, OfferState.REFUSED)


class Counter(
    _OfferCommand,
    kind="offers.counter",
    sent_by=USER,
    rejects=(Code.OFFER_NOT_FOUND, Code.OFFER_PERMISSION_DENIED, Code.OFFER_NOT_OPEN, Code.OFFER_EXPIRED),
):
    """The owner names another price, in the place of an earlier one; the hold stays as it is."""

    price_nano: Price

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        offer = self.offer(book)
        _require_owner(book, offer, envelope.actor)
        _require_open(offer)
        _require_in_time(offer, envelope)

        expires_at = envelope.accepted_at + timedelta(seconds=book.terms.offer_life_seconds)
        offer = offer._replace(counter_nano=self.price_nano, expires_at=expires_at, updated_at=book.now)
        book.put(offer)
        _set_expiry(book, offer)
        _tell(
            book,
            "offer.countered",
            offer,
            price_nano=offer.price_nano,
            counter_nano=offer.counter_nano,
            expires_at=expires_at,
        )
        return {"offer_id": str(offer.id), "counter_nano": offer.counter_nano, "expires_at": expires_at}


class Accept(
    _OfferCommand,
    kind="offers.accept",
    sent_by=USER,
    rejects=(
        Code.OFFER_NOT_FOUND,
        Code.OFFER_PERMISSION_DENIED,
        Code.OFFER_NOT_OPEN,
        Code.OFFER_NO_COUNTER,
        Code.OFFER_EXPIRED,
        Code.PRICE_CHANGED,
        Code.INSUFFICIENT_BALANCE,
    ),
):
    """The owner agrees to the offer's price, or the author to the counter-price: the item changes hands."""

    price_nano: Price

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield from touch_dependents(book, self.nft_id)
        offer = book.peek(Offer, self.offer_id)
        if offer is not None:
            yield Need(Account, offer.owner_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        offer = self.offer(book)
        agreed_nano: int | None = offer.price_nano
        if envelope.actor == offer.author_id:
            agreed_nano = offer.counter_nano
        else:
            _require_owner(book, offer, envelope.actor)
        _require_open(offer)
        if agreed_nano is None:
            raise Rejection(Code.OFFER_NO_COUNTER)
        _require_in_time(offer, envelope)
        if self.price_nano != agreed_nano:
            raise Rejection(Code.PRICE_CHANGED, price_nano=agreed_nano)
        # Only a counter-price above the offer takes more than is held already.
        book.require_available(offer.author_id, agreed_nano - offer.held_nano)

        if agreed_nano > offer.held_nano:
            book.hold(offer.author_id, agreed_nano - offer.held_nano, "offer", offer.id)
        released = max(0, offer.held_nano - agreed_nano)
        book.release(offer.author_id, released, "offer", offer.id)
        book.put(offer._replace(state=OfferState.ACCEPTED, held_nano=0, updated_at=book.now, closed_at=book.now))
        _tell(book, "offer.accepted", offer, **({"released_nano": released} if released else {}))
        nft = require_nft(book, offer.nft_id)
        fee = sell_item(book, nft, offer.author_id, "offer", agreed_nano, offer.fee_bp, ("offer", offer.id))
        return {"deal_id": str(envelope.id), "price_nano": agreed_nano, "fee_nano": fee}


class Expire(
    _OfferCommand,
    kind="offers.expire",
    sent_by=SYSTEM,
    rejects=(Code.OFFER_NOT_FOUND, Code.OFFER_NOT_OPEN, Code.OFFER_NOT_EXPIRED),
):
    """The offer's time is over: the timer of its last change."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        offer = self.offer(book)
        _require_open(offer)
        if not book.is_due(envelope.accepted_at, offer.expires_at):
            raise Rejection(Code.OFFER_NOT_EXPIRED)

        return {"released_nano": _end(book, offer, OfferState.EXPIRED)["released_nano"]}
