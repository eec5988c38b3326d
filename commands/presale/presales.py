"""Presales: a gift that Telegram does not yet allow to move, sold in advance. Key `gift:<gift_id>`.

The buyer's full price and a deposit of the seller are held until the gift reaches the bank; when it does not in time,
the buyer has the price back, and a penalty out of the deposit.
"""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from commands.book import Account, Book
from commands.command import BigId, Command, Envelope, Invalid
from commands.document import Deadline, Hold, Need, Scope, document
from commands.nft.items import GiftFacts, GiftLock
from commands.outcome import Code, Rejection


class PresaleState(StrEnum):
    REGISTERED = "registered"
    LISTED = "listed"
    SOLD = "sold"
    DELIVERED = "delivered"
    FAILED = "failed"
    LAPSED = "lapsed"
    DELETED = "deleted"


@document(
    "presales",
    indexes={"gift_id": Scope.OPEN},
    holds=(Hold("presale", "seller_id", "deposit_held_nano"), Hold("presale", "buyer_id", "buyer_held_nano")),
    deadline=Deadline("deadline_at", "presale.expire"),
)
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


def tell(book: Book, presale: Presale, name: str, *topics: str, **fields: Any) -> None:
    """The public, and each party."""
    fields = {"presale_id": str(presale.id), "gift_id": str(presale.gift_id), **fields}
    book.emit(name, f"gift:{presale.gift_id}", *topics, **fields)
    for user_id in (presale.seller_id, presale.buyer_id):
        if user_id is not None:
            book.emit(name, f"user:{user_id}", **fields)


def close(book: Book, presale: Presale, state: PresaleState) -> None:
    """What it held has been paid out already."""
    book.put(presale._replace(state=state, deposit_held_nano=0, buyer_held_nano=0, closed_at=book.now))


def release_deposit(book: Book, presale: Presale) -> None:
    book.release(presale.seller_id, presale.deposit_held_nano, "presale", presale.id)


# -- what the commands share


def require_same_gift(gift_id: int, gift: GiftFacts) -> None:
    if gift.id != gift_id:
        raise Invalid(("payload.gift.id", "must be the gift_id"))


class PresaleCommand(Command):
    """What the commands about a gift's presale share."""

    gift_id: BigId

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"gift:{self.gift_id}"


class NamedPresaleCommand(PresaleCommand):
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


def require_unsold(presale: Presale) -> None:
    if presale.state == PresaleState.SOLD:
        raise Rejection(Code.PRESALE_ALREADY_BOUGHT)
    if presale.closed_at is not None:
        raise Rejection(Code.PRESALE_NOT_AVAILABLE)
