"""Documents that depend on an item: declared once, and so both loaded and ended with it, in their places."""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from commands.book import Account, Book, Event
from commands.command import KINDS, USER, Command, Envelope
from commands.document import STORED, Dependence, Need, Row, Scope, dependents_of, document
from commands.nft.items import ItemCommand, Nft, hang, require_nft, touch_item
from commands.offers import Offer
from commands.outcome import Status
from commands.terms import TON
from commands.trades.trades import ProposalItem, TradeItem
from tests.commands.world import World, buy, command, gift, set_price, transfer

ITEM, OTHER = 17, 18
OWNER, AUTHOR, BUYER = 1, 2, 3


class Pledge(NamedTuple):
    """A document of a mechanism that nobody but this file has heard of: money held for an item."""

    id: UUID
    nft_id: int
    user_id: int
    held_nano: int
    opened_at: datetime
    closed_at: datetime | None


def touch_pledges(book: Book, nft_id: int) -> Iterator[Need]:
    yield Need(Pledge, nft_id, "nft_id")
    for pledge in book.peek_found(Pledge, "nft_id", nft_id):
        yield Need(Account, pledge.user_id)


def end_pledges(book: Book, nft: Nft, reason: str, except_for: Collection[UUID]) -> None:
    for pledge in book.find(Pledge, "nft_id", nft.id):
        book.release(pledge.user_id, pledge.held_nano, "pledge", pledge.id)
        book.put(pledge._replace(held_nano=0, closed_at=book.now))
        book.emit("pledge.closed", f"user:{pledge.user_id}", reason=reason)


@pytest.fixture
def pledging() -> Iterator[type[Command]]:
    """A mechanism with a document that depends on items: one declaration and one kind, and nothing else lists them."""
    dependence = Dependence(Nft, 9, touch_pledges, end_pledges)
    document("pledges", indexes={"nft_id": Scope.OPEN}, depends=dependence)(Pledge)

    class MakePledge(ItemCommand, kind="test.pledge", sent_by=USER):
        def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
            yield from touch_item(book, self.nft_id)
            yield Need(Account, envelope.actor)

        def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
            assert envelope.actor is not None
            book.hold(envelope.actor, TON, "pledge", envelope.id)
            book.put(Pledge(envelope.id, require_nft(book, self.nft_id).id, envelope.actor, TON, book.now, None))
            hang(book, self.nft_id)
            return {}

    yield MakePledge
    del KINDS["test.pledge"]
    del STORED[Pledge]


@pytest.fixture
def world() -> World:
    world = World()
    for user_id in (OWNER, AUTHOR, BUYER):
        world.user(user_id)
    world.item(ITEM, OWNER)
    world.item(OTHER, AUTHOR)
    return world


def done(world: World, sent: Command, actor: int) -> dict[str, Any]:
    outcome = world.one(sent, actor)
    assert outcome.status is Status.SUCCEEDED, outcome
    assert outcome.result is not None
    return outcome.result


def test_a_document_that_declares_its_dependence_ends_with_the_sale_of_its_item(
    world: World, pledging: type[Command]
) -> None:
    done(world, pledging.model_validate({"nft_id": ITEM}), AUTHOR)
    assert world.get(Account, AUTHOR)[1:] == (9 * TON, TON)
    done(world, set_price(ITEM, TON), OWNER)
    done(world, buy(ITEM, TON), BUYER)
    [pledge] = [row for (kind, _), row in world.rows.items() if kind is Pledge]
    assert isinstance(pledge, Pledge)
    assert (pledge.held_nano, pledge.closed_at) == (0, world.now)
    assert world.get(Account, AUTHOR)[1:] == (10 * TON, 0)
    world.check()


def test_dependents_end_in_their_places_offers_then_trades_then_proposals_then_the_rest(
    world: World, pledging: type[Command]
) -> None:
    done(world, pledging.model_validate({"nft_id": ITEM}), AUTHOR)
    any_gift = ({"collection": gift(ITEM)["collection"]},)
    trade = done(world, command("trades.create", nft_ids=(OTHER,), requirements=any_gift), AUTHOR)
    done(world, command("trades.propose", trade_id=UUID(trade["trade_id"]), nft_ids=(ITEM,)), OWNER)
    done(world, command("trades.create", nft_ids=(ITEM,), requirements=any_gift), OWNER)
    done(world, set_price(ITEM, TON), OWNER)
    done(world, command("offers.create", nft_id=ITEM, price_nano=TON), AUTHOR)
    before = len(world.of(Event))
    done(world, transfer(ITEM, BUYER), OWNER)
    ended = [event.name for event in world.of(Event)[before:] if event.name.endswith(".closed")]
    assert list(dict.fromkeys(ended)) == ["offer.closed", "trade.closed", "proposal.closed", "pledge.closed"]
    assert not world.get(Nft, ITEM).hanging


def test_a_declaration_without_an_ending_is_refused_at_import() -> None:
    with pytest.raises(TypeError, match="end"):
        Dependence(Nft, 9, touch_pledges)  # type: ignore[call-arg]


def test_two_types_that_depend_on_one_have_different_places() -> None:
    with pytest.raises(ValueError, match="pledges: another document that depends on Nft ends in place 1"):
        document("pledges", depends=Dependence(Nft, 1, touch_pledges, end_pledges))(Pledge)
    assert Pledge not in STORED


def test_every_document_that_its_item_finds_while_it_is_open_depends_on_the_item() -> None:
    found: list[type[Row]] = [kind for kind, stored in STORED.items() if stored.indexes.get("nft_id") is Scope.OPEN]
    assert set(found) == {Offer, TradeItem, ProposalItem}
    assert [STORED[kind].depends for kind in (Offer, TradeItem, ProposalItem)] == dependents_of(Nft)
