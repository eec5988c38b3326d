"""Swaps: items offered for others, proposals that meet the wishes or do not, and one of them accepted."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from loadtest.stories.stage import Scene, Story, Telling
from loadtest.workload import Item

UNKNOWN = "00000000-0000-7000-8000-000000000000"
ITEMS_MAX = 3
NO_SUCH_COLLECTION = "Nobody's Wish"


class Trade(NamedTuple):
    trade_id: str
    owner_id: int
    author_id: int
    gives: list[Item]
    wants: list[Item]

    @property
    def names(self) -> dict[str, Any]:
        return {"trade_id": self.trade_id}


def swapped(scene: Scene) -> Story:
    """A proposal is accepted, and the items of both sides change their owners."""
    trade = yield from _opened(scene)
    proposal = yield from _proposed(scene, trade)
    yield from scene.stray("TRADE_PERMISSION_DENIED", "trades.accept", trade.author_id, **proposal)
    accepted = yield from scene.act("trades.accept", trade.owner_id, **proposal)
    scene.spend(trade.owner_id, accepted["fee_nano"])
    for items, owner_id in ((trade.gives, trade.author_id), (trade.wants, trade.owner_id)):
        for item in items:
            scene.hand_over(item, owner_id)
    yield from scene.stray("TRADE_NOT_OPEN", "trades.accept", trade.owner_id, **proposal)


def declined(scene: Scene) -> Story:
    """The owner declines a proposal, or its author withdraws it; then the trade is taken down."""
    trade = yield from _opened(scene)
    proposal = yield from _proposed(scene, trade)
    kind, actor = scene.chance.choice(
        [("trades.decline", trade.owner_id), ("trades.withdraw_proposal", trade.author_id)]
    )
    yield [
        scene.command(kind, actor, **proposal),
        scene.command("trades.accept", trade.owner_id, foreseen="PROPOSAL_NOT_OPEN", **proposal),
        scene.command("trades.delete", trade.owner_id, **trade.names),
    ]


def left_open(scene: Scene) -> Story:
    """Both wait, until one of their items is sold or given away by somebody's later plans."""
    trade = yield from _opened(scene)
    yield from _proposed(scene, trade)


def closed_by_a_gift(scene: Scene) -> Story:
    """One of the items is given away while the trade is open, which closes it."""
    trade = yield from _opened(scene)
    proposal = yield from _proposed(scene, trade)
    item = scene.chance.choice(trade.gives)
    receiver_id = scene.rival(trade.owner_id)
    yield from scene.act("nft.transfer", trade.owner_id, nft_id=item.nft_id, to_user_id=receiver_id)
    scene.hand_over(item, receiver_id)
    yield from scene.stray("TRADE_NOT_OPEN", "trades.accept", trade.owner_id, **proposal)


def _opened(scene: Scene) -> Telling[Trade]:
    """A trade of some items for others like those that somebody else has."""
    gives = yield from _items_of_one(scene)
    wants = yield from _items_of_one(scene, gives[0].owner_id)
    owner_id, author_id = gives[0].owner_id, wants[0].owner_id
    stranger = scene.rival(owner_id, author_id)
    terms: dict[str, Any] = {"nft_ids": _ids(gives), "requirements": [_wish(scene, item) for item in wants]}
    yield from scene.stray("NFTS_NOT_OWNED", "trades.create", stranger, **terms)
    private = scene.happens(25)
    if private:
        terms["receiver_id"] = author_id
    opened = yield from scene.act("trades.create", owner_id, **terms)
    trade = Trade(opened["trade_id"], owner_id, author_id, gives, wants)
    own = {"nft_ids": _ids(gives[:1]), **trade.names}
    yield from scene.stray("SELF_TRADE_NOT_ALLOWED", "trades.propose", owner_id, **own)
    yield from scene.stray("TRADE_NOT_FOUND" if private else "NFTS_NOT_OWNED", "trades.propose", stranger, **own)
    yield from scene.stray("PROPOSAL_NOT_FOUND", "trades.decline", owner_id, **trade.names, proposal_id=UNKNOWN)
    return trade


def _proposed(scene: Scene, trade: Trade) -> Telling[dict[str, Any]]:
    """The author's proposal, as commands name it."""
    offered = {"nft_ids": _ids(trade.wants), **trade.names}
    if len(trade.wants) > 1:
        too_few = {**offered, "nft_ids": _ids(trade.wants[1:])}
        yield from scene.stray("TRADE_REQUIREMENTS_NOT_MET", "trades.propose", trade.author_id, **too_few)
    made = yield from scene.act("trades.propose", trade.author_id, **offered)
    yield from scene.stray("PROPOSAL_ALREADY_EXISTS", "trades.propose", trade.author_id, **offered)
    return {**trade.names, "proposal_id": made["proposal_id"]}


def _items_of_one(scene: Scene, *others: int) -> Telling[list[Item]]:
    """A few items of one user, none of the others; new ones arrive where the user has too few."""
    first = yield from scene.item()
    while first.owner_id in others:
        first = yield from scene.item()
    owner_id = first.owner_id
    items = [first]
    for _ in range(scene.chance.randint(0, ITEMS_MAX - 1)):
        item = yield from scene.item()
        if item.owner_id != owner_id:
            yield from scene.act("nft.transfer", item.owner_id, nft_id=item.nft_id, to_user_id=owner_id)
            scene.hand_over(item, owner_id)
        items.append(item)
    return items


def _wish(scene: Scene, item: Item) -> dict[str, str]:
    wish = {"collection": item.gift["collection"]}
    return wish | {"backdrop": item.gift["backdrop"]} if scene.happens(50) else wish


def _ids(items: Sequence[Item]) -> list[int]:
    return [item.nft_id for item in items]
