"""The ground of the model: documents, money, timers, and who may send a command.

A user's money is what is available; what is held follows from the open documents (`holds`), so the two cannot disagree.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple, final
from uuid import UUID

BP = 10_000
TIMER_GRACE = timedelta(seconds=2)
GIVE_UP = timedelta(hours=1)


class Limits(NamedTuple):
    """The limits that a test makes small enough to reach."""

    offers_per_item: int
    proposals_per_trade: int
    trades_per_item: int
    withdrawn_daily_nano: int
    wallet: str


@dataclass
class Sent:
    """A command as the marketplace gets it; an absent field is null."""

    id: UUID
    kind: str
    fields: Mapping[str, Any]
    actor: int | None
    accepted_at: datetime
    now: datetime

    def __getitem__(self, name: str) -> Any:
        return self.fields.get(name)

    @property
    def user(self) -> int:
        assert self.actor is not None
        return self.actor


class Refused(Exception):
    def __init__(self, code: str, facts: dict[str, Any]) -> None:
        super().__init__(code, facts)
        self.code, self.facts = code, facts


def refuse(when: object, code: str, **facts: Any) -> None:
    if when:
        raise Refused(code, facts)


# -- documents: their fields have the contract's names


@dataclass
class Document:
    closed: ClassVar[tuple[str, ...]] = ()
    state: str

    @property
    def is_open(self) -> bool:
        return self.state not in self.closed


@final
@dataclass
class Item(Document):
    closed = ("external",)
    gift_id: int
    owner_id: int | None
    price_nano: int | None = None
    reserved_by: UUID | None = None


@final
@dataclass
class Offer(Document):
    closed = ("accepted", "withdrawn", "refused", "expired", "closed")
    nft_id: int
    owner_id: int
    author_id: int
    price_nano: int
    expires_at: datetime
    counter_nano: int | None = None


@final
@dataclass
class Auction(Document):
    closed = ("cancelled", "sold", "unsold")
    nft_id: int
    seller_id: int
    start_nano: int
    step_bp: int
    ends_at: datetime
    planned_ends_at: datetime
    leader_bid_id: UUID | None = None


@final
@dataclass
class Bid(Document):
    closed = ("outbid", "raised", "won")
    auction_id: UUID
    bidder_id: int
    amount_nano: int


@final
@dataclass
class Presale(Document):
    closed = ("delivered", "failed", "lapsed", "deleted")
    gift_id: int
    seller_id: int
    transferable_at: datetime
    deadline_at: datetime
    price_nano: int | None = None
    buyer_id: int | None = None

    @property
    def price(self) -> int:
        return self.price_nano or 0


@final
@dataclass
class Trade(Document):
    closed = ("accepted", "deleted", "closed")
    owner_id: int
    receiver_id: int | None


@final
@dataclass
class Proposal(Document):
    closed = ("accepted", "withdrawn", "declined", "closed")
    trade_id: UUID
    author_id: int


@final
@dataclass
class Deposit(Document):
    closed = ("credited", "assigned")
    amount_nano: int
    user_id: int | None


@final
@dataclass
class Withdrawal(Document):
    closed = ("confirmed", "failed")
    user_id: int
    amount_nano: int
    opened_at: datetime


@final
@dataclass
class Return(Document):
    closed = ("confirmed", "failed")
    nft_id: int
    user_id: int


@final
@dataclass
class TelegramAccount(Document):
    closed = ("disconnected", "failed")
    user_id: int
    phone: str
    name: str | None = None
    telegram_id: int | None = None
    approve_id: UUID | None = None
    connected_at: datetime | None = None


@final
@dataclass
class Channel(Document):
    closed = ("sold", "deleted")
    owner_id: int
    account_id: UUID
    check_id: UUID
    price_nano: int | None = None
    reserved_by: UUID | None = None


@final
@dataclass
class ChannelPurchase(Document):
    closed = ("confirmed", "failed")
    channel_id: int
    buyer_id: int
    seller_id: int
    price_nano: int


class Deal(NamedTuple):
    source: str
    seller_id: int
    buyer_id: int
    price_nano: int | None
    fee_nano: int


Timer = tuple[datetime, str, dict[str, Any]]
"""When, which command."""


class Market:
    """Everything the marketplace knows."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.blocked: dict[int, bool] = {}
        """Of every user there is."""
        self.withdrawn_at: dict[int, datetime] = {}
        self.available: Counter[int] = Counter()
        self.platform: Counter[str] = Counter()
        self.gifts: dict[int, dict[str, Any]] = {}
        self.intakes: set[str] = set()
        self.items: dict[int, Item] = {}
        self.offers: dict[UUID, Offer] = {}
        self.auctions: dict[UUID, Auction] = {}
        self.bids: dict[UUID, Bid] = {}
        self.presales: dict[UUID, Presale] = {}
        self.trades: dict[UUID, Trade] = {}
        self.proposals: dict[UUID, Proposal] = {}
        self.given: dict[UUID, list[int]] = {}
        """The items of every trade and proposal."""
        self.wanted: dict[UUID, list[dict[str, Any]]] = {}
        """The requirements of every trade."""
        self.floors: dict[tuple[str, str], tuple[int, datetime]] = {}
        self.deposits: dict[UUID, Deposit] = {}
        self.transactions: set[tuple[str, int, str]] = set()
        self.withdrawals: dict[UUID, Withdrawal] = {}
        self.returns: dict[UUID, Return] = {}
        self.accounts: dict[UUID, TelegramAccount] = {}
        self.account_gifts: set[tuple[UUID, int]] = set()
        self.account_channels: set[tuple[UUID, int]] = set()
        self.channels: dict[int, Channel] = {}
        self.purchases: dict[UUID, ChannelPurchase] = {}
        self.deals: dict[UUID, Deal] = {}
        self.timers: list[Timer] = []
        self.requests: dict[UUID, tuple[str, UUID | None]] = {}
        """All that was asked of the outside world: by what kind of command, of which Telegram account."""
        self.attempted: set[UUID] = set()

    def decide(self, sent: Sent) -> Refused | None:
        """How the command is refused, or None when it succeeds and has its effects."""
        try:
            self._admit(sent)
            RULES[sent.kind](self, sent)
        except Refused as refused:
            return refused
        return None

    def _admit(self, sent: Sent) -> None:
        if sent.actor is None or sent.kind == "users.register":
            return
        refuse(sent.actor not in self.blocked, "USER_NOT_FOUND", user_id=sent.actor)
        refuse(self.blocked[sent.actor] and sent.kind not in RELEASES_ONLY, "USER_BLOCKED")

    def register(self, user_id: int) -> None:
        self.blocked.setdefault(user_id, False)

    # -- time and the outside world

    def set_timer(self, deadline: datetime, kind: str, **fields: Any) -> None:
        self.timers.append((deadline + TIMER_GRACE, kind, fields))

    def due(self, now: datetime) -> list[Timer]:
        """The timers whose time has come, in the order of their times; they are set no more."""
        due = sorted((timer for timer in self.timers if timer[0] <= now), key=lambda timer: timer[0])
        self.timers = [timer for timer in self.timers if timer[0] > now]
        return due

    def ask(self, sent: Sent, fail: str | None = None, **names: Any) -> None:
        """A request to the gateway, given up after an hour unless it was attempted."""
        self.requests[sent.id] = sent.kind, sent["account_id"]
        if fail:
            self.set_timer(sent.now + GIVE_UP, fail, **names, reason="expired")

    def refuse_in_flight(self, sent: Sent, reference: UUID) -> None:
        refuse(sent["reason"] == "expired" and reference in self.attempted, "REQUEST_IN_FLIGHT")

    # -- money

    def require(self, user_id: int, required_nano: int, released_nano: int = 0) -> None:
        """What the command itself releases is there to be spent."""
        required_nano, available_nano = required_nano - released_nano, self.available[user_id]
        refuse(
            available_nano < required_nano,
            "INSUFFICIENT_BALANCE",
            required_nano=required_nano,
            available_nano=available_nano,
        )

    def pay(self, seller_id: int, price_nano: int, fee_bp: int) -> int:
        """Money that the payer has given already: the fee to the platform, the rest to the seller."""
        fee = price_nano * fee_bp // BP
        self.available[seller_id] += price_nano - fee
        self.platform["fees"] += fee
        return fee

    def holds(self) -> dict[tuple[str, UUID, int], int]:
        """What every open document holds of a user's."""
        held: dict[tuple[str, UUID, int], int] = {}
        for id_, offer in self.offers.items():
            held["offer", id_, offer.author_id] = offer.price_nano if offer.is_open else 0
        for id_, bid in self.bids.items():
            held["bid", id_, bid.bidder_id] = bid.amount_nano if bid.is_open else 0
        for id_, presale in self.presales.items():
            held["presale", id_, presale.seller_id] = (
                deposit_of(presale.price) if presale.state in ("listed", "sold") else 0
            )
            if presale.buyer_id is not None:
                held["presale", id_, presale.buyer_id] = presale.price if presale.state == "sold" else 0
        for id_, withdrawal in self.withdrawals.items():
            held["withdrawal", id_, withdrawal.user_id] = withdrawal.amount_nano if withdrawal.is_open else 0
        for id_, asked in self.returns.items():
            held["return", id_, asked.user_id] = RETURN_FEE_NANO if asked.is_open else 0
        for id_, purchase in self.purchases.items():
            held["channel_purchase", id_, purchase.buyer_id] = purchase.price_nano if purchase.is_open else 0
        return {place: amount for place, amount in held.items() if amount}


RETURN_FEE_NANO = 100_000_000


def deposit_of(price_nano: int) -> int:
    """What the seller of a presale has held."""
    return price_nano * 2_000 // BP


Rule = Callable[[Market, Sent], None]
RULES: dict[str, Rule] = {}
RELEASES_ONLY: set[str] = set()
"""The kinds that are open to a blocked user."""


def rule(kind: str, *, releases_only: bool = False) -> Callable[[Rule], Rule]:
    def declare(function: Rule) -> Rule:
        RULES[kind] = function
        if releases_only:
            RELEASES_ONLY.add(kind)
        return function

    return declare
