"""Telegram accounts: connected by the code that Telegram sends, and by a password where one is set. Key
`user:<user_id>`.

    requested ─▶ code_sent ⇄ signing_in ─▶ connected; from everywhere ─▶ failed or disconnected
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import StringConstraints

from commands.accounts.telegram import (
    AccountAnswer,
    AccountState,
    Channel,
    ChannelState,
    OwnAccountCommand,
    Stars,
    TelegramAccount,
    abandon_unfinished,
    disconnect,
    found_account,
    require_account_owner,
    require_account_state,
    sign_out,
    tell_account,
    touch_disconnect,
    touch_unfinished,
)
from commands.book import Book
from commands.command import PRINTABLE, SECRET, SYSTEM, USER, Command, Envelope, UserId
from commands.document import Need
from commands.outcome import Code, Rejection
from commands.requests import (
    EXPIRED,
    GatewayRequest,
    RequestState,
    answer_of,
    conclude,
    not_open,
    of_account,
    request,
    set_expiry,
)

SEND_CODE, SIGN_IN = "account.send_code", "account.sign_in"
SUPERSEDED, DUPLICATE = "superseded", "duplicate"

ConnectFailReason = Literal["phone_invalid", "flood", "refused", "expired"]
ApproveFailReason = Literal["code_wrong", "code_expired", "password_wrong", "password_needed", "refused", "expired"]
TRY_AGAIN = ("code_wrong", "password_wrong", "password_needed")
"""The reasons after which the same code, or another, may be entered."""

Phone = Annotated[str, StringConstraints(pattern=r"^\+[0-9]{8,15}$")]


class Connect(Command, kind="accounts.connect", sent_by=USER, rejects=(Code.ACCOUNT_ALREADY_EXISTS,)):
    """Have Telegram send a login code to the phone."""

    phone: Phone

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{actor}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(TelegramAccount, self.phone, "phone")
        for account in book.peek_found(TelegramAccount, "phone", self.phone):
            if account.user_id == envelope.actor:
                yield from touch_unfinished(book, account.id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        user_id = envelope.actor
        assert user_id is not None  # noqa: S101 - sent as a user
        accounts = book.find(TelegramAccount, "phone", self.phone)
        if any(account.state == AccountState.CONNECTED for account in accounts):
            raise Rejection(Code.ACCOUNT_ALREADY_EXISTS)

        for account in accounts:
            if account.user_id == user_id:
                abandon_unfinished(book, account)
                _fail(book, account, SUPERSEDED)
        book.put(
            TelegramAccount(
                id=envelope.id,
                user_id=user_id,
                phone=self.phone,
                name=None,
                telegram_id=None,
                stars=0,
                premium=False,
                state=AccountState.REQUESTED,
                connected_at=None,
                approve_id=None,
                reason=None,
                opened_at=book.now,
                closed_at=None,
            )
        )
        names = {"user_id": user_id, "account_id": envelope.id}
        body = {"account_id": envelope.id, "phone": self.phone}
        request(book, SEND_CODE, body, account=of_account(envelope.id), answers="accounts.connect", names=names)
        set_expiry(book, FailConnect(user_id=user_id, account_id=envelope.id, reason=EXPIRED))
        return {"account_id": str(envelope.id), "state": AccountState.REQUESTED}


class _ConnectAnswer(AccountAnswer):
    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(TelegramAccount, self.account_id)
        yield Need(GatewayRequest, self.account_id)

    def take(self, book: Book, answer: RequestState) -> TelegramAccount:
        """The guards of both answers; the request is over."""
        account = found_account(book, self.account_id, self.user_id)
        if account.state != AccountState.REQUESTED:
            raise not_open(SEND_CODE, account.id, account.state, answer, _connect_ended(account))
        conclude(book, account.id, answer)
        return account


class ConfirmConnect(
    _ConnectAnswer,
    kind="accounts.connect_confirm",
    sent_by=SYSTEM,
    rejects=(Code.ACCOUNT_NOT_FOUND, Code.REQUEST_NOT_OPEN),
):
    """The code is on its way to the phone."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = self.take(book, RequestState.DONE)

        return _put(book, account._replace(state=AccountState.CODE_SENT), "account.code_sent")


class FailConnect(
    _ConnectAnswer,
    kind="accounts.connect_fail",
    sent_by=SYSTEM,
    rejects=(Code.ACCOUNT_NOT_FOUND, Code.REQUEST_NOT_OPEN, Code.REQUEST_IN_FLIGHT),
):
    """No code was sent."""

    reason: ConnectFailReason

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = self.take(book, answer_of(self.reason))

        return _fail(book, account, self.reason)


class Approve(
    OwnAccountCommand,
    kind="accounts.approve",
    sent_by=USER,
    rejects=(
        Code.ACCOUNT_NOT_FOUND,
        Code.ACCOUNT_PERMISSION_DENIED,
        Code.ACCOUNT_ALREADY_EXISTS,
        Code.ACCOUNT_NOT_ACTIVE,
    ),
):
    """Sign in with the code, and name the account."""

    code: Annotated[str, StringConstraints(pattern=r"^[0-9]{4,10}$"), SECRET]
    password: Annotated[str, StringConstraints(min_length=1, max_length=255), SECRET] | None = None
    name: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=PRINTABLE)]

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield Need(TelegramAccount, envelope.actor, "user_id")
        account = book.peek(TelegramAccount, self.account_id)
        if account is not None:
            yield Need(TelegramAccount, account.phone, "phone")

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id)
        require_account_owner(account, envelope.actor)
        if _is_connected_elsewhere(book, account._replace(name=self.name)):
            raise Rejection(Code.ACCOUNT_ALREADY_EXISTS)
        require_account_state(account, AccountState.CODE_SENT)

        book.put(account._replace(state=AccountState.SIGNING_IN, approve_id=envelope.id, name=self.name, reason=None))
        names = {"user_id": account.user_id, "account_id": account.id, "approve_id": envelope.id}
        body = {"account_id": account.id, "phone": account.phone, "code": self.code, "password": self.password}
        request(book, SIGN_IN, body, account=of_account(account.id), answers="accounts.approve", names=names)
        fail = FailApprove(user_id=account.user_id, account_id=account.id, approve_id=envelope.id, reason=EXPIRED)
        set_expiry(book, fail)
        ids = {"account_id": str(account.id), "approve_id": str(envelope.id)}
        return {**ids, "state": AccountState.SIGNING_IN}


class _ApproveAnswer(AccountAnswer):
    approve_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(TelegramAccount, self.account_id)
        yield Need(GatewayRequest, self.approve_id)

    def take(self, book: Book, answer: RequestState) -> TelegramAccount:
        """The guards of both answers; the request is over."""
        account = found_account(book, self.account_id, self.user_id)
        if account.state != AccountState.SIGNING_IN or account.approve_id != self.approve_id:
            ended = _approve_ended(book, account, self.approve_id)
            raise not_open(SIGN_IN, self.approve_id, account.state, answer, ended)
        conclude(book, self.approve_id, answer)
        return account


class ConfirmApprove(
    _ApproveAnswer,
    kind="accounts.approve_confirm",
    sent_by=SYSTEM,
    rejects=(Code.ACCOUNT_NOT_FOUND, Code.REQUEST_NOT_OPEN),
):
    """Telegram let the account in."""

    telegram_id: UserId
    stars: Stars
    premium: bool

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from super().touches(book, envelope)
        yield Need(TelegramAccount, self.telegram_id, "telegram_id")
        yield Need(TelegramAccount, self.user_id, "user_id")
        account = book.peek(TelegramAccount, self.account_id)
        if account is not None:
            yield Need(TelegramAccount, account.phone, "phone")

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = self.take(book, RequestState.DONE)

        same = book.find(TelegramAccount, "telegram_id", self.telegram_id)
        if _is_connected_elsewhere(book, account) or any(_is_connected(other) for other in same):
            sign_out(book, account)
            return _fail(book, account, DUPLICATE)
        return _put(
            book,
            account._replace(
                state=AccountState.CONNECTED,
                telegram_id=self.telegram_id,
                stars=self.stars,
                premium=self.premium,
                connected_at=book.now,
            ),
            "account.connected",
        )


class FailApprove(
    _ApproveAnswer,
    kind="accounts.approve_fail",
    sent_by=SYSTEM,
    rejects=(Code.ACCOUNT_NOT_FOUND, Code.REQUEST_NOT_OPEN, Code.REQUEST_IN_FLIGHT),
):
    """Telegram did not let the account in: a wrong code or password may be corrected, all else ends the attempt."""

    reason: ApproveFailReason

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = self.take(book, answer_of(self.reason))

        if self.reason in TRY_AGAIN:
            account = account._replace(state=AccountState.CODE_SENT, reason=self.reason)
            return _put(book, account, "account.code_sent", reason=self.reason)
        return _fail(book, account, self.reason)


class Disconnect(
    OwnAccountCommand,
    kind="accounts.disconnect",
    sent_by=USER,
    releases_only=True,
    rejects=(Code.ACCOUNT_NOT_FOUND, Code.ACCOUNT_PERMISSION_DENIED, Code.ACCOUNT_NOT_ACTIVE, Code.ACCOUNT_IN_USE),
):
    """Give the login back. What the account's owner has in custody stays."""

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_disconnect(book, self.account_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        account = found_account(book, self.account_id)
        require_account_owner(account, envelope.actor)
        if account.closed_at is not None:
            raise Rejection(Code.ACCOUNT_NOT_ACTIVE, state=account.state)
        channels = book.find(Channel, "account_id", account.id)
        if any(channel.state == ChannelState.SELLING for channel in channels):
            raise Rejection(Code.ACCOUNT_IN_USE)

        deleted = disconnect(book, account, None)
        return {"account_id": str(account.id), "channels_deleted": deleted}


def _is_connected(account: TelegramAccount) -> bool:
    return account.state == AccountState.CONNECTED


def _is_connected_elsewhere(book: Book, account: TelegramAccount) -> bool:
    """Whether the phone, or its owner's name for the account, is another connected account's."""
    others = book.find(TelegramAccount, "phone", account.phone)
    others += [own for own in book.find(TelegramAccount, "user_id", account.user_id) if own.name == account.name]
    return any(_is_connected(other) for other in others if other.id != account.id)


def _connect_ended(account: TelegramAccount) -> RequestState | None:
    """The answer that the request for a code got; null while none came."""
    sent = (AccountState.CODE_SENT, AccountState.SIGNING_IN, AccountState.CONNECTED)
    if account.state in sent or account.approve_id is not None:
        return RequestState.DONE
    failed = account.state == AccountState.FAILED and account.reason != SUPERSEDED
    return RequestState.REFUSED if failed else None


def _approve_ended(book: Book, account: TelegramAccount, approve_id: UUID) -> RequestState | None:
    """The answer that a request to sign in got; null while none came. One that another followed was refused."""
    if account.approve_id != approve_id:
        return None if book.get(GatewayRequest, approve_id) is None else RequestState.REFUSED
    if account.connected_at is not None or account.reason == DUPLICATE:
        return RequestState.DONE
    given_up = account.state == AccountState.DISCONNECTED or account.reason == SUPERSEDED
    return None if given_up else RequestState.REFUSED


def _put(book: Book, account: TelegramAccount, event: str, **fields: Any) -> dict[str, Any]:
    book.put(account)
    tell_account(book, event, account, **fields)
    return {"account_id": str(account.id), "state": account.state}


def _fail(book: Book, account: TelegramAccount, reason: str) -> dict[str, Any]:
    account = account._replace(state=AccountState.FAILED, reason=reason, closed_at=book.now)
    return _put(book, account, "account.failed", reason=reason)
