"""Items in custody: received from Telegram, priced, bought, given away. Key `nft:<nft_id>`.

An nft is the custody record of one gift; trading changes its owner here and moves nothing in Telegram.
"""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from commands.book import Account, Book, Need, available, document
from commands.command import (
    PRINTABLE,
    SYSTEM,
    USER,
    BigId,
    Command,
    Envelope,
    Name,
    PriceNano,
    UserId,
    require_within,
)
from commands.deals import Deal, DealItem, record_deal
from commands.outcome import Code, Rejection
from commands.terms import Terms
from commands.users import User, register, touch_user


class NftState(StrEnum):
    HELD = "held"
    LISTED = "listed"
    ON_AUCTION = "on_auction"
    IN_BUNDLE = "in_bundle"
    WITHDRAWING = "withdrawing"
    EXTERNAL = "external"


@document("gifts", locked=False)
class Gift(NamedTuple):
    """A collectible as Telegram knows it: a catalogue entry that says nothing about who has it."""

    id: int
    collection: str
    num: int
    model: str
    pattern: str
    backdrop: str
    model_permille: int
    pattern_permille: int
    backdrop_permille: int
    center_color: int
    edge_color: int
    pattern_color: int
    text_color: int
    slug: str
    availability_total: int | None


@document("nfts", indexes=("gift_id",))
class Nft(NamedTuple):
    """The custody record. `price_nano` and `fee_bp` are set while listed, `reserved_by` while another document holds
    it, `owner_id` unless it is external."""

    id: int
    gift_id: int
    owner_id: int | None
    state: str
    reserved_by: UUID | None
    reserved_kind: str | None
    price_nano: int | None
    fee_bp: int | None
    message_ref: str | None
    opened_at: datetime
    closed_at: datetime | None


@document("intakes", key=("message_ref",))
class Intake(NamedTuple):
    """One row for each gift received."""

    message_ref: str
    nft_id: int
    gift_id: int
    sender_id: int
    command_id: UUID
    opened_at: datetime


Permille = Annotated[int, Field(ge=0, le=1000)]
Color = Annotated[int, Field(ge=0, le=0xFFFFFF)]
MessageRef = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=PRINTABLE)]


class GiftFacts(BaseModel):
    """A gift on the wire."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: BigId
    collection: Name
    num: Annotated[int, Field(ge=1, lt=2**31)]
    model: Name
    pattern: Name
    backdrop: Name
    model_permille: Permille
    pattern_permille: Permille
    backdrop_permille: Permille
    center_color: Color
    edge_color: Color
    pattern_color: Color
    text_color: Color
    slug: Name
    availability_total: Annotated[int, Field(ge=1, lt=2**31)] | None = None

    def as_document(self) -> Gift:
        return Gift(**dict(self))


# -- guards that all mechanisms share


def found(book: Book, nft_id: int) -> Nft:
    nft = book.get(Nft, nft_id)
    if nft is None or nft.state == NftState.EXTERNAL:
        raise Rejection(Code.NFT_NOT_FOUND, nft_id=str(nft_id))
    return nft


def require_owner(nft: Nft, user_id: int | None) -> None:
    if nft.owner_id != user_id:
        raise Rejection(Code.NFT_PERMISSION_DENIED)


def require_free(nft: Nft) -> None:
    """Held and listed items pass; reserved ones belong to the document that reserved them."""
    if nft.state == NftState.ON_AUCTION:
        raise Rejection(Code.NFT_ON_AUCTION)
    if nft.state == NftState.IN_BUNDLE:
        raise Rejection(Code.NFT_IN_BUNDLE)
    if nft.state not in (NftState.HELD, NftState.LISTED):
        raise Rejection(Code.NFT_NOT_AVAILABLE, state=nft.state)


# -- effects that all mechanisms share


def touch_item(book: Book, nft_id: int) -> Iterator[Need]:
    """The item, its gift, and its owner's money."""
    yield Need(Nft, nft_id)
    nft = book.peek(Nft, nft_id)
    if nft is not None:
        yield Need(Gift, nft.gift_id)
        if nft.owner_id is not None:
            yield Need(Account, nft.owner_id)


def hand_over(book: Book, nft: Nft, owner_id: int) -> None:
    """A new owner by any path: what hung on the item ends, and it is held."""
    book.put(nft._replace(owner_id=owner_id, state=NftState.HELD, price_nano=None, fee_bp=None))


def _public_topics(book: Book, nft: Nft) -> tuple[str, ...]:
    gift = book.get(Gift, nft.gift_id)
    if gift is None:
        message = f"nft {nft.id} has no gift {nft.gift_id}"
        raise LookupError(message)
    return f"nft:{nft.id}", f"collection:{gift.collection}", "market"


class _NftCommand(Command):
    """What the commands about one item share."""

    nft_id: BigId

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"nft:{self.nft_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_item(book, self.nft_id)


class Receive(_NftCommand, kind="nft.receive", sent_by=SYSTEM):
    """The intake feed saw a gift arrive at the bank."""

    gift: GiftFacts
    sender_id: UserId
    message_ref: MessageRef

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Intake, self.message_ref)
        yield Need(Nft, self.nft_id)
        yield Need(Nft, self.gift.id, "gift_id")
        yield Need(Gift, self.gift.id)
        yield from touch_user(self.sender_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        nft = book.get(Nft, self.nft_id)
        if book.get(Intake, self.message_ref) is not None:
            raise Rejection(Code.INTAKE_ALREADY_RECORDED)
        if nft is not None and nft.state == NftState.WITHDRAWING:
            raise Rejection(Code.NFT_RETURN_OPEN)
        if nft is not None and (nft.state != NftState.EXTERNAL or nft.gift_id != self.gift.id):
            raise Rejection(Code.NFT_ALREADY_IN_CUSTODY)
        if any(other.id != self.nft_id for other in book.find(Nft, "gift_id", self.gift.id)):
            raise Rejection(Code.NFT_ALREADY_IN_CUSTODY)

        register(book, self.sender_id)
        book.put(self.gift.as_document())
        book.put(
            Nft(
                id=self.nft_id,
                gift_id=self.gift.id,
                owner_id=self.sender_id,
                state=NftState.HELD,
                reserved_by=None,
                reserved_kind=None,
                price_nano=None,
                fee_bp=None,
                message_ref=self.message_ref,
                opened_at=book.now,
                closed_at=None,
            )
        )
        book.put(Intake(self.message_ref, self.nft_id, self.gift.id, self.sender_id, envelope.id, book.now))
        ids = {"nft_id": str(self.nft_id), "gift_id": str(self.gift.id)}
        book.emit("nft.received", f"nft:{self.nft_id}", **ids)
        book.emit("nft.received", f"user:{self.sender_id}", **ids)
        return {"nft_id": str(self.nft_id), "owner_id": self.sender_id}


class SetPrice(_NftCommand, kind="nft.set_price", sent_by=USER):
    """List the item at a price, or take it off the market with null."""

    price_nano: PriceNano | None

    def check(self, terms: Terms) -> None:
        require_within("price_nano", self.price_nano, terms.price_min_nano, terms.price_max_nano)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        nft = found(book, self.nft_id)
        require_owner(nft, envelope.actor)
        require_free(nft)

        if self.price_nano is None:
            nft = nft._replace(state=NftState.HELD, price_nano=None, fee_bp=None)
        else:
            nft = nft._replace(state=NftState.LISTED, price_nano=self.price_nano, fee_bp=book.terms.market_fee_bp)
        book.put(nft)
        book.emit("nft.priced", *_public_topics(book, nft), nft_id=str(nft.id), price_nano=nft.price_nano)
        return {"nft_id": str(nft.id), "state": nft.state, "price_nano": nft.price_nano}


class Buy(_NftCommand, kind="nft.buy", sent_by=USER):
    """Buy a listed item at the price that was seen."""

    price_nano: PriceNano

    def check(self, terms: Terms) -> None:
        require_within("price_nano", self.price_nano, terms.price_min_nano, terms.price_max_nano)

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_item(book, self.nft_id)
        if envelope.actor is not None:
            yield Need(Account, envelope.actor)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        nft = found(book, self.nft_id)
        buyer_id, seller_id = envelope.actor, nft.owner_id
        if nft.state == NftState.HELD:
            raise Rejection(Code.NFT_NOT_ON_SALE)
        require_free(nft)
        price, fee_bp = nft.price_nano, nft.fee_bp
        assert price is not None and fee_bp is not None and buyer_id is not None and seller_id is not None  # noqa: PT018,S101
        if seller_id == buyer_id:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)
        if self.price_nano != price:
            raise Rejection(Code.PRICE_CHANGED, price_nano=price)
        book.require_available(buyer_id, price)

        fee = book.settle(available(buyer_id), seller_id, price, fee_bp, "deal", envelope.id)
        hand_over(book, nft, buyer_id)
        deal_id, nft_id, gift_id = str(envelope.id), str(nft.id), str(nft.gift_id)
        book.emit(
            "nft.sold",
            *_public_topics(book, nft),
            nft_id=nft_id,
            gift_id=gift_id,
            price_nano=price,
            source="sale",
            deal_id=deal_id,
        )
        record_deal(
            book,
            Deal(envelope.id, "sale", seller_id, buyer_id, price, fee_bp, fee, price - fee),
            [DealItem(envelope.id, nft.id, nft.gift_id, 1, "to_buyer")],
        )
        return {"deal_id": deal_id, "nft_id": nft_id, "seller_id": seller_id, "price_nano": price, "fee_nano": fee}


class Transfer(_NftCommand, kind="nft.transfer", sent_by=USER):
    """Give the item away: no money, no deal."""

    to_user_id: UserId

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Nft, self.nft_id)
        yield Need(User, self.to_user_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        if book.get(User, self.to_user_id) is None:
            raise Rejection(Code.USER_NOT_FOUND, user_id=self.to_user_id)
        nft = found(book, self.nft_id)
        require_owner(nft, envelope.actor)
        require_free(nft)
        if self.to_user_id == envelope.actor:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)

        hand_over(book, nft, self.to_user_id)
        nft_id, parties = str(nft.id), {"from_user_id": envelope.actor, "to_user_id": self.to_user_id}
        book.emit("nft.transferred", f"nft:{nft.id}", nft_id=nft_id)
        for user_id in parties.values():
            book.emit("nft.transferred", f"user:{user_id}", nft_id=nft_id, **parties)
        return {"nft_id": nft_id, "owner_id": self.to_user_id}
