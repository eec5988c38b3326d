"""Presales that nobody has bought: registered by the feed, priced or deleted by the seller. Key `gift:<gift_id>`."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from commands.book import Book
from commands.command import OPERATOR, SYSTEM, USER, Envelope, Moment, Price, UserId
from commands.document import Need
from commands.nft.items import Gift, GiftFacts, GiftLock, Nft, NftState
from commands.outcome import Code, Rejection
from commands.presale.presales import (
    NamedPresaleCommand,
    Presale,
    PresaleCommand,
    PresaleState,
    close,
    release_deposit,
    require_same_gift,
    require_unsold,
    tell,
    touch_presale_of,
)
from commands.presale.sales import Expire
from commands.terms import Terms, fee_nano
from commands.users import register, touch_user


class Register(
    PresaleCommand,
    kind="presale.register",
    sent_by=SYSTEM,
    rejects=(Code.NFT_ALREADY_IN_CUSTODY, Code.PRESALE_ALREADY_EXISTS, Code.PRESALE_EXPIRED),
):
    """The presale feed saw at Telegram that the seller has the gift, and when it may move."""

    gift: GiftFacts
    seller_id: UserId
    transferable_at: Moment

    def check(self, terms: Terms) -> None:
        require_same_gift(self.gift_id, self.gift)

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_user(self.seller_id)
        yield Need(GiftLock, self.gift_id)
        yield from touch_presale_of(book, self.gift_id)
        if not book.lacks(Need(GiftLock, self.gift_id)):
            yield Need(Nft, self.gift_id, "gift_id")
            yield Need(Gift, self.gift_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        if any(nft.state != NftState.EXTERNAL for nft in book.find(Nft, "gift_id", self.gift_id)):
            raise Rejection(Code.NFT_ALREADY_IN_CUSTODY)
        if book.find(Presale, "gift_id", self.gift_id):
            raise Rejection(Code.PRESALE_ALREADY_EXISTS)
        if self.transferable_at <= envelope.accepted_at:
            raise Rejection(Code.PRESALE_EXPIRED)

        register(book, self.seller_id)
        book.put(self.gift.as_document())
        presale = Presale(
            id=envelope.id,
            gift_id=self.gift_id,
            seller_id=self.seller_id,
            price_nano=None,
            fee_bp=None,
            deposit_bp=None,
            penalty_bp=None,
            deposit_held_nano=0,
            buyer_id=None,
            buyer_held_nano=0,
            transferable_at=self.transferable_at,
            deadline_at=self.transferable_at + timedelta(seconds=book.terms.presale_grace_seconds),
            state=PresaleState.REGISTERED,
            reason=None,
            opened_at=book.now,
            closed_at=None,
        )
        book.put(presale)
        book.set_timer(Expire(gift_id=presale.gift_id, presale_id=presale.id), presale.deadline_at)
        tell(book, presale, "presale.registered")
        return {"presale_id": str(presale.id), "deadline_at": presale.deadline_at}


class SetPrice(
    NamedPresaleCommand,
    kind="presale.set_price",
    sent_by=USER,
    rejects=(
        Code.PRESALE_NOT_FOUND,
        Code.PRESALE_PERMISSION_DENIED,
        Code.PRESALE_ALREADY_BOUGHT,
        Code.PRESALE_NOT_AVAILABLE,
        Code.PRESALE_EXPIRED,
        Code.INSUFFICIENT_BALANCE,
    ),
):
    """List the presale at a price and the rates of this moment, or take it off the market with null."""

    price_nano: Price | None

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        presale = self.presale(book)
        if envelope.actor != presale.seller_id:
            raise Rejection(Code.PRESALE_PERMISSION_DENIED)
        require_unsold(presale)
        if self.price_nano is not None and envelope.accepted_at >= presale.transferable_at:
            raise Rejection(Code.PRESALE_EXPIRED)
        terms = book.terms
        deposit = 0 if self.price_nano is None else fee_nano(self.price_nano, terms.presale_deposit_bp)
        more = deposit - presale.deposit_held_nano
        book.require_available(presale.seller_id, more)

        if more > 0:
            book.hold(presale.seller_id, more, "presale", presale.id)
        else:
            book.release(presale.seller_id, -more, "presale", presale.id)
        is_listed = self.price_nano is not None
        presale = presale._replace(
            price_nano=self.price_nano,
            fee_bp=terms.presale_fee_bp if is_listed else None,
            deposit_bp=terms.presale_deposit_bp if is_listed else None,
            penalty_bp=terms.presale_penalty_bp if is_listed else None,
            deposit_held_nano=deposit,
            state=PresaleState.LISTED if is_listed else PresaleState.REGISTERED,
        )
        book.put(presale)
        tell(book, presale, "presale.priced", "market", price_nano=presale.price_nano)
        return {
            "presale_id": str(presale.id),
            "state": presale.state,
            "price_nano": presale.price_nano,
            "deposit_held_nano": deposit,
        }


class Delete(
    NamedPresaleCommand,
    kind="presale.delete",
    sent_by=USER | OPERATOR,
    releases_only=True,
    rejects=(
        Code.PRESALE_NOT_FOUND,
        Code.PRESALE_PERMISSION_DENIED,
        Code.PRESALE_ALREADY_BOUGHT,
        Code.PRESALE_NOT_AVAILABLE,
    ),
):
    """The seller, or an operator, ends a presale that nobody has bought."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        presale = self.presale(book)
        if envelope.actor not in (None, presale.seller_id):
            raise Rejection(Code.PRESALE_PERMISSION_DENIED)
        require_unsold(presale)

        release_deposit(book, presale)
        close(book, presale, PresaleState.DELETED)
        tell(book, presale, "presale.deleted")
        return {"presale_id": str(presale.id), "released_nano": presale.deposit_held_nano}
