"""Money out: withdrawals to a TON address. Key `user:<user_id>`.

The whole amount is held until the payment is known to be made or known never to be made.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import Field, StringConstraints

from commands.book import EXPENSE, FEES, WITHDRAWALS, Account, Book, Side, held
from commands.command import (
    BIGINT_MAX,
    PRINTABLE,
    SYSTEM,
    USER,
    Command,
    Envelope,
    Invalid,
    PriceNano,
    UserId,
    Within,
)
from commands.document import Hold, Need, Scope, document
from commands.market.ton import read_address, same_account
from commands.outcome import Code, Rejection
from commands.requests import (
    EXPIRED,
    WALLET,
    GatewayRequest,
    RequestState,
    SagaState,
    answer_of,
    conclude,
    request,
    require_requested,
    set_expiry,
)
from commands.terms import Terms
from commands.users import User

OP = "ton.pay"
COMMENT_MAX_BYTES = 120
_DAY = timedelta(days=1)

WithdrawFailReason = Literal["address_rejected", "never_broadcast", "refused", "expired"]


@document("withdrawals", indexes={"user_id": Scope.RECENT}, holds=(Hold("withdrawal", "user_id", "held_nano"),))
class Withdrawal(NamedTuple):
    """`amount_nano` is gross: the fee is kept from it, the rest is paid out."""

    id: UUID
    user_id: int
    amount_nano: int
    fee_nano: int
    held_nano: int
    address: str
    comment: str | None
    state: str
    tx_hash: str | None
    logical_time: int | None
    network_fee_nano: int | None
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


class Withdraw(
    Command,
    kind="market.withdraw",
    sent_by=USER,
    needs_key=True,
    rejects=(Code.ADDRESS_NOT_ALLOWED, Code.WITHDRAWAL_LIMIT, Code.INSUFFICIENT_BALANCE),
):
    """Pay out to an address: the amount is held until the payment is on the chain. Needs an idempotency key."""

    amount_nano: Annotated[PriceNano, Within("withdraw_min_nano", "withdraw_max_nano")]
    address: Annotated[str, StringConstraints(min_length=48, max_length=48)]
    comment: Annotated[str, StringConstraints(max_length=COMMENT_MAX_BYTES, pattern=PRINTABLE)] | None = None

    def check(self, terms: Terms) -> None:
        super().check(terms)
        address = read_address(self.address)
        if address is None:
            raise Invalid(("payload.address", "is not a TON address, or its checksum is wrong"))
        if address.testnet != (terms.ton_network == "testnet"):
            raise Invalid(("payload.address", f"is not an address of {terms.ton_network}"))
        if self.comment is not None and len(self.comment.encode()) > COMMENT_MAX_BYTES:
            raise Invalid(("payload.comment", f"must have at most {COMMENT_MAX_BYTES} bytes"))

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{actor}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Withdrawal, envelope.actor, "user_id")
        yield Need(Account, envelope.actor)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        terms, user_id = book.terms, envelope.actor
        assert user_id is not None  # noqa: S101 - sent as a user
        user = book.get(User, user_id)
        assert user is not None  # noqa: S101 - an actor is a user
        if same_account(self.address, terms.wallet):
            raise Rejection(Code.ADDRESS_NOT_ALLOWED)
        if user.withdrawn_at is not None:
            retry_at = user.withdrawn_at + timedelta(seconds=terms.withdraw_interval_seconds)
            if envelope.accepted_at < retry_at:
                raise Rejection(Code.WITHDRAWAL_LIMIT, retry_at=retry_at)
        left_nano = terms.withdraw_daily_max_nano - _withdrawn_nano(book, user_id)
        if self.amount_nano > left_nano:
            raise Rejection(Code.WITHDRAWAL_LIMIT, left_nano=max(0, left_nano))
        book.require_available(user_id, self.amount_nano)

        book.hold(user_id, self.amount_nano, "withdrawal", envelope.id)
        book.put(user._replace(withdrawn_at=envelope.accepted_at))
        withdrawal = Withdrawal(
            id=envelope.id,
            user_id=user_id,
            amount_nano=self.amount_nano,
            fee_nano=terms.withdraw_fee_nano,
            held_nano=self.amount_nano,
            address=self.address,
            comment=self.comment,
            state=SagaState.REQUESTED,
            tx_hash=None,
            logical_time=None,
            network_fee_nano=None,
            reason=None,
            opened_at=book.now,
            closed_at=None,
        )
        book.put(withdrawal)
        net_nano = withdrawal.amount_nano - withdrawal.fee_nano
        request(
            book,
            OP,
            {"address": self.address, "amount_nano": net_nano, "comment": self.comment},
            account=WALLET,
            answers="market.withdraw",
            names={"user_id": user_id, "withdrawal_id": envelope.id},
        )
        set_expiry(book, FailWithdrawal(user_id=user_id, withdrawal_id=envelope.id, reason=EXPIRED))
        _tell(book, "withdrawal.requested", withdrawal)
        amounts = {"amount_nano": withdrawal.amount_nano, "fee_nano": withdrawal.fee_nano, "net_nano": net_nano}
        return {"withdrawal_id": str(envelope.id), **amounts}


class _Answer(Command):
    """What came of a payment."""

    user_id: UserId
    withdrawal_id: UUID

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{self.user_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Withdrawal, self.withdrawal_id)
        yield Need(GatewayRequest, self.withdrawal_id)
        yield Need(Account, self.user_id)

    def take(self, book: Book, answer: RequestState) -> Withdrawal:
        """The guards of both answers; the request is over."""
        withdrawal = book.get(Withdrawal, self.withdrawal_id)
        if withdrawal is None or withdrawal.user_id != self.user_id:
            raise Rejection(Code.WITHDRAWAL_NOT_FOUND)
        require_requested(OP, withdrawal.id, withdrawal.state, answer)
        conclude(book, withdrawal.id, answer)
        return withdrawal


class ConfirmWithdrawal(
    _Answer, kind="market.withdraw_confirm", sent_by=SYSTEM, rejects=(Code.WITHDRAWAL_NOT_FOUND, Code.REQUEST_NOT_OPEN)
):
    """The payment is on the chain."""

    tx_hash: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=PRINTABLE)]
    logical_time: Annotated[int, Field(ge=1, le=BIGINT_MAX)]
    network_fee_nano: Annotated[int, Field(ge=0, lt=2**53)]

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        withdrawal = self.take(book, RequestState.DONE)

        payer, fee_nano = held(withdrawal.user_id), withdrawal.fee_nano
        book.post(payer, Side(WITHDRAWALS), withdrawal.amount_nano - fee_nano, "withdrawal", withdrawal.id)
        book.post(payer, Side(FEES), fee_nano, "withdrawal", withdrawal.id)
        book.post(Side(EXPENSE), Side(WITHDRAWALS), self.network_fee_nano, "withdrawal", withdrawal.id)
        withdrawal = withdrawal._replace(
            state=SagaState.CONFIRMED,
            held_nano=0,
            tx_hash=self.tx_hash,
            logical_time=self.logical_time,
            network_fee_nano=self.network_fee_nano,
            closed_at=book.now,
        )
        book.put(withdrawal)
        _tell(book, "withdrawal.confirmed", withdrawal, tx_hash=self.tx_hash)
        return {"withdrawal_id": str(withdrawal.id), "state": withdrawal.state, "tx_hash": self.tx_hash}


class FailWithdrawal(
    _Answer,
    kind="market.withdraw_fail",
    sent_by=SYSTEM,
    rejects=(Code.WITHDRAWAL_NOT_FOUND, Code.REQUEST_NOT_OPEN, Code.REQUEST_IN_FLIGHT),
):
    """The payment was not made and never will be."""

    reason: WithdrawFailReason

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        withdrawal = self.take(book, answer_of(self.reason))

        book.release(withdrawal.user_id, withdrawal.held_nano, "withdrawal", withdrawal.id)
        withdrawal = withdrawal._replace(state=SagaState.FAILED, held_nano=0, reason=self.reason, closed_at=book.now)
        book.put(withdrawal)
        _tell(book, "withdrawal.failed", withdrawal, reason=self.reason)
        return {"withdrawal_id": str(withdrawal.id), "state": withdrawal.state}


def _withdrawn_nano(book: Book, user_id: int) -> int:
    """What the user withdrew, or is about to, in the last 24 hours."""
    return sum(
        withdrawal.amount_nano
        for withdrawal in book.find(Withdrawal, "user_id", user_id)
        if withdrawal.state != SagaState.FAILED and withdrawal.opened_at > book.now - _DAY
    )


def _tell(book: Book, name: str, withdrawal: Withdrawal, **fields: Any) -> None:
    book.emit(
        name,
        f"user:{withdrawal.user_id}",
        "ops",
        withdrawal_id=str(withdrawal.id),
        amount_nano=withdrawal.amount_nano,
        fee_nano=withdrawal.fee_nano,
        **fields,
    )
