"""Money in: deposits that the feed found in the platform's wallet, and what operators put right.

Key `user:<id in memo>` or `wallet:<wallet>` for a deposit, `user:<user_id>` for the operators' commands.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from commands.book import DEPOSITS, EXPENSE, UNCLAIMED, Account, Book, Side, available
from commands.command import BIGINT_MAX, OPERATOR, PRINTABLE, SYSTEM, Command, Envelope, Invalid, Reason, UserId
from commands.document import Need, Scope, document
from commands.outcome import Code, Rejection
from commands.terms import Terms
from commands.users import User, require_user, touch_user, user_of


def _storable(memo: str) -> str:
    """A deposit must be recorded whatever was written into its memo, and PostgreSQL keeps no NUL."""
    return memo.replace("\0", "\N{REPLACEMENT CHARACTER}")


Address = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=PRINTABLE)]
TransactionHash = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$"), AfterValidator(str.lower)]
"""One transaction in either case, and so one deposit."""
Memo = Annotated[str, StringConstraints(max_length=255), AfterValidator(_storable)]


@document("deposits", key=("wallet", "logical_time", "hash"), indexes={"id": Scope.ALL})
class Deposit(NamedTuple):
    """A final incoming transfer of the wallet, credited to a user or kept for an operator to assign."""

    wallet: str
    logical_time: int
    hash: str
    id: UUID
    amount_nano: int
    memo: str
    from_address: str | None
    user_id: int | None
    state: str
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


class RecordDeposit(Command, kind="market.deposit", sent_by=SYSTEM, rejects=(Code.DEPOSIT_ALREADY_RECORDED,)):
    """The deposit feed saw a final transfer into the wallet: credited to the user in its memo, or kept unclaimed."""

    wallet: Address
    logical_time: Annotated[int, Field(ge=1, le=BIGINT_MAX)]
    hash: TransactionHash
    amount_nano: Annotated[int, Field(ge=1, le=10**18)]
    memo: Memo
    from_address: Address | None = None

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        user_id = user_of(self.memo)
        return f"wallet:{self.wallet}" if user_id is None else f"user:{user_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Deposit, (self.wallet, self.logical_time, self.hash))
        user_id = user_of(self.memo)
        if user_id is not None:
            yield Need(User, user_id)
            yield Need(Account, user_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        if book.get(Deposit, (self.wallet, self.logical_time, self.hash)) is not None:
            raise Rejection(Code.DEPOSIT_ALREADY_RECORDED)

        user_id = user_of(self.memo)
        reason = self._why_unclaimed(book, user_id)
        if reason is not None:
            user_id = None
        credited = user_id is not None
        state = "credited" if credited else "unclaimed"
        book.put(
            Deposit(
                wallet=self.wallet,
                logical_time=self.logical_time,
                hash=self.hash,
                id=envelope.id,
                amount_nano=self.amount_nano,
                memo=self.memo,
                from_address=self.from_address,
                user_id=user_id,
                state=state,
                reason=reason,
                opened_at=book.now,
                closed_at=book.now if credited else None,
            )
        )
        account = Side(UNCLAIMED) if user_id is None else available(user_id)
        book.post(Side(DEPOSITS), account, self.amount_nano, "deposit", envelope.id)
        fields = {"deposit_id": str(envelope.id), "amount_nano": self.amount_nano, "tx_hash": self.hash}
        if user_id is None:
            book.emit("deposit.unclaimed", "ops", **fields, reason=reason)
            return {"deposit_id": str(envelope.id), "state": state}
        book.emit("deposit.credited", f"user:{user_id}", "ops", **fields)
        return {"deposit_id": str(envelope.id), "state": state, "user_id": user_id}

    def _why_unclaimed(self, book: Book, user_id: int | None) -> str | None:
        if user_id is None:
            return "memo_unreadable"
        if book.get(User, user_id) is None:
            return "user_unknown"
        if self.amount_nano < book.terms.deposit_min_nano:
            return "below_minimum"
        if self.amount_nano > book.terms.deposit_max_nano:
            return "above_maximum"
        return None


class AssignDeposit(
    Command,
    kind="market.assign_deposit",
    sent_by=OPERATOR,
    rejects=(Code.USER_NOT_FOUND, Code.DEPOSIT_NOT_FOUND, Code.DEPOSIT_NOT_UNCLAIMED),
):
    """Credit a user with a deposit that nobody has been credited with."""

    deposit_id: UUID
    user_id: UserId

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{self.user_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_user(self.user_id)
        yield Need(Deposit, self.deposit_id, "id")

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        require_user(book, self.user_id)
        deposits = book.find(Deposit, "id", self.deposit_id)
        if not deposits:
            raise Rejection(Code.DEPOSIT_NOT_FOUND)
        [deposit] = deposits
        if deposit.state != "unclaimed":
            raise Rejection(Code.DEPOSIT_NOT_UNCLAIMED)

        book.put(deposit._replace(user_id=self.user_id, state="assigned", closed_at=book.now))
        book.post(Side(UNCLAIMED), available(self.user_id), deposit.amount_nano, "deposit", deposit.id)
        fields = {"deposit_id": str(deposit.id), "amount_nano": deposit.amount_nano, "tx_hash": deposit.hash}
        book.emit("deposit.assigned", f"user:{self.user_id}", "ops", **fields)
        return {"deposit_id": str(deposit.id), "user_id": self.user_id}


class Adjust(Command, kind="market.adjust", sent_by=OPERATOR, rejects=(Code.USER_NOT_FOUND, Code.INSUFFICIENT_BALANCE)):
    """Give a user money of the platform's, or take it, by the sign of the amount."""

    user_id: UserId
    amount_nano: Annotated[int, Field(gt=-(2**53), lt=2**53)]
    reason: Reason

    def check(self, terms: Terms) -> None:
        if self.amount_nano == 0:
            raise Invalid(("payload.amount_nano", "must not be 0"))

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"user:{self.user_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_user(self.user_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        require_user(book, self.user_id)
        book.require_available(self.user_id, -self.amount_nano)

        if self.amount_nano > 0:
            book.post(Side(EXPENSE), available(self.user_id), self.amount_nano)
        else:
            book.post(available(self.user_id), Side(EXPENSE), -self.amount_nano)
        return {"amount_nano": self.amount_nano}
