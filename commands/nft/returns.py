"""Items on their way back to Telegram. Key `nft:<nft_id>`.

The item is reserved and the fee held until the gift is known to have moved, or known not to.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from commands.book import FEES, Account, Book, Side, held
from commands.command import SYSTEM, USER, BigId, Command, Envelope
from commands.document import Hold, Need, document
from commands.nft.items import (
    NOT_FREE,
    Nft,
    NftState,
    end_dependents,
    require_free,
    require_nft,
    require_owner,
    touch_dependents,
    touch_item,
)
from commands.outcome import Code, Rejection
from commands.requests import (
    BANK,
    EXPIRED,
    GatewayRequest,
    RequestState,
    SagaState,
    answer_of,
    conclude,
    request,
    require_requested,
    set_expiry,
)

OP = "gift.transfer"

ReturnFailReason = Literal["receiver_refused", "not_transferable", "refused", "expired"]


@document("returns", holds=(Hold("return", "user_id", "held_nano"),))
class Return(NamedTuple):
    """An item that its owner wants back in Telegram."""

    id: UUID
    nft_id: int
    user_id: int
    fee_nano: int
    held_nano: int
    state: str
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


class ReturnItem(
    Command,
    kind="nft.return",
    sent_by=USER,
    rejects=(Code.NFT_NOT_FOUND, Code.NFT_PERMISSION_DENIED, *NOT_FREE, Code.INSUFFICIENT_BALANCE),
):
    """Have the gift sent back to its owner in Telegram, for a fee that is held until it is there."""

    nft_id: BigId

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"nft:{self.nft_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_item(book, self.nft_id)
        yield from touch_dependents(book, self.nft_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        user_id, fee_nano = envelope.actor, book.terms.return_fee_nano
        nft = require_nft(book, self.nft_id)
        require_owner(nft, user_id)
        require_free(nft)
        assert user_id is not None  # noqa: S101 - sent as a user
        book.require_available(user_id, fee_nano)

        book.hold(user_id, fee_nano, "return", envelope.id)
        nft = end_dependents(book, nft, "returned")
        book.put(nft._replace(state=NftState.WITHDRAWING, reserved_by=envelope.id, reserved_kind="return"))
        book.put(
            Return(
                id=envelope.id,
                nft_id=nft.id,
                user_id=user_id,
                fee_nano=fee_nano,
                held_nano=fee_nano,
                state=SagaState.REQUESTED,
                reason=None,
                opened_at=book.now,
                closed_at=None,
            )
        )
        request(
            book,
            OP,
            {
                "nft_id": str(nft.id),
                "gift_id": str(nft.gift_id),
                "message_ref": nft.message_ref,
                "receiver_id": user_id,
            },
            account=BANK,
            answers="nft.return",
            names={"nft_id": str(nft.id), "return_id": envelope.id},
        )
        set_expiry(book, FailReturn(nft_id=nft.id, return_id=envelope.id, reason=EXPIRED))
        ids = {"nft_id": str(nft.id), "return_id": str(envelope.id)}
        book.emit("nft.return_requested", f"user:{user_id}", **ids)
        return {**ids, "fee_nano": fee_nano}


class _Answer(Command):
    """What came of a transfer to the owner."""

    nft_id: BigId
    return_id: UUID

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"nft:{self.nft_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Nft, self.nft_id)
        yield Need(Return, self.return_id)
        yield Need(GatewayRequest, self.return_id)
        asked = book.peek(Return, self.return_id)
        if asked is not None:
            yield Need(Account, asked.user_id)

    def take(self, book: Book, answer: RequestState) -> Return:
        """The guards of both answers; the request is over."""
        asked = book.get(Return, self.return_id)
        if asked is None or asked.nft_id != self.nft_id:
            raise Rejection(Code.RETURN_NOT_FOUND)
        require_requested(OP, asked.id, asked.state, answer)
        conclude(book, asked.id, answer)
        return asked

    def end(self, book: Book, asked: Return, state: SagaState, reason: str | None = None) -> dict[str, Any]:
        book.put(asked._replace(state=state, held_nano=0, reason=reason, closed_at=book.now))
        return {"return_id": str(asked.id), "state": state}


class ConfirmReturn(
    _Answer, kind="nft.return_confirm", sent_by=SYSTEM, rejects=(Code.RETURN_NOT_FOUND, Code.REQUEST_NOT_OPEN)
):
    """The gift is the owner's again, in Telegram."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        asked = self.take(book, RequestState.DONE)

        book.post(held(asked.user_id), Side(FEES), asked.held_nano, "return", asked.id)
        book.put(
            require_nft(book, self.nft_id)._replace(
                state=NftState.EXTERNAL,
                owner_id=None,
                reserved_by=None,
                reserved_kind=None,
                message_ref=None,
                closed_at=book.now,
            )
        )
        ids = {"nft_id": str(self.nft_id), "return_id": str(asked.id)}
        book.emit("nft.returned", f"nft:{self.nft_id}", **ids)
        book.emit("nft.returned", f"user:{asked.user_id}", **ids)
        return self.end(book, asked, SagaState.CONFIRMED)


class FailReturn(
    _Answer,
    kind="nft.return_fail",
    sent_by=SYSTEM,
    rejects=(Code.RETURN_NOT_FOUND, Code.REQUEST_NOT_OPEN, Code.REQUEST_IN_FLIGHT),
):
    """The gift stays with the bank, and the item with its owner."""

    reason: ReturnFailReason

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        asked = self.take(book, answer_of(self.reason))

        book.release(asked.user_id, asked.held_nano, "return", asked.id)
        nft = require_nft(book, self.nft_id)
        book.put(nft._replace(state=NftState.HELD, reserved_by=None, reserved_kind=None))
        book.emit(
            "nft.return_failed",
            f"user:{asked.user_id}",
            nft_id=str(nft.id),
            return_id=str(asked.id),
            reason=self.reason,
        )
        return self.end(book, asked, SagaState.FAILED, self.reason)
