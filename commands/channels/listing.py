"""Channels: sold with the gifts in them, and moved in Telegram before anybody is paid. Key `channel:<channel_id>`.

A channel is inspected before it may be priced, and its gifts are compared with that inspection before it is moved.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import to_json

from commands.accounts.telegram import (
    AccountState,
    Channel,
    ChannelCommand,
    ChannelState,
    TelegramAccount,
    Title,
    delete_channel,
    found_account,
    refuse_channel,
    require_account_owner,
    require_account_state,
    require_not_selling,
    tell_channel,
    touch_account_of,
)
from commands.book import Book
from commands.command import (
    OPERATOR,
    PRINTABLE,
    SYSTEM,
    USER,
    Envelope,
    Price,
)
from commands.document import Need
from commands.nft.items import Gift, GiftFacts
from commands.outcome import Code, Rejection
from commands.requests import (
    EXPIRED,
    GatewayRequest,
    RequestState,
    answer_of,
    conclude,
    not_open,
    of_account,
    of_channel,
    request,
    set_expiry,
)

INSPECT = "channel.inspect"
NOT_CREATOR, NO_GIFTS = "NOT_CHANNEL_CREATOR", "CHANNEL_HAS_NO_GIFTS"
GIFTS_MAX = 1_000

AddFailReason = Literal["not_a_channel", "not_visible", "account_unusable", "expired"]


class Add(
    ChannelCommand,
    kind="channels.add",
    sent_by=USER,
    rejects=(
        Code.ACCOUNT_NOT_FOUND,
        Code.ACCOUNT_PERMISSION_DENIED,
        Code.CHANNEL_ALREADY_EXISTS,
        Code.ACCOUNT_NOT_ACTIVE,
        Code.CHANNEL_RESERVED,
    ),
):
    """Have a channel of an own Telegram account inspected."""

    account_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(TelegramAccount, self.account_id)
        yield Need(Channel, self.channel_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id)
        require_account_owner(account, envelope.actor)
        channel = book.get(Channel, self.channel_id)
        if channel is not None:
            taken = channel.state in (ChannelState.UNLISTED, ChannelState.LISTED)
            if channel.state == ChannelState.CHECKING or (taken and channel.owner_id != account.user_id):
                raise Rejection(Code.CHANNEL_ALREADY_EXISTS)
        require_account_state(account, AccountState.CONNECTED)
        if channel is not None:
            require_not_selling(channel)

        book.put(
            Channel(
                id=self.channel_id,
                owner_id=account.user_id,
                account_id=account.id,
                check_id=envelope.id,
                title=None,
                username=None,
                gifts="[]",
                gifts_hash=None,
                price_nano=None,
                fee_bp=None,
                state=ChannelState.CHECKING,
                reserved_by=None,
                reason=None,
                opened_at=book.now,
                closed_at=None,
            )
        )
        channel_id = str(self.channel_id)
        body = {"account_id": account.id, "channel_id": channel_id}
        names = {"channel_id": channel_id, "check_id": envelope.id}
        request(
            book,
            INSPECT,
            body,
            account=of_account(account.id),
            channel=of_channel(self.channel_id),
            answers="channels.add",
            names=names,
        )
        set_expiry(book, FailAdd(channel_id=self.channel_id, check_id=envelope.id, reason=EXPIRED))
        return {"channel_id": channel_id, "check_id": str(envelope.id)}


class ChannelGift(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    gift: GiftFacts
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]


class _AddAnswer(ChannelCommand):
    """What an inspection showed."""

    check_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Channel, self.channel_id)
        yield Need(GatewayRequest, self.check_id)

    def take(self, book: Book, answer: RequestState) -> Channel:
        """The guards of both answers; the request is over."""
        channel = self.found(book)
        if channel.state != ChannelState.CHECKING or channel.check_id != self.check_id:
            ended = _check_ended(channel) if channel.check_id == self.check_id else None
            raise not_open(INSPECT, self.check_id, channel.state, answer, ended)
        conclude(book, self.check_id, answer)
        return channel


class ConfirmAdd(
    _AddAnswer, kind="channels.add_confirm", sent_by=SYSTEM, rejects=(Code.CHANNEL_NOT_FOUND, Code.REQUEST_NOT_OPEN)
):
    """This is what the channel is."""

    title: Title
    username: Title | None = None
    is_creator: bool
    gifts: Annotated[tuple[ChannelGift, ...], Field(max_length=GIFTS_MAX)]
    gifts_hash: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=PRINTABLE)]

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        for item in self.gifts:
            yield Need(Gift, item.gift.id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        channel = self.take(book, RequestState.DONE)

        if not self.is_creator:
            return refuse_channel(book, channel, NOT_CREATOR)
        if not self.gifts:
            return refuse_channel(book, channel, NO_GIFTS)
        quantities: Counter[int] = Counter()
        for item in self.gifts:
            book.put(item.gift.as_document())
            quantities[item.gift.id] += item.quantity
        gifts = [{"gift_id": str(gift_id), "quantity": quantity} for gift_id, quantity in quantities.items()]
        channel = channel._replace(
            title=self.title,
            username=self.username,
            gifts=to_json(gifts).decode(),
            gifts_hash=self.gifts_hash,
            state=ChannelState.UNLISTED,
        )
        book.put(channel)
        tell_channel(book, "channel.added", channel)
        return {"channel_id": str(channel.id), "state": channel.state}


class FailAdd(
    _AddAnswer,
    kind="channels.add_fail",
    sent_by=SYSTEM,
    rejects=(Code.CHANNEL_NOT_FOUND, Code.REQUEST_NOT_OPEN, Code.REQUEST_IN_FLIGHT),
):
    """The channel could not be inspected."""

    reason: AddFailReason

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        channel = self.take(book, answer_of(self.reason))

        return refuse_channel(book, channel, self.reason)


def _check_ended(channel: Channel) -> RequestState:
    """The answer that the last inspection got. Only one that showed a saleable channel left a hash."""
    shown = channel.gifts_hash is not None or channel.reason in (NOT_CREATOR, NO_GIFTS)
    return RequestState.DONE if shown else RequestState.REFUSED


class SetPrice(
    ChannelCommand,
    kind="channels.set_price",
    sent_by=USER,
    rejects=(
        Code.CHANNEL_NOT_FOUND,
        Code.CHANNEL_PERMISSION_DENIED,
        Code.CHANNEL_RESERVED,
        Code.CHANNEL_NOT_READY,
        Code.ACCOUNT_NOT_ACTIVE,
        Code.ACCOUNT_TOO_NEW,
    ),
):
    """List the channel at a price, or take it off the market with null."""

    price_nano: Price | None

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield from touch_account_of(book, self.channel_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        channel = self.found(book)
        _require_owner(channel, envelope.actor)
        require_not_selling(channel)
        if channel.state in (ChannelState.CHECKING, ChannelState.REFUSED):
            raise Rejection(Code.CHANNEL_NOT_READY, state=channel.state)
        if self.price_nano is not None:
            self._require_old_enough(book, envelope, channel.account_id)

        if self.price_nano is None:
            channel = channel._replace(state=ChannelState.UNLISTED, price_nano=None, fee_bp=None)
        else:
            fee_bp = book.terms.channel_fee_bp
            channel = channel._replace(state=ChannelState.LISTED, price_nano=self.price_nano, fee_bp=fee_bp)
        book.put(channel)
        tell_channel(book, "channel.priced", channel, "market", price_nano=channel.price_nano)
        return {"channel_id": str(channel.id), "state": channel.state, "price_nano": channel.price_nano}

    def _require_old_enough(self, book: Book, envelope: Envelope, account_id: UUID) -> None:
        account = found_account(book, account_id)
        require_account_state(account, AccountState.CONNECTED)
        assert account.connected_at is not None  # noqa: S101 - it is connected
        allowed_at = account.connected_at + timedelta(seconds=book.terms.channel_account_age_seconds)
        if envelope.accepted_at < allowed_at:
            raise Rejection(Code.ACCOUNT_TOO_NEW, allowed_at=allowed_at)


class Delete(
    ChannelCommand,
    kind="channels.delete",
    sent_by=USER | OPERATOR,
    releases_only=True,
    rejects=(Code.CHANNEL_NOT_FOUND, Code.CHANNEL_PERMISSION_DENIED, Code.CHANNEL_RESERVED),
):
    """Take the channel off the market for good; it may be added again."""

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        channel = book.peek(Channel, self.channel_id)
        if channel is not None:
            yield Need(GatewayRequest, channel.check_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        channel = self.found(book)
        if envelope.actor is not None:  # else an operator
            _require_owner(channel, envelope.actor)
        require_not_selling(channel)

        delete_channel(book, channel)
        return {"channel_id": str(channel.id)}


def _require_owner(channel: Channel, user_id: int | None) -> None:
    if channel.owner_id != user_id:
        raise Rejection(Code.CHANNEL_PERMISSION_DENIED)
