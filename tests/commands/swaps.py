"""Worlds of trades and proposals: how their commands are built, and what holds after each."""

from typing import Any
from uuid import UUID

from commands.book import Account
from commands.command import Command
from commands.nft.items import Nft, NftState
from commands.offers import Offer
from commands.outcome import Outcome, Status
from commands.trades.trades import Proposal, ProposalItem, Trade, TradeItem
from tests.commands.world import World, command, gift, receive

OWNER, AUTHOR, OTHER = 1, 2, 3
"""Of the trade, of the proposal, of neither. User n has the items 10n to 10n + 4."""
ITEMS_EACH = 5
PEPE = "Plush Pepe"
CAP = "Durov's Cap"
ANY: list[tuple[str, str | None]] = [(PEPE, None)]


def begun(ton: float = 10) -> World:
    """Three users with five items each, the last of each a cap with a red backdrop."""
    world = World()
    for user_id in (OWNER, AUTHOR, OTHER):
        world.user(user_id, ton)
        for nft_id in range(user_id * 10, user_id * 10 + ITEMS_EACH):
            changes = {"collection": CAP, "backdrop": "Red"} if nft_id % 10 == ITEMS_EACH - 1 else {}
            succeed(world.one(receive(nft_id, user_id, gift=gift(nft_id, **changes))))
    return world


def succeed(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status is Status.SUCCEEDED, outcome
    assert outcome.result is not None
    return outcome.result


def create(*nft_ids: int, wants: list[tuple[str, str | None]] = ANY, receiver_id: int | None = None) -> Command:
    requirements = tuple({"collection": collection, "backdrop": backdrop} for collection, backdrop in wants)
    return command("trades.create", nft_ids=nft_ids, requirements=requirements, receiver_id=receiver_id)


def delete(trade_id: UUID) -> Command:
    return command("trades.delete", trade_id=trade_id)


def propose(trade_id: UUID, *nft_ids: int) -> Command:
    return command("trades.propose", trade_id=trade_id, nft_ids=nft_ids)


def about(kind: str, trade_id: UUID, proposal_id: UUID, **fields: Any) -> Command:
    """withdraw_proposal, decline or accept."""
    return command(f"trades.{kind}", trade_id=trade_id, proposal_id=proposal_id, **fields)


def opened(world: World, *nft_ids: int, **facts: Any) -> UUID:
    """A trade of the owner of its items."""
    return UUID(succeed(world.one(create(*nft_ids, **facts), nft_ids[0] // 10))["trade_id"])


def proposed(world: World, trade_id: UUID, *nft_ids: int) -> UUID:
    """A proposal of the owner of its items."""
    return UUID(succeed(world.one(propose(trade_id, *nft_ids), nft_ids[0] // 10))["proposal_id"])


def trade(world: World, trade_id: UUID) -> tuple[str, str | None]:
    """State and reason."""
    row = world.get(Trade, trade_id)
    return row.state, row.reason


def proposal(world: World, proposal_id: UUID) -> tuple[str, str | None]:
    row = world.get(Proposal, proposal_id)
    return row.state, row.reason


def owner_of(world: World, nft_id: int) -> int:
    owner_id: int = world.get(Nft, nft_id).owner_id
    return owner_id


def told(world: World, name: str) -> list[tuple[str, ...]]:
    return [event.topics for event in world.events(name)]


def check(world: World) -> None:
    """What trades and proposals keep (V18), beside the money."""
    world.check()
    rows: dict[type[Any], dict[Any, Any]] = {}
    for (kind, key), row in world.rows.items():
        rows.setdefault(kind, {})[key] = row
    trades, proposals, nfts = rows.get(Trade, {}), rows.get(Proposal, {}), rows.get(Nft, {})
    parties = {key: row.owner_id for key, row in trades.items()} | {
        key: row.author_id for key, row in proposals.items()
    }
    items = [(item.trade_id, item) for item in rows.get(TradeItem, {}).values()]
    items += [(item.proposal_id, item) for item in rows.get(ProposalItem, {}).values()]
    for document_id, item in items:
        closed_at = (trades.get(document_id) or proposals[document_id]).closed_at
        assert item.closed_at == closed_at
        if closed_at is None:
            nft = nfts[item.nft_id]
            assert nft.owner_id == parties[document_id]
            assert nft.state in (NftState.HELD, NftState.LISTED)
            assert nft.hanging
    assert {document_id for document_id, _ in items} == trades.keys() | proposals.keys()
    for row in (*trades.values(), *proposals.values()):
        assert (row.closed_at is None) == (row.state == "open")
        assert (row.reason is not None) == (row.state == "closed")
    open_proposals = [row for row in proposals.values() if row.closed_at is None]
    assert all(trades[row.trade_id].closed_at is None for row in open_proposals)
    assert all(trades[row.trade_id].owner_id == row.owner_id != row.author_id for row in proposals.values())
    assert len({(row.trade_id, row.author_id) for row in open_proposals}) == len(open_proposals)
    held = dict.fromkeys(rows[Account], 0)
    for offer in rows.get(Offer, {}).values():
        held[offer.author_id] += offer.held_nano
    assert held == {user_id: account.held_nano for user_id, account in rows[Account].items()}
