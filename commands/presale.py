"""Presales: a gift that Telegram does not yet allow to move, sold in advance. Key `gift:<gift_id>`.

The buyer's full price and a deposit of the seller are held until the gift reaches the bank; when it does not in time,
the buyer has the price back, and a penalty out of the deposit.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from commands.book import FEES, Account, Book, Side, available, held
from commands.command import (
    OPERATOR,
    SYSTEM,
    USER,
    BigId,
    Command,
    Envelope,
    Invalid,
    Moment,
    Price,
    UserId,
)
from commands.deals import Deal, DealItem, record_deal
from commands.document import Need, Scope, document
from commands.nft.items import (
    Gift,
    GiftFacts,
    GiftLock,
    MessageRef,
    Nft,
    NftState,
    found,
    public_topics,
    require_not_in_custody,
    take_in,
    touch_intake,
)
from commands.outcome import Code, Rejection
from commands.terms import Terms, fee_nano
from commands.users import register, touch_user


class PresaleState(StrEnum):
    REGISTERED = "registered"
    LISTED = "listed"
    SOLD = "sold"
    DELIVERED = "delivered"
    FAILED = "failed"
    LAPSED = "lapsed"
    DELETED = "deleted"


@document("presales", indexes={"gift_id": Scope.OPEN})
class Presale(NamedTuple):
    """The price and the rates copied with it are null until it is listed. The deposit is held while listed and sold,
    the buyer's price while sold."""

    id: UUID
    gift_id: int
    seller_id: int
    price_nano: int | None
    fee_bp: int | None
    deposit_bp: int | None
    penalty_bp: int | None
    deposit_held_nano: int
    buyer_id: int | None
    buyer_held_nano: int
    transferable_at: datetime
    deadline_at: datetime
    state: str
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


# -- what intake must know


def touch_presale_of(book: Book, gift_id: int) -> Iterator[Need]:
    """The gift's open presale, once the lock on the gift is held."""
    if not book.lacks(Need(GiftLock, gift_id)):
        yield Need(Presale, gift_id, "gift_id")


def require_no_presale_by(book: Book, gift_id: int, sender_id: int) -> None:
    """A seller's gift is delivered; a stranger's is received, and the presale goes on."""
    for presale in book.find(Presale, "gift_id", gift_id):
        if presale.seller_id == sender_id:
            raise Rejection(Code.GIFT_HAS_PRESALE, presale_id=str(presale.id))


# -- effects that the commands share


def _tell(book: Book, presale: Presale, name: str, *topics: str, **fields: Any) -> None:
    """The public, and each party."""
    fields = {"presale_id": str(presale.id), "gift_id": str(presale.gift_id), **fields}
    book.emit(name, f"gift:{presale.gift_id}", *topics, **fields)
    for user_id in (presale.seller_id, presale.buyer_id):
        if user_id is not None:
            book.emit(name, f"user:{user_id}", **fields)


def _close(book: Book, presale: Presale, state: PresaleState) -> None:
    """What it held has been paid out already."""
    book.put(presale._replace(state=state, deposit_held_nano=0, buyer_held_nano=0, closed_at=book.now))


def _release_deposit(book: Book, presale: Presale) -> None:
    book.release(presale.seller_id, presale.deposit_held_nano, "presale", presale.id)


# -- commands


def _require_same_gift(gift_id: int, gift: GiftFacts) -> None:
    if gift.id != gift_id:
        raise Invalid(("payload.gift.id", "must be the gift_id"))


class _PresaleCommand(Command):
    """What the commands about a gift's presale share."""

    gift_id: BigId

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"gift:{self.gift_id}"


class Register(_PresaleCommand, kind="presale.register", sent_by=SYSTEM):
    """The presale feed saw at Telegram that the seller has the gift, and when it may move."""

    gift: GiftFacts
    seller_id: UserId
    transferable_at: Moment

    def check(self, terms: Terms) -> None:
        _require_same_gift(self.gift_id, self.gift)

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
        _tell(book, presale, "presale.registered")
        return {"presale_id": str(presale.id), "deadline_at": presale.deadline_at}


class _NamedPresaleCommand(_PresaleCommand):
    """What the commands about a registered presale share."""

    presale_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Presale, self.presale_id)
        presale = book.peek(Presale, self.presale_id)
        if presale is not None:
            yield Need(Account, presale.seller_id)
            if presale.buyer_id is not None:
                yield Need(Account, presale.buyer_id)

    def presale(self, book: Book) -> Presale:
        presale = book.get(Presale, self.presale_id)
        if presale is None or presale.gift_id != self.gift_id:
            raise Rejection(Code.PRESALE_NOT_FOUND)
        return presale


class SetPrice(_NamedPresaleCommand, kind="presale.set_price", sent_by=USER):
    """List the presale at a price and the rates of this moment, or take it off the market with null."""

    price_nano: Price | None

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        presale = self.presale(book)
        if envelope.actor != presale.seller_id:
            raise Rejection(Code.PRESALE_PERMISSION_DENIED)
        _require_unsold(presale)
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
        _tell(book, presale, "presale.priced", "market", price_nano=presale.price_nano)
        return {
            "presale_id": str(presale.id),
            "state": presale.state,
            "price_nano": presale.price_nano,
            "deposit_held_nano": deposit,
        }


def _require_unsold(presale: Presale) -> None:
    if presale.state == PresaleState.SOLD:
        raise Rejection(Code.PRESALE_ALREADY_BOUGHT)
    if presale.closed_at is not None:
        raise Rejection(Code.PRESALE_NOT_AVAILABLE)


class Delete(_NamedPresaleCommand, kind="presale.delete", sent_by=USER | OPERATOR, releases_only=True):
    """The seller, or an operator, ends a presale that nobody has bought."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        presale = self.presale(book)
        if envelope.actor not in (None, presale.seller_id):
            raise Rejection(Code.PRESALE_PERMISSION_DENIED)
        _require_unsold(presale)

        _release_deposit(book, presale)
        _close(book, presale, PresaleState.DELETED)
        _tell(book, presale, "presale.deleted")
        return {"presale_id": str(presale.id), "released_nano": presale.deposit_held_nano}


class Buy(_NamedPresaleCommand, kind="presale.buy", sent_by=USER):
    """Buy the gift in advance at the price that was seen. From here the terms of the presale are fixed."""

    price_nano: Price

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Presale, self.presale_id)
        if envelope.actor is not None:
            yield Need(Account, envelope.actor)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        presale, buyer_id = self.presale(book), envelope.actor
        if presale.state == PresaleState.SOLD:
            raise Rejection(Code.PRESALE_ALREADY_BOUGHT)
        if presale.state != PresaleState.LISTED:
            raise Rejection(Code.PRESALE_NOT_AVAILABLE)
        if envelope.accepted_at >= presale.transferable_at:
            raise Rejection(Code.PRESALE_EXPIRED)
        price = presale.price_nano
        assert price is not None and buyer_id is not None  # noqa: PT018,S101
        if buyer_id == presale.seller_id:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)
        if self.price_nano != price:
            raise Rejection(Code.PRICE_CHANGED, price_nano=price)
        book.require_available(buyer_id, price)

        book.hold(buyer_id, price, "presale", presale.id)
        presale = presale._replace(state=PresaleState.SOLD, buyer_id=buyer_id, buyer_held_nano=price)
        book.put(presale)
        _tell(book, presale, "presale.sold", "market", price_nano=price)
        return {"presale_id": str(presale.id), "price_nano": price, "deadline_at": presale.deadline_at}


class Deliver(_NamedPresaleCommand, kind="presale.deliver", sent_by=SYSTEM):
    """The intake feed saw the seller's gift arrive at the bank. Valid until the presale has ended, however late."""

    nft_id: BigId
    gift: GiftFacts
    sender_id: UserId
    message_ref: MessageRef

    def check(self, terms: Terms) -> None:
        _require_same_gift(self.gift_id, self.gift)

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield from touch_intake(book, self.nft_id, self.gift_id, self.message_ref)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        presale = self.presale(book)
        if self.sender_id != presale.seller_id:
            raise Rejection(Code.PRESALE_PERMISSION_DENIED)
        require_not_in_custody(book, self.nft_id, self.gift_id, self.message_ref)
        if presale.closed_at is not None:
            raise Rejection(Code.PRESALE_NOT_AVAILABLE)

        owner_id = presale.seller_id if presale.buyer_id is None else presale.buyer_id
        _close(book, presale, PresaleState.DELIVERED)
        take_in(book, self.nft_id, self.gift.as_document(), self.sender_id, owner_id, self.message_ref)
        result = {"presale_id": str(presale.id), "nft_id": str(self.nft_id), "owner_id": owner_id}
        fields = {}
        if presale.buyer_id is not None:
            fields["price_nano"] = presale.price_nano
            result["deal_id"] = str(self._complete_sale(book, presale, presale.buyer_id))
        _release_deposit(book, presale)
        _tell(book, presale, "presale.delivered", **fields)
        return result

    def _complete_sale(self, book: Book, presale: Presale, buyer_id: int) -> UUID:
        price, fee_bp, deal_id = presale.price_nano, presale.fee_bp, book.command_id
        assert price is not None and fee_bp is not None  # noqa: PT018,S101
        fee = book.settle(held(buyer_id), presale.seller_id, price, fee_bp, "presale", presale.id)
        book.emit(
            "nft.sold",
            *public_topics(found(book, self.nft_id)),
            nft_id=str(self.nft_id),
            gift_id=str(self.gift_id),
            price_nano=price,
            source="presale",
            deal_id=str(deal_id),
        )
        deal = Deal(deal_id, "presale", presale.seller_id, buyer_id, price, fee_bp, fee, price - fee)
        record_deal(book, deal, [DealItem(deal_id, self.nft_id, self.gift_id, 1, "to_buyer")])
        return deal_id


class Expire(_NamedPresaleCommand, kind="presale.expire", sent_by=SYSTEM):
    """The gift did not come in time: the timer of the presale."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        presale = self.presale(book)
        if presale.closed_at is not None:
            raise Rejection(Code.PRESALE_NOT_AVAILABLE)
        if not book.is_due(envelope.accepted_at, presale.deadline_at):
            raise Rejection(Code.PRESALE_NOT_EXPIRED)

        penalty, state = 0, PresaleState.LAPSED
        if presale.buyer_id is None:
            _release_deposit(book, presale)
        else:
            penalty, state = _pay_penalty(book, presale, presale.buyer_id), PresaleState.FAILED
        _close(book, presale, state)
        _tell(book, presale, f"presale.{state}", **({"penalty_nano": penalty} if state is PresaleState.FAILED else {}))
        return {"presale_id": str(presale.id), "state": state, "penalty_nano": penalty}


def _pay_penalty(book: Book, presale: Presale, buyer_id: int) -> int:
    """The buyer has the price back and the penalty; the platform keeps the rest of the deposit. Returns the penalty."""
    assert presale.price_nano is not None and presale.penalty_bp is not None  # noqa: PT018,S101
    penalty = fee_nano(presale.price_nano, presale.penalty_bp)
    seller_held = held(presale.seller_id)
    book.release(buyer_id, presale.buyer_held_nano, "presale", presale.id)
    book.post(seller_held, available(buyer_id), penalty, "presale", presale.id)
    book.post(seller_held, Side(FEES), presale.deposit_held_nano - penalty, "presale", presale.id)
    return penalty
