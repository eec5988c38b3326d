"""What a command ends as: one outcome, written once. A refusal by the rules is an outcome like any other."""

from enum import StrEnum
from typing import Any, NamedTuple


class Status(StrEnum):
    """scheduled → accepted → one of the five final ones. There is no `running`: the lease says that."""

    SCHEDULED = "scheduled"
    ACCEPTED = "accepted"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self not in (Status.SCHEDULED, Status.ACCEPTED)


class Code(StrEnum):
    """Every rejection code, in the order in which its guard is looked for; the value is the sentence of its detail."""

    USER_NOT_FOUND = "There is no such user."
    USER_BLOCKED = "The user is blocked."
    NFT_NOT_FOUND = "There is no such item in custody."
    NFT_PERMISSION_DENIED = "The item belongs to somebody else."
    INTAKE_ALREADY_RECORDED = "This gift message has been recorded before."
    DEPOSIT_ALREADY_RECORDED = "This transaction has been recorded before."
    NFT_RETURN_OPEN = "The item is on its way back to Telegram; send again when that has ended."
    NFT_ALREADY_IN_CUSTODY = "The gift is in custody already."
    NFT_NOT_ON_SALE = "The item is not on sale."
    NFT_ON_AUCTION = "The item is on auction."
    NFT_IN_BUNDLE = "The item is part of a bundle."
    NFT_NOT_AVAILABLE = "The item is not available in its present state."
    SELF_TRADE_NOT_ALLOWED = "Both sides are the same user."
    PRICE_CHANGED = "The price is not the one that was seen."
    INSUFFICIENT_BALANCE = "The available balance does not cover the amount."


class Rejection(Exception):
    """The rules said no. `facts` are the code's documented details, JSON values."""

    def __init__(self, code: Code, **facts: Any) -> None:
        super().__init__(code.name)
        self.code = code
        self.facts = facts

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code.name, "detail": self.code.value, **self.facts}


class Outcome(NamedTuple):
    """A final status with its result (succeeded), its rejection (rejected) or its traceback (failed, for operators)."""

    status: Status
    result: dict[str, Any] | None = None
    rejection: dict[str, Any] | None = None
    error: str | None = None
