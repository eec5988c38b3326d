"""Money in: deposits that the feed found in the platform's wallet. Key `user:<id in memo>` or `wallet:<wallet>`."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from commands.book import DEPOSITS, UNCLAIMED, Account, Book, Need, Side, available, document
from commands.command import BIGINT_MAX, PRINTABLE, SYSTEM, Command, Envelope
from commands.outcome import Code, Rejection
from commands.users import User, user_of


def _storable(memo: str) -> str:
    """A deposit must be recorded whatever was written into its memo, and PostgreSQL keeps no NUL."""
    return memo.replace("\0", "\N{REPLACEMENT CHARACTER}")


Address = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=PRINTABLE)]
Memo = Annotated[str, StringConstraints(max_length=255), AfterValidator(_storable)]


@document("deposits", key=("wallet", "logical_time", "hash"))
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


class RecordDeposit(Command, kind="market.deposit", sent_by=SYSTEM):
    wallet: Address
    logical_time: Annotated[int, Field(ge=1, le=BIGINT_MAX)]
    hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
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
