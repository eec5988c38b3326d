"""Items: the gift, its custody record, the guards that mechanisms share, and the end of what depends on an item.

That comes when the item is reserved or changes its owner. A document that depends on items declares how it is loaded
and ended (`@document(…, depends=Dependence(Nft, …))`), and that is all: nothing else lists it.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from commands.book import Account, Book
from commands.command import PRINTABLE, BigId, Command, Name
from commands.document import Need, Scope, dependents_of, document
from commands.outcome import Code, Rejection


class NftState(StrEnum):
    HELD = "held"
    LISTED = "listed"
    ON_AUCTION = "on_auction"
    IN_BUNDLE = "in_bundle"
    WITHDRAWING = "withdrawing"
    EXTERNAL = "external"


@document("gifts")
class GiftLock(NamedTuple):
    """The lock on a gift: what brings it into custody and what sells it in advance exclude each other."""

    id: int


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


@document("nfts", indexes={"gift_id": Scope.ALL})
class Nft(NamedTuple):
    """The custody record. `price_nano`, `fee_bp` and `listed_at` are set while listed, `reserved_by` while another
    document holds it, `owner_id` unless it is external.

    What the market filters by is copied from the gift. `hanging` is set by the first document that depends on the item
    and cleared when these end: where it is false, nothing need be looked for.
    """

    id: int
    gift_id: int
    owner_id: int | None
    state: str
    reserved_by: UUID | None
    reserved_kind: str | None
    price_nano: int | None
    fee_bp: int | None
    message_ref: str | None
    listed_at: datetime | None
    hanging: bool
    collection: str
    num: int
    model: str
    pattern: str
    backdrop: str
    model_permille: int
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


class ItemCommand(Command):
    """A command about one item, which is what it is ordered by."""

    nft_id: BigId

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"nft:{self.nft_id}"


# -- guards that all mechanisms share

NOT_FREE = (Code.NFT_ON_AUCTION, Code.NFT_IN_BUNDLE, Code.NFT_NOT_AVAILABLE)
"""What `require_free` raises, in its order."""
IN_CUSTODY = (Code.INTAKE_ALREADY_RECORDED, Code.NFT_RETURN_OPEN, Code.NFT_ALREADY_IN_CUSTODY)
"""What `require_not_in_custody` raises, in its order."""


def require_nft(book: Book, nft_id: int) -> Nft:
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


# -- taking into custody, by intake and by the delivery of a presale


def touch_intake(book: Book, nft_id: int, gift_id: int, message_ref: str) -> Iterator[Need]:
    """What `require_not_in_custody` and `take_in` ask for: first the lock on the gift, then what it guards."""
    lock = Need(GiftLock, gift_id)
    yield lock
    if not book.lacks(lock):
        yield Need(Intake, message_ref)
        yield Need(Nft, nft_id)
        yield Need(Nft, gift_id, "gift_id")
        yield Need(Gift, gift_id)


def require_not_in_custody(book: Book, nft_id: int, gift_id: int, message_ref: str) -> None:
    nft = book.get(Nft, nft_id)
    if book.get(Intake, message_ref) is not None:
        raise Rejection(Code.INTAKE_ALREADY_RECORDED)
    if nft is not None and nft.state == NftState.WITHDRAWING:
        raise Rejection(Code.NFT_RETURN_OPEN)
    if nft is not None and (nft.state != NftState.EXTERNAL or nft.gift_id != gift_id):
        raise Rejection(Code.NFT_ALREADY_IN_CUSTODY)
    if any(other.id != nft_id for other in book.find(Nft, "gift_id", gift_id)):
        raise Rejection(Code.NFT_ALREADY_IN_CUSTODY)


def take_in(book: Book, nft_id: int, gift: Gift, sender_id: int, owner_id: int, message_ref: str) -> None:
    """A gift that the sender gave to the bank becomes the owner's item, held."""
    book.put(gift)
    book.put(
        Nft(
            id=nft_id,
            gift_id=gift.id,
            owner_id=owner_id,
            state=NftState.HELD,
            reserved_by=None,
            reserved_kind=None,
            price_nano=None,
            fee_bp=None,
            message_ref=message_ref,
            listed_at=None,
            hanging=False,
            collection=gift.collection,
            num=gift.num,
            model=gift.model,
            pattern=gift.pattern,
            backdrop=gift.backdrop,
            model_permille=gift.model_permille,
            opened_at=book.now,
            closed_at=None,
        )
    )
    book.put(Intake(message_ref, nft_id, gift.id, sender_id, book.command_id, book.now))
    ids = {"nft_id": str(nft_id), "gift_id": str(gift.id)}
    book.emit("nft.received", f"nft:{nft_id}", **ids)
    book.emit("nft.received", f"user:{owner_id}", **ids)


# -- effects that all mechanisms share


def touch_item(book: Book, nft_id: int) -> Iterator[Need]:
    """The item, and its owner's money."""
    yield Need(Nft, nft_id)
    nft = book.peek(Nft, nft_id)
    if nft is not None and nft.owner_id is not None:
        yield Need(Account, nft.owner_id)


def touch_dependents(book: Book, nft_id: int) -> Iterator[Need]:
    """What `end_dependents` will ask for, beside the item."""
    nft = book.peek(Nft, nft_id)
    if nft is not None and nft.hanging:
        for dependents in dependents_of(Nft):
            yield from dependents.touches(book, nft_id)


def hang(book: Book, nft_id: int) -> None:
    """Something depends on the item from now on."""
    nft = require_nft(book, nft_id)
    if not nft.hanging:
        book.put(nft._replace(hanging=True))


def end_dependents(book: Book, nft: Nft, reason: str, except_for: Collection[UUID] = ()) -> Nft:
    """Ends all that depends on the item, and takes it off the market; the caller puts it into its new state.

    Offers end first, then trades, then proposals: each document declares its place. Reasons: sold, transferred,
    auctioned, bundled, returned, swapped.
    """
    if nft.hanging:
        for dependents in dependents_of(Nft):
            dependents.end(book, nft, reason, except_for)
    return nft._replace(price_nano=None, fee_bp=None, listed_at=None, hanging=False)


def hand_over(book: Book, nft: Nft, owner_id: int, reason: str, except_for: Collection[UUID] = ()) -> None:
    """Gives the item a new owner, by any path: what depends on it ends, and it is held."""
    nft = end_dependents(book, nft, reason, except_for)
    book.put(nft._replace(owner_id=owner_id, state=NftState.HELD, reserved_by=None, reserved_kind=None))


def public_topics(nft: Nft) -> tuple[str, ...]:
    return f"nft:{nft.id}", f"collection:{nft.collection}", "market"
