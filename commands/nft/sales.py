"""Items in custody: received from Telegram, priced, bought, given away. Key `nft:<nft_id>`.

Trading changes an item's owner here and moves nothing in Telegram.
"""

from collections.abc import Iterator
from typing import Any

from commands.book import Account, Book
from commands.command import SYSTEM, USER, Envelope, Price, UserId
from commands.deals import sell_item
from commands.document import Need
from commands.nft.items import (
    IN_CUSTODY,
    NOT_FREE,
    GiftFacts,
    ItemCommand,
    MessageRef,
    Nft,
    NftState,
    hand_over,
    public_topics,
    require_free,
    require_nft,
    require_not_in_custody,
    require_owner,
    take_in,
    touch_dependents,
    touch_intake,
    touch_item,
)
from commands.offers import held_for_offers
from commands.outcome import Code, Rejection
from commands.presale.presales import require_no_presale_by, touch_presale_of
from commands.users import User, register, touch_user


class Receive(ItemCommand, kind="nft.receive", sent_by=SYSTEM, rejects=(*IN_CUSTODY, Code.GIFT_HAS_PRESALE)):
    """The intake feed saw a gift arrive at the bank."""

    gift: GiftFacts
    sender_id: UserId
    message_ref: MessageRef

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_intake(book, self.nft_id, self.gift.id, self.message_ref)
        yield from touch_presale_of(book, self.gift.id)
        yield from touch_user(self.sender_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        require_not_in_custody(book, self.nft_id, self.gift.id, self.message_ref)
        require_no_presale_by(book, self.gift.id, self.sender_id)

        register(book, self.sender_id)
        take_in(book, self.nft_id, self.gift.as_document(), self.sender_id, self.sender_id, self.message_ref)
        return {"nft_id": str(self.nft_id), "owner_id": self.sender_id}


class SetPrice(
    ItemCommand, kind="nft.set_price", sent_by=USER, rejects=(Code.NFT_NOT_FOUND, Code.NFT_PERMISSION_DENIED, *NOT_FREE)
):
    """List the item at a price, or take it off the market with null."""

    price_nano: Price | None

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Nft, self.nft_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        nft = require_nft(book, self.nft_id)
        require_owner(nft, envelope.actor)
        require_free(nft)

        if self.price_nano is None:
            nft = nft._replace(state=NftState.HELD, price_nano=None, fee_bp=None, listed_at=None)
        else:
            fee_bp, listed_at = book.terms.market_fee_bp, nft.listed_at or book.now
            nft = nft._replace(state=NftState.LISTED, price_nano=self.price_nano, fee_bp=fee_bp, listed_at=listed_at)
        book.put(nft)
        book.emit("nft.priced", *public_topics(nft), nft_id=str(nft.id), price_nano=nft.price_nano)
        return {"nft_id": str(nft.id), "state": nft.state, "price_nano": nft.price_nano}


class Buy(
    ItemCommand,
    kind="nft.buy",
    sent_by=USER,
    rejects=(
        Code.NFT_NOT_FOUND,
        Code.NFT_NOT_ON_SALE,
        *NOT_FREE,
        Code.SELF_TRADE_NOT_ALLOWED,
        Code.PRICE_CHANGED,
        Code.INSUFFICIENT_BALANCE,
    ),
):
    """Buy a listed item at the price that was seen."""

    price_nano: Price

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_item(book, self.nft_id)
        yield from touch_dependents(book, self.nft_id)
        if envelope.actor is not None:
            yield Need(Account, envelope.actor)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        nft = require_nft(book, self.nft_id)
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
        # The sale closes the buyer's own offer on the item, so its money pays too.
        book.require_available(buyer_id, price - held_for_offers(book, nft, buyer_id))

        fee = sell_item(book, nft, buyer_id, "sale", price, fee_bp)
        return {
            "deal_id": str(envelope.id),
            "nft_id": str(nft.id),
            "seller_id": seller_id,
            "price_nano": price,
            "fee_nano": fee,
        }


class Transfer(
    ItemCommand,
    kind="nft.transfer",
    sent_by=USER,
    rejects=(
        Code.USER_NOT_FOUND,
        Code.NFT_NOT_FOUND,
        Code.NFT_PERMISSION_DENIED,
        *NOT_FREE,
        Code.SELF_TRADE_NOT_ALLOWED,
    ),
):
    """Give the item away: no money, no deal."""

    to_user_id: UserId

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Nft, self.nft_id)
        yield from touch_dependents(book, self.nft_id)
        yield Need(User, self.to_user_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        if book.get(User, self.to_user_id) is None:
            raise Rejection(Code.USER_NOT_FOUND, user_id=self.to_user_id)
        nft = require_nft(book, self.nft_id)
        require_owner(nft, envelope.actor)
        require_free(nft)
        if self.to_user_id == envelope.actor:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)

        hand_over(book, nft, self.to_user_id, "transferred")
        nft_id, parties = str(nft.id), {"from_user_id": envelope.actor, "to_user_id": self.to_user_id}
        book.emit("nft.transferred", f"nft:{nft.id}", nft_id=nft_id)
        for user_id in parties.values():
            book.emit("nft.transferred", f"user:{user_id}", nft_id=nft_id, **parties)
        return {"nft_id": nft_id, "owner_id": self.to_user_id}
