"""Trades: items given for items. Key `trade:<trade_id>`.

A trade names items and what is wanted for them; a proposal (see proposals.py) names items that meet it. Items of both
stay free and tradable: whatever reserves one of them or changes its owner closes what it is part of.

The items of a trade or proposal never change, and close with it; so they are read without locks, and every command
locks items before trades, and trades before proposals.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from commands.book import Book
from commands.command import USER, BigId, Command, Envelope, Invalid, Name, UserId
from commands.document import Dependence, Need, Scope, document, is_open
from commands.nft.items import NOT_FREE, Nft, hang, require_free, require_nft
from commands.outcome import Code, Rejection
from commands.terms import Terms
from commands.users import User, require_user

NftIds = Annotated[tuple[BigId, ...], Field(min_length=1)]


class Requirement(BaseModel):
    """What one of the items of a proposal must be; any backdrop when none is named."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    collection: Name
    backdrop: Name | None = None


class TradeState(StrEnum):
    OPEN = "open"
    ACCEPTED = "accepted"
    DELETED = "deleted"
    CLOSED = "closed"


class ProposalState(StrEnum):
    OPEN = "open"
    ACCEPTED = "accepted"
    WITHDRAWN = "withdrawn"
    DECLINED = "declined"
    CLOSED = "closed"


@document("trades")
class Trade(NamedTuple):
    """A trade with a receiver is private: to others it does not exist. `requirements` are JSON."""

    id: UUID
    owner_id: int
    receiver_id: int | None
    requirements: str
    fee_bp: int
    state: str
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


def _touch_trades_of(book: Book, nft_id: int) -> Iterator[Need]:
    yield Need(TradeItem, nft_id, "nft_id")
    for item in book.peek_found(TradeItem, "nft_id", nft_id):
        yield from touch_trade(book, item.trade_id)


def _close_trades_of(book: Book, nft: Nft, reason: str, except_for: Collection[UUID]) -> None:
    for item in book.find(TradeItem, "nft_id", nft.id):
        trade = book.get(Trade, item.trade_id)
        # The item was read before the trade was locked: it may have closed in between.
        if trade is not None and is_open(trade) and trade.id not in except_for:
            end_trade(book, trade, TradeState.CLOSED, reason)


@document(
    "trade_items",
    key=("trade_id", "nft_id"),
    locked=False,
    indexes={"trade_id": Scope.ALL, "nft_id": Scope.OPEN},
    depends=Dependence(Nft, 2, _touch_trades_of, _close_trades_of),
)
class TradeItem(NamedTuple):
    trade_id: UUID
    nft_id: int
    opened_at: datetime
    closed_at: datetime | None


@document("proposals", indexes={"trade_id": Scope.OPEN})
class Proposal(NamedTuple):
    """`owner_id` is the trade's owner."""

    id: UUID
    trade_id: UUID
    owner_id: int
    author_id: int
    state: str
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None


def _touch_proposals_of(book: Book, nft_id: int) -> Iterator[Need]:
    yield Need(ProposalItem, nft_id, "nft_id")
    for item in book.peek_found(ProposalItem, "nft_id", nft_id):
        yield from touch_proposal(book, item.proposal_id)


def _close_proposals_of(book: Book, nft: Nft, reason: str, except_for: Collection[UUID]) -> None:
    for item in book.find(ProposalItem, "nft_id", nft.id):
        proposal = book.get(Proposal, item.proposal_id)
        if proposal is not None and is_open(proposal) and proposal.id not in except_for:
            end_proposal(book, proposal, ProposalState.CLOSED, reason)


@document(
    "proposal_items",
    key=("proposal_id", "nft_id"),
    locked=False,
    indexes={"proposal_id": Scope.ALL, "nft_id": Scope.OPEN},
    depends=Dependence(Nft, 3, _touch_proposals_of, _close_proposals_of),
)
class ProposalItem(NamedTuple):
    proposal_id: UUID
    nft_id: int
    opened_at: datetime
    closed_at: datetime | None


def trade_items(book: Book, trade_id: UUID) -> list[TradeItem]:
    return sorted(book.find(TradeItem, "trade_id", trade_id), key=lambda item: item.nft_id)


def proposal_items(book: Book, proposal_id: UUID) -> list[ProposalItem]:
    return sorted(book.find(ProposalItem, "proposal_id", proposal_id), key=lambda item: item.nft_id)


def as_text(items: Iterable[TradeItem | ProposalItem]) -> list[str]:
    """The items' ids, as results and events show them."""
    return [str(item.nft_id) for item in items]


# -- ending


def touch_proposal(book: Book, proposal_id: UUID) -> Iterator[Need]:
    """What ending the proposal asks for."""
    yield Need(Proposal, proposal_id)
    yield Need(ProposalItem, proposal_id, "proposal_id")


def touch_trade(book: Book, trade_id: UUID) -> Iterator[Need]:
    """What ending the trade asks for: its open proposals are looked for under its lock."""
    yield Need(TradeItem, trade_id, "trade_id")
    yield Need(Trade, trade_id)
    if not book.lacks(Need(Trade, trade_id)):
        yield Need(Proposal, trade_id, "trade_id")
        for proposal in book.peek_found(Proposal, "trade_id", trade_id):
            yield from touch_proposal(book, proposal.id)


def end_proposal(book: Book, proposal: Proposal, state: ProposalState, reason: str | None = None) -> None:
    """The proposal closes, and its parties are told."""
    items = proposal_items(book, proposal.id)
    book.put(proposal._replace(state=state, reason=reason, closed_at=book.now))
    for item in items:
        book.put(item._replace(closed_at=book.now))
    tell_of_proposal(book, proposal, f"proposal.{state}", as_text(items), reason)


def end_trade(
    book: Book, trade: Trade, state: TradeState, reason: str | None = None, except_for: Collection[UUID] = ()
) -> int:
    """The trade closes, and so do its open proposals but those excepted. Returns how many.

    They are told the trade's reason, or else its state.
    """
    items = trade_items(book, trade.id)
    proposals = [one for one in book.find(Proposal, "trade_id", trade.id) if one.id not in except_for]
    book.put(trade._replace(state=state, reason=reason, closed_at=book.now))
    for item in items:
        book.put(item._replace(closed_at=book.now))
    _tell_of_trade(book, trade, f"trade.{state}", as_text(items), reason)
    for proposal in proposals:
        end_proposal(book, proposal, ProposalState.CLOSED, reason or str(state))
    return len(proposals)


def _tell_of_trade(book: Book, trade: Trade, name: str, nft_ids: list[str], reason: str | None = None) -> None:
    fields = _fields(trade_id=str(trade.id), nft_ids=nft_ids, reason=reason)
    if trade.receiver_id is None:
        book.emit(name, f"trade:{trade.id}", **fields)
    for user_id in (trade.owner_id, trade.receiver_id):
        if user_id is not None:
            book.emit(name, f"user:{user_id}", **fields)


def tell_of_proposal(book: Book, proposal: Proposal, name: str, nft_ids: list[str], reason: str | None = None) -> None:
    fields = _fields(trade_id=str(proposal.trade_id), proposal_id=str(proposal.id), nft_ids=nft_ids, reason=reason)
    for user_id in (proposal.author_id, proposal.owner_id):
        book.emit(name, f"user:{user_id}", **fields)


def _fields(**fields: Any) -> dict[str, Any]:
    """Without a reason where there is none."""
    return {name: value for name, value in fields.items() if value is not None}


# -- bounds and guards for the items of a trade or proposal


def check_items(nft_ids: Sequence[int], terms: Terms) -> None:
    if not len(set(nft_ids)) == len(nft_ids) <= terms.trade_items_max:
        raise Invalid(("payload.nft_ids", f"must be 1 to {terms.trade_items_max} different items"))


def touch_items(book: Book, nft_ids: Sequence[int]) -> Iterator[Need]:
    """The items, and then what they are part of already."""
    for nft_id in nft_ids:
        yield Need(Nft, nft_id)
        if not book.lacks(Need(Nft, nft_id)):
            yield Need(TradeItem, nft_id, "nft_id")
            yield Need(ProposalItem, nft_id, "nft_id")


def require_owned(book: Book, nft_ids: Sequence[int], user_id: int | None) -> list[Nft]:
    """The items, all found and all the user's."""
    nfts = [require_nft(book, nft_id) for nft_id in nft_ids]
    others = [str(nft.id) for nft in nfts if nft.owner_id != user_id]
    if others:
        raise Rejection(Code.NFTS_NOT_OWNED, nft_ids=others)
    return nfts


def require_room(book: Book, nft_ids: Sequence[int]) -> None:
    """No item is part of too many open trades and proposals."""
    limit = book.terms.trades_per_item_max
    for nft_id in nft_ids:
        uses = len(book.find(TradeItem, "nft_id", nft_id)) + len(book.find(ProposalItem, "nft_id", nft_id))
        if uses >= limit:
            raise Rejection(Code.LIMIT_REACHED, limit=limit)


# -- commands


class Create(
    Command,
    kind="trades.create",
    sent_by=USER,
    rejects=(
        Code.USER_NOT_FOUND,
        Code.NFT_NOT_FOUND,
        Code.NFTS_NOT_OWNED,
        *NOT_FREE,
        Code.SELF_TRADE_NOT_ALLOWED,
        Code.LIMIT_REACHED,
    ),
):
    """Give items for whatever meets the requirements, from anybody or from one receiver."""

    nft_ids: NftIds
    requirements: Annotated[tuple[Requirement, ...], Field(min_length=1)]
    receiver_id: UserId | None = None

    def check(self, terms: Terms) -> None:
        check_items(self.nft_ids, terms)
        if len(self.requirements) > terms.trade_requirements_max:
            raise Invalid(("payload.requirements", f"must be 1 to {terms.trade_requirements_max}"))

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"trade:{envelope_id}"

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_items(book, self.nft_ids)
        if self.receiver_id is not None:
            yield Need(User, self.receiver_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        owner_id = envelope.actor
        assert owner_id is not None  # noqa: S101 - sent by users only
        if self.receiver_id is not None:
            require_user(book, self.receiver_id)
        for nft in require_owned(book, self.nft_ids, owner_id):
            require_free(nft)
        if self.receiver_id == owner_id:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)
        require_room(book, self.nft_ids)

        trade = Trade(
            id=envelope.id,
            owner_id=owner_id,
            receiver_id=self.receiver_id,
            requirements=to_json(self.requirements).decode(),
            fee_bp=book.terms.trade_fee_bp,
            state=TradeState.OPEN,
            reason=None,
            opened_at=book.now,
            closed_at=None,
        )
        book.put(trade)
        for nft_id in self.nft_ids:
            book.put(TradeItem(trade.id, nft_id, book.now, None))
            hang(book, nft_id)
        _tell_of_trade(book, trade, "trade.opened", [str(nft_id) for nft_id in sorted(self.nft_ids)])
        return {"trade_id": str(trade.id)}


class TradeCommand(Command):
    """A command about an open trade, which is what it is ordered by."""

    trade_id: UUID

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        return f"trade:{self.trade_id}"

    def trade(self, book: Book, actor: int | None) -> Trade:
        """The trade, if there is one for the actor."""
        trade = book.get(Trade, self.trade_id)
        if trade is None or (trade.receiver_id is not None and actor not in (trade.owner_id, trade.receiver_id)):
            raise Rejection(Code.TRADE_NOT_FOUND)
        return trade


def require_open(trade: Trade) -> None:
    if not is_open(trade):
        raise Rejection(Code.TRADE_NOT_OPEN)


class Delete(
    TradeCommand,
    kind="trades.delete",
    sent_by=USER,
    releases_only=True,
    rejects=(Code.TRADE_NOT_FOUND, Code.TRADE_PERMISSION_DENIED, Code.TRADE_NOT_OPEN),
):
    """The owner, or the receiver of a private trade, ends it."""

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_trade(book, self.trade_id)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        trade = self.trade(book, envelope.actor)
        if envelope.actor not in (trade.owner_id, trade.receiver_id):
            raise Rejection(Code.TRADE_PERMISSION_DENIED)
        require_open(trade)

        return {"trade_id": str(trade.id), "proposals_closed": end_trade(book, trade, TradeState.DELETED)}
