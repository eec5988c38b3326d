"""What is in a connected Telegram account: read as a whole, and its gifts sent to others. Key `user:<user_id>`.

None of it is in custody, so none of it is traded here.
"""

from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from commands.accounts.telegram import (
    AccountAnswer,
    AccountChannel,
    AccountGift,
    AccountState,
    OwnAccountCommand,
    Stars,
    TelegramAccount,
    Title,
    disconnect,
    drop_snapshot,
    found_account,
    require_account_owner,
    require_account_state,
    tell_account,
    touch_disconnect,
)
from commands.book import Book
from commands.command import SYSTEM, USER, BigId, Envelope, Reason, UserId
from commands.document import Need
from commands.nft.items import Gift, GiftFacts, MessageRef
from commands.outcome import Code, Rejection
from commands.requests import GatewayRequest, RequestState, conclude, of_account, request

GIFTS_MAX, CHANNELS_MAX = 1_000, 500
SESSION_LOST = "session_lost"


class SnapshotGift(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    gift: GiftFacts
    message_ref: MessageRef


class SnapshotChannel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    channel_id: BigId
    title: Title
    username: Title | None = None


class Sync(
    OwnAccountCommand,
    kind="accounts.sync",
    sent_by=USER,
    rejects=(Code.ACCOUNT_NOT_FOUND, Code.ACCOUNT_PERMISSION_DENIED, Code.ACCOUNT_NOT_ACTIVE),
):
    """Ask what is in the account."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id)
        require_account_owner(account, envelope.actor)
        require_account_state(account, AccountState.CONNECTED)

        names = {"user_id": account.user_id, "account_id": account.id, "sync_id": envelope.id}
        body = {"account_id": account.id}
        outside = of_account(account.id)
        request(book, "account.snapshot", body, account=outside, answers="accounts.sync", names=names)
        return {"account_id": str(account.id), "sync_id": str(envelope.id)}


class ConfirmSync(
    AccountAnswer,
    kind="accounts.sync_confirm",
    sent_by=SYSTEM,
    rejects=(Code.ACCOUNT_NOT_FOUND, Code.ACCOUNT_NOT_ACTIVE),
):
    """All that is in the account: the last snapshot is replaced. Nothing in it is in custody."""

    sync_id: UUID
    stars: Stars
    premium: bool
    gifts: Annotated[tuple[SnapshotGift, ...], Field(max_length=GIFTS_MAX)]
    channels: Annotated[tuple[SnapshotChannel, ...], Field(max_length=CHANNELS_MAX)]

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(TelegramAccount, self.account_id)
        yield Need(GatewayRequest, self.sync_id)
        if book.peek(TelegramAccount, self.account_id) is None:
            return
        yield Need(AccountGift, self.account_id, "account_id")
        yield Need(AccountChannel, self.account_id, "account_id")
        for item in self.gifts:
            yield Need(Gift, item.gift.id)
            yield Need(AccountGift, (self.account_id, item.gift.id))
        for channel in self.channels:
            yield Need(AccountChannel, (self.account_id, channel.channel_id))

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id, self.user_id)
        require_account_state(account, AccountState.CONNECTED)

        _conclude(book, account, self.sync_id, "accounts.sync", RequestState.DONE)
        drop_snapshot(book, account.id)
        gifts = {item.gift.id: item for item in self.gifts}
        for item in gifts.values():
            book.put(item.gift.as_document())
            book.put(AccountGift(account.id, item.gift.id, item.message_ref))
        channels = {channel.channel_id: channel for channel in self.channels}
        for channel in channels.values():
            book.put(AccountChannel(account.id, channel.channel_id, channel.title, channel.username))
        book.put(account._replace(stars=self.stars, premium=self.premium))
        counts = {"gifts": len(gifts), "channels": len(channels)}
        tell_account(book, "account.synced", account)
        return counts


class FailSync(AccountAnswer, kind="accounts.sync_fail", sent_by=SYSTEM, rejects=(Code.ACCOUNT_NOT_FOUND,)):
    """The account could not be read: when its session is lost, it is disconnected."""

    sync_id: UUID
    reason: Reason

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(GatewayRequest, self.sync_id)
        yield from touch_disconnect(book, self.account_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id, self.user_id)

        _conclude(book, account, self.sync_id, "accounts.sync", RequestState.REFUSED)
        if self.reason == SESSION_LOST and account.state == AccountState.CONNECTED:
            disconnect(book, account, self.reason)
            return {"account_id": str(account.id), "state": AccountState.DISCONNECTED}
        return {"account_id": str(account.id), "state": account.state}


class SendGift(
    OwnAccountCommand,
    kind="accounts.send_gift",
    sent_by=USER,
    rejects=(Code.ACCOUNT_NOT_FOUND, Code.GIFT_NOT_FOUND, Code.ACCOUNT_PERMISSION_DENIED, Code.ACCOUNT_NOT_ACTIVE),
):
    """Send a gift of the account to a user of Telegram."""

    gift_id: BigId
    receiver_id: UserId

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield Need(AccountGift, (self.account_id, self.gift_id))

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id)
        gift = book.get(AccountGift, (account.id, self.gift_id))
        if gift is None:
            raise Rejection(Code.GIFT_NOT_FOUND)
        require_account_owner(account, envelope.actor)
        require_account_state(account, AccountState.CONNECTED)

        ids = {"account_id": account.id, "gift_id": str(gift.gift_id)}
        body = {**ids, "message_ref": gift.message_ref, "receiver_id": self.receiver_id}
        names = {"user_id": account.user_id, **ids, "send_id": envelope.id}
        request(book, "gift.send", body, account=of_account(account.id), answers="accounts.send_gift", names=names)
        return {"send_id": str(envelope.id)}


class _SendAnswer(AccountAnswer):
    gift_id: BigId
    send_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(TelegramAccount, self.account_id)
        yield Need(AccountGift, (self.account_id, self.gift_id))
        yield Need(GatewayRequest, self.send_id)


class ConfirmSendGift(
    _SendAnswer, kind="accounts.send_gift_confirm", sent_by=SYSTEM, rejects=(Code.ACCOUNT_NOT_FOUND,)
):
    """The gift has moved."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id, self.user_id)

        _conclude(book, account, self.send_id, "accounts.send_gift", RequestState.DONE)
        gift = book.get(AccountGift, (account.id, self.gift_id))
        if gift is not None:
            book.remove(gift)
        tell_account(book, "account.gift_sent", account, gift_id=str(self.gift_id))
        return {"send_id": str(self.send_id)}


class FailSendGift(_SendAnswer, kind="accounts.send_gift_fail", sent_by=SYSTEM, rejects=(Code.ACCOUNT_NOT_FOUND,)):
    """The gift has not moved."""

    reason: Reason

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id, self.user_id)

        _conclude(book, account, self.send_id, "accounts.send_gift", RequestState.REFUSED)
        tell_account(book, "account.gift_send_failed", account, gift_id=str(self.gift_id), reason=self.reason)
        return {"send_id": str(self.send_id)}


def _conclude(book: Book, account: TelegramAccount, reference: UUID, answers: str, answer: RequestState) -> None:
    """End the request that was answered. No document waits for it, so nothing but this tells it from another's."""
    asked = book.get(GatewayRequest, reference)
    if asked is not None and asked.answers == answers and from_json(asked.body)["account_id"] == str(account.id):
        conclude(book, reference, answer)
