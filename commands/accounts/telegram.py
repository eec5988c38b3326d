"""Users' own Telegram accounts and the channels in them: the documents, and what their two mechanisms share."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from commands.book import Book
from commands.command import BigId, Command, Envelope, UserId
from commands.document import Need, Scope, document
from commands.outcome import Code, Rejection
from commands.requests import GatewayRequest, abandon, of_account, request


class AccountState(StrEnum):
    REQUESTED = "requested"
    CODE_SENT = "code_sent"
    SIGNING_IN = "signing_in"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    FAILED = "failed"


class ChannelState(StrEnum):
    CHECKING = "checking"
    UNLISTED = "unlisted"
    LISTED = "listed"
    SELLING = "selling"
    SOLD = "sold"
    REFUSED = "refused"
    DELETED = "deleted"


@document("telegram_accounts", indexes={"user_id": Scope.OPEN, "phone": Scope.OPEN, "telegram_id": Scope.OPEN})
class TelegramAccount(NamedTuple):
    """A user's own Telegram login. A phone may be in several open attempts; it is connected once.

    `approve_id` is the last sign-in; `reason` why it failed, also while another one may follow.
    """

    id: UUID
    user_id: int
    phone: str
    name: str | None
    telegram_id: int | None
    stars: int
    premium: bool
    state: str
    connected_at: datetime | None
    approve_id: UUID | None
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


@document("account_gifts", key=("account_id", "gift_id"), indexes={"account_id": Scope.ALL})
class AccountGift(NamedTuple):
    """A gift in the last snapshot of an account: it can be sent, and is never traded here."""

    account_id: UUID
    gift_id: int
    message_ref: str


@document("account_channels", key=("account_id", "channel_id"), indexes={"account_id": Scope.ALL})
class AccountChannel(NamedTuple):
    """A channel in the last snapshot of an account."""

    account_id: UUID
    channel_id: int
    title: str
    username: str | None


@document("channels", indexes={"account_id": Scope.OPEN})
class Channel(NamedTuple):
    """A Telegram channel that is sold with the gifts in it.

    `check_id` is the last inspection. `gifts` is JSON, `[{"gift_id", "quantity"}]` as inspected; `gifts_hash` tells
    whether they have changed since. `price_nano` and `fee_bp` are set while listed or selling, `reserved_by` while
    selling.
    """

    id: int
    owner_id: int
    account_id: UUID
    check_id: UUID
    title: str | None
    username: str | None
    gifts: str
    gifts_hash: str | None
    price_nano: int | None
    fee_bp: int | None
    state: str
    reserved_by: UUID | None
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


# What people write into Telegram is recorded as it is; but PostgreSQL keeps no NUL.
Title = Annotated[
    str, StringConstraints(max_length=255), AfterValidator(lambda text: text.replace("\0", "\N{REPLACEMENT CHARACTER}"))
]
Stars = Annotated[int, Field(ge=0, lt=2**53)]


class OwnAccountCommand(Command):
    """What a user sends about an own account."""

    account_id: UUID

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{actor}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(TelegramAccount, self.account_id)


class AccountAnswer(Command):
    """What the gateway says about an account."""

    user_id: UserId
    account_id: UUID

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{self.user_id}"


class ChannelCommand(Command):
    """What the commands about one channel share."""

    channel_id: BigId

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"channel:{self.channel_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Channel, self.channel_id)

    def found(self, book: Book) -> Channel:
        channel = book.get(Channel, self.channel_id)
        if channel is None or channel.closed_at is not None:
            raise Rejection(Code.CHANNEL_NOT_FOUND)
        return channel


def found_account(book: Book, account_id: UUID, user_id: int | None = None) -> TelegramAccount:
    """The account; with a user, that user's: somebody else's is not found."""
    account = book.get(TelegramAccount, account_id)
    if account is None or user_id not in (None, account.user_id):
        raise Rejection(Code.ACCOUNT_NOT_FOUND)
    return account


def require_account_owner(account: TelegramAccount, user_id: int | None) -> None:
    if account.user_id != user_id:
        raise Rejection(Code.ACCOUNT_PERMISSION_DENIED)


def require_account_state(account: TelegramAccount, *states: AccountState) -> None:
    if account.state not in states:
        raise Rejection(Code.ACCOUNT_NOT_ACTIVE, state=account.state)


def touch_unfinished(book: Book, account_id: UUID) -> Iterator[Need]:
    """The account, and the requests that it may wait for."""
    yield Need(TelegramAccount, account_id)
    yield Need(GatewayRequest, account_id)
    account = book.peek(TelegramAccount, account_id)
    if account is not None and account.approve_id is not None:
        yield Need(GatewayRequest, account.approve_id)


def abandon_unfinished(book: Book, account: TelegramAccount) -> None:
    """Send no code and sign nobody in, unless that is under way."""
    abandon(book, account.id)
    if account.approve_id is not None:
        abandon(book, account.approve_id)


def touch_disconnect(book: Book, account_id: UUID) -> Iterator[Need]:
    """What `disconnect` asks for. The account's lock keeps others from adding channels to it."""
    yield from touch_unfinished(book, account_id)
    if book.peek(TelegramAccount, account_id) is not None:
        yield Need(AccountGift, account_id, "account_id")
        yield Need(AccountChannel, account_id, "account_id")
        yield Need(Channel, account_id, "account_id")
        for channel in book.peek_found(Channel, "account_id", account_id):
            yield Need(GatewayRequest, channel.check_id)


def disconnect(book: Book, account: TelegramAccount, reason: str | None) -> int:
    """The account is gone, with its snapshot and its channels, but for one that is being sold; items in custody have
    nothing to do with it. Returns the number of channels deleted."""
    abandon_unfinished(book, account)
    book.put(account._replace(state=AccountState.DISCONNECTED, reason=reason, closed_at=book.now))
    drop_snapshot(book, account.id)
    channels = [
        channel for channel in book.find(Channel, "account_id", account.id) if channel.state != ChannelState.SELLING
    ]
    for channel in channels:
        delete_channel(book, channel)
    sign_out(book, account)
    tell_account(book, "account.disconnected", account, **({"reason": reason} if reason else {}))
    return len(channels)


def sign_out(book: Book, account: TelegramAccount) -> None:
    """End the login of an account that is closed in the same batch: couriers do so after all that it was asked before,
    of which nothing is attempted again."""
    request(book, "account.sign_out", {"account_id": account.id}, account=of_account(account.id))


def drop_snapshot(book: Book, account_id: UUID) -> None:
    for gift in book.find(AccountGift, "account_id", account_id):
        book.remove(gift)
    for channel in book.find(AccountChannel, "account_id", account_id):
        book.remove(channel)


def delete_channel(book: Book, channel: Channel) -> None:
    """The channel is off the market; nobody need inspect it any more."""
    abandon(book, channel.check_id)
    book.put(
        channel._replace(state=ChannelState.DELETED, price_nano=None, fee_bp=None, reason=None, closed_at=book.now)
    )
    tell_channel(book, "channel.deleted", channel)


def tell_account(book: Book, name: str, account: TelegramAccount, **fields: Any) -> None:
    book.emit(name, f"user:{account.user_id}", account_id=str(account.id), **fields)


def tell_channel(book: Book, name: str, channel: Channel, *topics: str, **fields: Any) -> None:
    """To the public, and to the owner."""
    fields = {"channel_id": str(channel.id), **fields}
    book.emit(name, f"channel:{channel.id}", *topics, **fields)
    book.emit(name, f"user:{channel.owner_id}", **fields)


def touch_account_of(book: Book, channel_id: int) -> Iterator[Need]:
    channel = book.peek(Channel, channel_id)
    if channel is not None:
        yield Need(TelegramAccount, channel.account_id)


def require_not_selling(channel: Channel) -> None:
    if channel.state == ChannelState.SELLING:
        raise Rejection(Code.CHANNEL_RESERVED)


def refuse_channel(book: Book, channel: Channel, reason: str) -> dict[str, Any]:
    """To be added again before it can be priced."""
    channel = channel._replace(
        state=ChannelState.REFUSED, price_nano=None, fee_bp=None, reserved_by=None, reason=reason
    )
    book.put(channel)
    tell_channel(book, "channel.refused", channel, reason=reason)
    return {"channel_id": str(channel.id), "state": channel.state, "reason": reason}
