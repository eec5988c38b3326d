"""Presales that are bought, delivered, or not delivered in time. Key `gift:<gift_id>`."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from commands.book import FEES, Account, Book, Side, available, held
from commands.command import SYSTEM, USER, BigId, Envelope, Price, UserId
from commands.deals import Deal, DealItem, record_deal
from commands.document import Need
from commands.nft.items import (
    IN_CUSTODY,
    GiftFacts,
    MessageRef,
    public_topics,
    require_nft,
    require_not_in_custody,
    take_in,
    touch_intake,
)
from commands.outcome import Code, Rejection
from commands.presale.presales import (
    NamedPresaleCommand,
    Presale,
    PresaleState,
    close,
    release_deposit,
    require_same_gift,
    tell,
)
from commands.terms import Terms, fee_nano


class Buy(
    NamedPresaleCommand,
    kind="presale.buy",
    sent_by=USER,
    rejects=(
        Code.PRESALE_NOT_FOUND,
        Code.PRESALE_ALREADY_BOUGHT,
        Code.PRESALE_NOT_AVAILABLE,
        Code.PRESALE_EXPIRED,
        Code.SELF_TRADE_NOT_ALLOWED,
        Code.PRICE_CHANGED,
        Code.INSUFFICIENT_BALANCE,
    ),
):
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
        tell(book, presale, "presale.sold", "market", price_nano=price)
        return {"presale_id": str(presale.id), "price_nano": price, "deadline_at": presale.deadline_at}


class Deliver(
    NamedPresaleCommand,
    kind="presale.deliver",
    sent_by=SYSTEM,
    rejects=(Code.PRESALE_NOT_FOUND, Code.PRESALE_PERMISSION_DENIED, *IN_CUSTODY, Code.PRESALE_NOT_AVAILABLE),
):
    """The intake feed saw the seller's gift arrive at the bank. Valid until the presale has ended, however late."""

    nft_id: BigId
    gift: GiftFacts
    sender_id: UserId
    message_ref: MessageRef

    def check(self, terms: Terms) -> None:
        require_same_gift(self.gift_id, self.gift)

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
        close(book, presale, PresaleState.DELIVERED)
        take_in(book, self.nft_id, self.gift.as_document(), self.sender_id, owner_id, self.message_ref)
        result = {"presale_id": str(presale.id), "nft_id": str(self.nft_id), "owner_id": owner_id}
        fields = {}
        if presale.buyer_id is not None:
            fields["price_nano"] = presale.price_nano
            result["deal_id"] = str(self._complete_sale(book, presale, presale.buyer_id))
        release_deposit(book, presale)
        tell(book, presale, "presale.delivered", **fields)
        return result

    def _complete_sale(self, book: Book, presale: Presale, buyer_id: int) -> UUID:
        price, fee_bp, deal_id = presale.price_nano, presale.fee_bp, book.command_id
        assert price is not None and fee_bp is not None  # noqa: PT018,S101
        fee = book.settle(held(buyer_id), presale.seller_id, price, fee_bp, "presale", presale.id)
        book.emit(
            "nft.sold",
            *public_topics(require_nft(book, self.nft_id)),
            nft_id=str(self.nft_id),
            gift_id=str(self.gift_id),
            price_nano=price,
            source="presale",
            deal_id=str(deal_id),
        )
        deal = Deal(deal_id, "presale", presale.seller_id, buyer_id, price, fee_bp, fee, price - fee)
        record_deal(book, deal, [DealItem(deal_id, self.nft_id, self.gift_id, 1, "to_buyer")])
        return deal_id


class Expire(
    NamedPresaleCommand,
    kind="presale.expire",
    sent_by=SYSTEM,
    rejects=(Code.PRESALE_NOT_FOUND, Code.PRESALE_NOT_AVAILABLE, Code.PRESALE_NOT_EXPIRED),
):
    """The gift did not come in time: the timer of the presale."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        presale = self.presale(book)
        if presale.closed_at is not None:
            raise Rejection(Code.PRESALE_NOT_AVAILABLE)
        if not book.is_due(envelope.accepted_at, presale.deadline_at):
            raise Rejection(Code.PRESALE_NOT_EXPIRED)

        penalty, state = 0, PresaleState.LAPSED
        if presale.buyer_id is None:
            release_deposit(book, presale)
        else:
            penalty, state = _pay_penalty(book, presale, presale.buyer_id), PresaleState.FAILED
        close(book, presale, state)
        tell(book, presale, f"presale.{state}", **({"penalty_nano": penalty} if state is PresaleState.FAILED else {}))
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
