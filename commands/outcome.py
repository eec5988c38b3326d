"""What a command ends as: one outcome, written once. A refusal by the rules is an outcome like any other."""

from enum import StrEnum
from typing import Any, NamedTuple, Self


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
    """Every rejection code; the value is the sentence of its detail. Rules look for the groups in this order, and each
    kind declares its own codes in the order in which it looks for them."""

    # actor
    USER_NOT_FOUND = "There is no such user."
    USER_BLOCKED = "The user is blocked."
    # existence
    NFT_NOT_FOUND = "There is no such item in custody."
    OFFER_NOT_FOUND = "There is no such offer on this item."
    AUCTION_NOT_FOUND = "There is no such auction of this item."
    PRESALE_NOT_FOUND = "There is no such presale of this gift."
    TRADE_NOT_FOUND = "There is no such trade."
    PROPOSAL_NOT_FOUND = "There is no such proposal to this trade."
    CHANNEL_NOT_FOUND = "There is no such channel on the market."
    ACCOUNT_NOT_FOUND = "There is no such Telegram account."
    WITHDRAWAL_NOT_FOUND = "There is no such withdrawal of this user."
    RETURN_NOT_FOUND = "There is no such return of this item."
    DEPOSIT_NOT_FOUND = "There is no such deposit."
    GIFT_NOT_FOUND = "The gift is not in the account's last snapshot."
    # permission
    NFT_PERMISSION_DENIED = "The item belongs to somebody else."
    NFTS_NOT_OWNED = "Some of the items belong to somebody else."
    OFFER_PERMISSION_DENIED = "That is for the other side of the offer."
    AUCTION_PERMISSION_DENIED = "The auction is somebody else's."
    PRESALE_PERMISSION_DENIED = "The presale is somebody else's."
    TRADE_PERMISSION_DENIED = "The trade or proposal is somebody else's."
    CHANNEL_PERMISSION_DENIED = "The channel is somebody else's."
    ACCOUNT_PERMISSION_DENIED = "The Telegram account is somebody else's."
    # already there
    INTAKE_ALREADY_RECORDED = "This gift message has been recorded before."
    DEPOSIT_ALREADY_RECORDED = "This transaction has been recorded before."
    NFT_RETURN_OPEN = "The item is on its way back to Telegram; send again when that has ended."
    NFT_ALREADY_IN_CUSTODY = "The gift is in custody already."
    GIFT_HAS_PRESALE = "The sender has an open presale of this gift: it is delivered, not received."
    PRESALE_ALREADY_EXISTS = "The gift has an open presale already."
    CHANNEL_ALREADY_EXISTS = "The channel is on the market already."
    ACCOUNT_ALREADY_EXISTS = "The Telegram account or its name is connected already."
    OFFER_ALREADY_EXISTS = "The user has an open offer here already."
    PROPOSAL_ALREADY_EXISTS = "The user has an open proposal here already."
    AUCTION_ALREADY_EXISTS = "The item is on auction already."
    # state
    NFT_NOT_ON_SALE = "The item is not on sale."
    NFT_LISTED = "The item is listed: clear its price first."
    NFT_ON_AUCTION = "The item is on auction."
    NFT_IN_BUNDLE = "The item is part of a bundle."
    NFT_NOT_AVAILABLE = "The item is not available in its present state."
    OFFER_NOT_OPEN = "The offer is not open any more."
    OFFER_NO_COUNTER = "The owner has made no counter-offer."
    AUCTION_NOT_ACTIVE = "The auction is over."
    AUCTION_HAS_BIDS = "The auction has bids."
    PRESALE_NOT_AVAILABLE = "The presale is not available in its present state."
    PRESALE_ALREADY_BOUGHT = "The presale is sold."
    TRADE_NOT_OPEN = "The trade is not open any more."
    PROPOSAL_NOT_OPEN = "The proposal is not open any more."
    CHANNEL_NOT_ON_SALE = "The channel is not on sale."
    CHANNEL_NOT_READY = "The channel cannot be priced in its present state."
    CHANNEL_RESERVED = "The channel is being sold."
    ACCOUNT_NOT_ACTIVE = "The Telegram account is not in the state for that."
    ACCOUNT_IN_USE = "A channel of the Telegram account is being sold."
    ACCOUNT_TOO_NEW = "The Telegram account was connected too recently."
    DEPOSIT_NOT_UNCLAIMED = "The deposit is credited already."
    REQUEST_NOT_OPEN = "Nothing waits for this answer."
    REQUEST_IN_FLIGHT = "The request was attempted: only its answer can end it."
    # time
    OFFER_EXPIRED = "The offer has expired."
    OFFER_NOT_EXPIRED = "The offer has not expired."
    AUCTION_EXPIRED = "The auction has ended."
    AUCTION_NOT_EXPIRED = "The auction has not ended."
    PRESALE_EXPIRED = "The gift can be transferred already."
    PRESALE_NOT_EXPIRED = "The presale's deadline has not passed."
    # parties, price
    SELF_TRADE_NOT_ALLOWED = "Both sides are the same user."
    PRICE_CHANGED = "The price is not the one that was seen."
    FEE_TOO_HIGH = "The fee is above the maximum that was named."
    # amounts, matching
    OFFER_PRICE_TOO_LOW = "The offer is too far below the price."
    BID_TOO_LOW = "The bid is too low."
    TRADE_REQUIREMENTS_NOT_MET = "The items do not meet the requirements."
    ADDRESS_NOT_ALLOWED = "That address is the platform's own."
    WITHDRAWAL_LIMIT = "The limit of withdrawals is reached."
    LIMIT_REACHED = "The limit is reached."
    FLOOR_OUT_OF_DATE = "The floor is not newer than the one recorded, or lies in the future."
    # money
    INSUFFICIENT_BALANCE = "The available balance does not cover the amount."


class Rejection(Exception):
    """The rules said no. `facts` are the code's documented details, JSON values.

    A refused command leaves nothing behind, but for what it tells: the fact that it came may itself be worth an event.
    """

    def __init__(self, code: Code, **facts: Any) -> None:
        super().__init__(code.name)
        self.code = code
        self.facts = facts
        self.told: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []

    def telling(self, name: str, *topics: str, **fields: Any) -> Self:
        """With an event that is stored although the command is refused."""
        self.told.append((name, topics, fields))
        return self

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code.name, "detail": self.code.value, **self.facts}


class Outcome(NamedTuple):
    """A final status with its result (succeeded), its rejection (rejected) or its traceback (failed, for operators)."""

    status: Status
    result: dict[str, Any] | None = None
    rejection: dict[str, Any] | None = None
    error: str | None = None
