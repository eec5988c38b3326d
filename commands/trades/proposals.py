"""Proposals: items offered for those of a trade, and the swap. Key `trade:<trade_id>`."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, TypeAdapter

from commands.book import FEES, Account, Book, Side, available
from commands.command import USER, Envelope
from commands.deals import Deal, DealItem, record_deal
from commands.document import Need, is_open
from commands.market.floors import floor_nano, touch_floor
from commands.nft.items import NOT_FREE, Nft, NftState, hand_over, hang, require_free, touch_dependents
from commands.offers import held_for_offers
from commands.outcome import Code, Rejection
from commands.terms import Terms, fee_nano
from commands.trades.trades import (
    NftIds,
    Proposal,
    ProposalItem,
    ProposalState,
    Requirement,
    Trade,
    TradeCommand,
    TradeItem,
    TradeState,
    as_text,
    check_items,
    end_proposal,
    end_trade,
    proposal_items,
    require_open,
    require_owned,
    require_room,
    tell_of_proposal,
    touch_items,
    touch_proposal,
    touch_trade,
    trade_items,
)

_REQUIREMENTS = TypeAdapter(tuple[Requirement, ...])


def unmatched(requirements: Sequence[Requirement], nfts: Sequence[Nft]) -> int:
    """How many requirements go without an item of their own when as many as possible have one.

    A maximum bipartite matching (Kuhn): a requirement may take an item from another that finds a different one.
    """
    taken_by: dict[int, Requirement] = {}

    def finds_item(requirement: Requirement, asked: set[int]) -> bool:
        for nft in nfts:
            if nft.id not in asked and _meets(nft, requirement):
                asked.add(nft.id)
                if nft.id not in taken_by or finds_item(taken_by[nft.id], asked):
                    taken_by[nft.id] = requirement
                    return True
        return False

    return sum(not finds_item(requirement, set()) for requirement in requirements)


def _meets(nft: Nft, requirement: Requirement) -> bool:
    return nft.collection == requirement.collection and requirement.backdrop in (None, nft.backdrop)


def _require_match(trade: Trade, nfts: Sequence[Nft]) -> None:
    missing = unmatched(_REQUIREMENTS.validate_json(trade.requirements), nfts)
    if missing:
        raise Rejection(Code.TRADE_REQUIREMENTS_NOT_MET, unmatched=missing)


class Propose(
    TradeCommand,
    kind="trades.propose",
    sent_by=USER,
    rejects=(
        Code.TRADE_NOT_FOUND,
        Code.NFT_NOT_FOUND,
        Code.NFTS_NOT_OWNED,
        Code.PROPOSAL_ALREADY_EXISTS,
        Code.TRADE_NOT_OPEN,
        *NOT_FREE,
        Code.SELF_TRADE_NOT_ALLOWED,
        Code.TRADE_REQUIREMENTS_NOT_MET,
        Code.LIMIT_REACHED,
    ),
):
    """Offer items that meet the trade's requirements."""

    nft_ids: NftIds

    def check(self, terms: Terms) -> None:
        check_items(self.nft_ids, terms)

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield from touch_items(book, self.nft_ids)
        yield Need(Trade, self.trade_id)
        if not book.lacks(Need(Trade, self.trade_id)):
            yield Need(Proposal, self.trade_id, "trade_id")

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        author_id, trade = envelope.actor, self.trade(book, envelope.actor)
        assert author_id is not None  # noqa: S101 - sent by users only
        nfts = require_owned(book, self.nft_ids, author_id)
        rivals = book.find(Proposal, "trade_id", trade.id)
        if any(rival.author_id == author_id for rival in rivals):
            raise Rejection(Code.PROPOSAL_ALREADY_EXISTS)
        require_open(trade)
        for nft in nfts:
            require_free(nft)
        if author_id == trade.owner_id:
            raise Rejection(Code.SELF_TRADE_NOT_ALLOWED)
        _require_match(trade, nfts)
        if len(rivals) >= book.terms.proposals_per_trade_max:
            raise Rejection(Code.LIMIT_REACHED, limit=book.terms.proposals_per_trade_max)
        require_room(book, self.nft_ids)

        proposal = Proposal(
            id=envelope.id,
            trade_id=trade.id,
            owner_id=trade.owner_id,
            author_id=author_id,
            state=ProposalState.OPEN,
            reason=None,
            opened_at=book.now,
            closed_at=None,
        )
        book.put(proposal)
        for nft_id in self.nft_ids:
            book.put(ProposalItem(proposal.id, nft_id, book.now, None))
            hang(book, nft_id)
        tell_of_proposal(book, proposal, "proposal.made", [str(nft_id) for nft_id in sorted(self.nft_ids)])
        return {"proposal_id": str(proposal.id)}


class _ProposalCommand(TradeCommand):
    """What the commands about a proposal that was made share."""

    proposal_id: UUID

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(Trade, self.trade_id)
        if not book.lacks(Need(Trade, self.trade_id)):
            yield from touch_proposal(book, self.proposal_id)

    def proposal(self, book: Book) -> Proposal:
        proposal = book.get(Proposal, self.proposal_id)
        if proposal is None or proposal.trade_id != self.trade_id:
            raise Rejection(Code.PROPOSAL_NOT_FOUND)
        return proposal

    def end(self, book: Book, envelope: Envelope, state: ProposalState) -> dict[str, Any]:
        """The author withdraws, the trade's owner declines."""
        self.trade(book, envelope.actor)
        proposal = self.proposal(book)
        party_id = proposal.author_id if state is ProposalState.WITHDRAWN else proposal.owner_id
        if envelope.actor != party_id:
            raise Rejection(Code.TRADE_PERMISSION_DENIED)
        _require_open_proposal(proposal)

        end_proposal(book, proposal, state)
        return {"proposal_id": str(proposal.id)}


def _require_open_proposal(proposal: Proposal) -> None:
    if not is_open(proposal):
        raise Rejection(Code.PROPOSAL_NOT_OPEN)


class Withdraw(
    _ProposalCommand,
    kind="trades.withdraw_proposal",
    sent_by=USER,
    releases_only=True,
    rejects=(Code.TRADE_NOT_FOUND, Code.PROPOSAL_NOT_FOUND, Code.TRADE_PERMISSION_DENIED, Code.PROPOSAL_NOT_OPEN),
):
    """The author takes the proposal back."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        return self.end(book, envelope, ProposalState.WITHDRAWN)


class Decline(
    _ProposalCommand,
    kind="trades.decline",
    sent_by=USER,
    releases_only=True,
    rejects=(Code.TRADE_NOT_FOUND, Code.PROPOSAL_NOT_FOUND, Code.TRADE_PERMISSION_DENIED, Code.PROPOSAL_NOT_OPEN),
):
    """The trade's owner turns the proposal down."""

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        return self.end(book, envelope, ProposalState.DECLINED)


class Accept(
    _ProposalCommand,
    kind="trades.accept",
    sent_by=USER,
    rejects=(
        Code.TRADE_NOT_FOUND,
        Code.PROPOSAL_NOT_FOUND,
        Code.TRADE_PERMISSION_DENIED,
        Code.TRADE_NOT_OPEN,
        Code.PROPOSAL_NOT_OPEN,
        Code.FEE_TOO_HIGH,
        Code.TRADE_REQUIREMENTS_NOT_MET,
        Code.INSUFFICIENT_BALANCE,
    ),
):
    """The trade's owner agrees: the items change hands, and the owner pays a fee on the floors of those received."""

    fee_max_nano: Annotated[int, Field(ge=0, lt=2**53)] | None = None

    def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
        yield Need(TradeItem, self.trade_id, "trade_id")
        yield Need(ProposalItem, self.proposal_id, "proposal_id")
        given = [item.nft_id for item in book.peek_found(TradeItem, "trade_id", self.trade_id)]
        received = [item.nft_id for item in book.peek_found(ProposalItem, "proposal_id", self.proposal_id)]
        items = [Need(Nft, nft_id) for nft_id in (*given, *received)]
        yield from items
        if book.lacks(Need(TradeItem, self.trade_id, "trade_id")) or any(book.lacks(item) for item in items):
            return
        yield from touch_trade(book, self.trade_id)
        yield from touch_proposal(book, self.proposal_id)
        for nft_id in (*given, *received):
            yield from touch_dependents(book, nft_id)
        for nft_id in received:
            nft = book.peek(Nft, nft_id)
            if nft is not None:
                yield from touch_floor(nft.collection)
        if envelope.actor is not None:
            yield Need(Account, envelope.actor)

    def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
        trade = self.trade(book, envelope.actor)
        proposal = self.proposal(book)
        if envelope.actor != trade.owner_id:
            raise Rejection(Code.TRADE_PERMISSION_DENIED)
        require_open(trade)
        _require_open_proposal(proposal)
        given_items, received_items = trade_items(book, trade.id), proposal_items(book, proposal.id)
        given = [_swappable(book, item.nft_id, trade.owner_id) for item in given_items]
        received = [_swappable(book, item.nft_id, proposal.author_id) for item in received_items]
        fee = sum(fee_nano(floor_nano(book, nft.collection, nft.model), trade.fee_bp) for nft in received)
        if self.fee_max_nano is not None and fee > self.fee_max_nano:
            raise Rejection(Code.FEE_TOO_HIGH, fee_nano=fee)
        _require_match(trade, received)
        # The swap closes the owner's own offers on what is received, so their money pays too.
        released = sum(held_for_offers(book, nft, trade.owner_id) for nft in received)
        book.require_available(trade.owner_id, fee - released)

        swap = {trade.id, proposal.id}
        for nft in given:
            hand_over(book, nft, proposal.author_id, "swapped", swap)
        for nft in received:
            hand_over(book, nft, trade.owner_id, "swapped", swap)
        end_trade(book, trade, TradeState.ACCEPTED, except_for=swap)
        end_proposal(book, proposal, ProposalState.ACCEPTED)
        book.post(available(trade.owner_id), Side(FEES), fee, "deal", envelope.id)
        record_deal(
            book,
            Deal(envelope.id, "trade", trade.owner_id, proposal.author_id, None, trade.fee_bp, fee, None),
            [
                *(DealItem(envelope.id, nft.id, nft.gift_id, 1, "to_buyer") for nft in given),
                *(DealItem(envelope.id, nft.id, nft.gift_id, 1, "to_seller") for nft in received),
            ],
        )
        return {
            "deal_id": str(envelope.id),
            "sent": as_text(given_items),
            "received": as_text(received_items),
            "fee_nano": fee,
        }


def _swappable(book: Book, nft_id: int, party_id: int) -> Nft:
    """An item of an open trade or proposal. Detaching closes those whose items are not their party's and free (V18):
    one that is open all the same is a mistake of ours, not a refusal."""
    nft = book.get(Nft, nft_id)
    if nft is None or nft.owner_id != party_id or nft.state not in (NftState.HELD, NftState.LISTED):
        message = f"an open swap gives an item that user {party_id} cannot give: {nft}"
        raise RuntimeError(message)
    return nft
