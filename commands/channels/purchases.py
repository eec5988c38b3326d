"""Purchases of channels: the buyer's money is held until the channel has moved in Telegram. Key `channel:<channel_id>`.

Its gifts are compared with those inspected before it is moved.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic_core import from_json

from commands.accounts.telegram import (
    AccountState,
    Channel,
    ChannelCommand,
    ChannelState,
    found_account,
    refuse_channel,
    require_account_state,
    require_not_selling,
    touch_account_of,
)
from commands.book import Account, Book, held
from commands.command import SYSTEM, USER, Envelope, Price, UserId
from commands.deals import Deal, DealItem, record_deal
from commands.document import Hold, Need, document
from commands.outcome import Code, Rejection
from commands.requests import (
    EXPIRED,
    GatewayRequest,
    RequestState,
    SagaState,
    answer_of,
    conclude,
    of_account,
    of_channel,
    request,
    require_requested,
    set_expiry,
)

TRANSFER = "channel.transfer"

BuyFailReason = Literal[
    "gifts_modified",
    "not_creator",
    "account_unusable",
    "receiver_not_subscribed",
    "receiver_refused",
    "refused",
    "expired",
]
TO_BE_ADDED_AGAIN = ("gifts_modified", "not_creator", "account_unusable")
"""The reasons after which the channel is not what was inspected."""


@document("channel_purchases", holds=(Hold("channel_purchase", "buyer_id", "held_nano"),))
class ChannelPurchase(NamedTuple):
    """A channel on its way to the receiver, who need not be a user here; the buyer's money is held."""

    id: UUID
    channel_id: int
    buyer_id: int
    seller_id: int
    receiver_id: int
    price_nano: int
    fee_bp: int
    held_nano: int
    state: str
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


class Buy(
    ChannelCommand,
    kind="channels.buy",
    sent_by=USER,
    rejects=(
        Code.CHANNEL_NOT_FOUND,
        Code.CHANNEL_RESERVED,
        Code.CHANNEL_NOT_ON_SALE,
        Code.ACCOUNT_NOT_ACTIVE,
        Code.SELF_TRADE_NOT_ALLOWED,
        Code.PRICE_CHANGED,
        Code.INSUFFICIENT_BALANCE,
    ),
):
    """Buy the channel at the price that was seen, for oneself or for another user of Telegram."""

    price_nano: Price
    receiver_id: UserId | None = None

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield from touch_account_of(book, self.channel_id)
        yield Need(Account, envelope.actor)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        channel, buyer_id = self.found(book), envelope.actor
        require_not_selling(channel)
        if channel.state != ChannelState.LISTED:
            raise Rejection(Code.CHANNEL_NOT_ON_SALE)
        require_account_state(found_account(book, channel.account_id), AccountState.CONNECTED)
        price_nano, fee_bp = channel.price_nano, channel.fee_bp
        assert price_nano is not None and fee_bp is not None and buyer_id is not None  # noqa: PT018,S101
        if channel.owner_id == buyer_id:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)
        if self.price_nano != price_nano:
            raise Rejection(Code.PRICE_CHANGED, price_nano=price_nano)
        book.require_available(buyer_id, price_nano)

        book.hold(buyer_id, price_nano, "channel_purchase", envelope.id)
        purchase = ChannelPurchase(
            id=envelope.id,
            channel_id=channel.id,
            buyer_id=buyer_id,
            seller_id=channel.owner_id,
            receiver_id=self.receiver_id or buyer_id,
            price_nano=price_nano,
            fee_bp=fee_bp,
            held_nano=price_nano,
            state=SagaState.REQUESTED,
            reason=None,
            opened_at=book.now,
            closed_at=None,
        )
        book.put(purchase)
        book.put(channel._replace(state=ChannelState.SELLING, reserved_by=purchase.id))
        ids = {"channel_id": str(channel.id)}
        body = {"account_id": channel.account_id, **ids}
        body |= {"receiver_id": purchase.receiver_id, "gifts_hash": channel.gifts_hash}
        request(
            book,
            TRANSFER,
            body,
            account=of_account(channel.account_id),
            channel=of_channel(channel.id),
            answers="channels.buy",
            names={**ids, "purchase_id": purchase.id},
        )
        set_expiry(book, FailBuy(channel_id=channel.id, purchase_id=purchase.id, reason=EXPIRED))
        _tell_parties(book, "channel.sale_started", purchase)
        return {"purchase_id": str(purchase.id), "price_nano": price_nano}


class _BuyAnswer(ChannelCommand):
    """What came of a transfer."""

    purchase_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield Need(ChannelPurchase, self.purchase_id)
        yield Need(GatewayRequest, self.purchase_id)
        purchase = book.peek(ChannelPurchase, self.purchase_id)
        if purchase is not None:
            yield Need(Account, purchase.buyer_id)
            yield Need(Account, purchase.seller_id)

    def take(self, book: Book, answer: RequestState) -> tuple[Channel, ChannelPurchase]:
        """The guards of both answers; the request is over. A purchase that has ended is found whatever has become of
        its channel, so that an answer that contradicts its end is noticed."""
        channel, purchase = book.get(Channel, self.channel_id), book.get(ChannelPurchase, self.purchase_id)
        if channel is None or purchase is None or purchase.channel_id != channel.id:
            self.found(book)
            raise Rejection(Code.REQUEST_NOT_OPEN)
        require_requested(TRANSFER, purchase.id, purchase.state, answer)
        conclude(book, purchase.id, answer)
        return channel, purchase


class ConfirmBuy(
    _BuyAnswer, kind="channels.buy_confirm", sent_by=SYSTEM, rejects=(Code.CHANNEL_NOT_FOUND, Code.REQUEST_NOT_OPEN)
):
    """The channel is the receiver's."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        channel, purchase = self.take(book, RequestState.DONE)

        price_nano, fee_bp, seller_id = purchase.price_nano, purchase.fee_bp, purchase.seller_id
        fee = book.settle(held(purchase.buyer_id), seller_id, price_nano, fee_bp, "channel_purchase", purchase.id)
        book.put(purchase._replace(state=SagaState.CONFIRMED, held_nano=0, closed_at=book.now))
        book.put(
            channel._replace(
                state=ChannelState.SOLD, price_nano=None, fee_bp=None, reserved_by=None, closed_at=book.now
            )
        )
        deal = Deal(purchase.id, "channel", seller_id, purchase.buyer_id, price_nano, fee_bp, fee, price_nano - fee)
        items = [
            DealItem(deal.id, None, int(item["gift_id"]), item["quantity"], "to_buyer")
            for item in from_json(channel.gifts)
        ]
        ids = {"channel_id": str(channel.id), "purchase_id": str(purchase.id)}
        book.emit("channel.sold", f"channel:{channel.id}", **ids, price_nano=price_nano)
        _tell_parties(book, "channel.sold", purchase)
        record_deal(book, deal, items)
        return {"deal_id": str(deal.id), "price_nano": price_nano, "fee_nano": fee}


class FailBuy(
    _BuyAnswer,
    kind="channels.buy_fail",
    sent_by=SYSTEM,
    rejects=(Code.CHANNEL_NOT_FOUND, Code.REQUEST_NOT_OPEN, Code.REQUEST_IN_FLIGHT),
):
    """The channel was not moved and will not be."""

    reason: BuyFailReason

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        channel, purchase = self.take(book, answer_of(self.reason))

        book.release(purchase.buyer_id, purchase.held_nano, "channel_purchase", purchase.id)
        book.put(purchase._replace(state=SagaState.FAILED, held_nano=0, reason=self.reason, closed_at=book.now))
        _tell_parties(book, "channel.sale_failed", purchase, reason=self.reason)
        if self.reason in TO_BE_ADDED_AGAIN:
            refuse_channel(book, channel, self.reason)
            state = ChannelState.REFUSED
        else:
            state = ChannelState.LISTED
            book.put(channel._replace(state=state, reserved_by=None))
        return {"purchase_id": str(purchase.id), "channel_state": state, "reason": self.reason}


def _tell_parties(book: Book, name: str, purchase: ChannelPurchase, **fields: Any) -> None:
    ids = {"channel_id": str(purchase.channel_id), "purchase_id": str(purchase.id)}
    for user_id in (purchase.buyer_id, purchase.seller_id):
        book.emit(name, f"user:{user_id}", **ids, price_nano=purchase.price_nano, **fields)
