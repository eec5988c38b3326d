"""Trades: opened for free items of one's own, private ones unknown to strangers, closed by whatever moves an item."""

from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from commands.book import Event, Posting
from commands.command import Invalid, decode
from commands.deals import Deal
from commands.market.floors import Floor
from commands.nft.items import Nft, NftState
from commands.offers import Offer
from commands.outcome import Code, Outcome, Status
from commands.terms import TON, Terms
from commands.trades.trades import Proposal, Trade, TradeItem
from tests.commands.swaps import (
    ANY,
    AUTHOR,
    CAP,
    OTHER,
    OWNER,
    PEPE,
    about,
    begun,
    check,
    create,
    delete,
    opened,
    owner_of,
    proposal,
    propose,
    proposed,
    succeed,
    told,
    trade,
)
from tests.commands.test_nft import RESERVED, refuse
from tests.commands.world import START, Sent, World, buy, code_of, command, set_price, transfer


@pytest.fixture
def world() -> World:
    return begun()


def put(world: World, nft_id: int, **changes: Any) -> None:
    world.rows[Nft, nft_id] = world.get(Nft, nft_id)._replace(**changes)


# -- trades.create


def test_a_public_trade_is_told_to_all_who_follow_it_and_to_its_owner(world: World) -> None:
    outcome = world.one(create(12, 10), OWNER)
    trade_id = UUID(succeed(outcome)["trade_id"])
    row = world.get(Trade, trade_id)
    assert (row.owner_id, row.receiver_id, row.fee_bp, row.state) == (OWNER, None, 200, "open")
    assert row.requirements == '[{"collection":"Plush Pepe","backdrop":null}]'
    assert {key[1] for kind, key in world.rows if kind is TradeItem} == {10, 12}
    assert told(world, "trade.opened") == [(f"trade:{trade_id}",), ("user:1",)]
    for event in world.events("trade.opened"):
        assert event.fields == {"trade_id": str(trade_id), "nft_ids": ["10", "12"]}
    assert create(10).asset(trade_id, OWNER) == delete(trade_id).asset(UUID(int=1), OWNER) == f"trade:{trade_id}"
    check(world)


def test_a_private_trade_is_told_to_its_parties_only(world: World) -> None:
    opened(world, 10, receiver_id=AUTHOR)
    assert told(world, "trade.opened") == [("user:1",), ("user:2",)]


def test_items_of_a_trade_stay_free(world: World) -> None:
    put_up = opened(world, 10)
    assert world.one(set_price(10, TON), OWNER).status is Status.SUCCEEDED
    assert world.one(set_price(10, None), OWNER).status is Status.SUCCEEDED
    assert trade(world, put_up) == ("open", None)
    check(world)


def test_an_unknown_receiver_is_found_out_first(world: World) -> None:
    rejection = refuse(world, Code.USER_NOT_FOUND, lambda: world.one(create(404, receiver_id=404), OWNER))
    assert rejection["user_id"] == 404


@pytest.mark.parametrize("external", [False, True])
def test_every_item_is_found(world: World, external: bool) -> None:
    if external:
        put(world, 11, state=NftState.EXTERNAL, owner_id=None)
    missing = 11 if external else 404
    rejection = refuse(world, Code.NFT_NOT_FOUND, lambda: world.one(create(20, missing), OWNER))
    assert rejection["nft_id"] == str(missing)


def test_items_of_others_are_named(world: World) -> None:
    put(world, 10, state=NftState.ON_AUCTION)
    rejection = refuse(world, Code.NFTS_NOT_OWNED, lambda: world.one(create(20, 10, 30), OWNER))
    assert rejection["nft_ids"] == ["20", "30"]


@pytest.mark.parametrize(("state", "code"), RESERVED)
def test_a_reserved_item_is_not_traded(world: World, state: NftState, code: Code) -> None:
    put(world, 11, state=state)
    refuse(world, code, lambda: world.one(create(10, 11, receiver_id=OWNER), OWNER))


def test_a_listed_item_is_traded(world: World) -> None:
    world.one(set_price(10, TON), OWNER)
    opened(world, 10)
    check(world)


def test_nobody_trades_with_oneself(world: World) -> None:
    world.terms = Terms(trades_per_item_max=1)
    opened(world, 10)
    refuse(world, Code.SELF_TRADE_NOT_ALLOWED, lambda: world.one(create(10, receiver_id=OWNER), OWNER))


def test_an_item_is_part_of_so_many_open_trades_and_proposals(world: World) -> None:
    world.terms = Terms(trades_per_item_max=3)
    first, _ = opened(world, 10), opened(world, 11, 10)
    elsewhere = opened(world, 20)
    proposed(world, elsewhere, 10)
    rejection = refuse(world, Code.LIMIT_REACHED, lambda: world.one(create(12, 10), OWNER))
    assert rejection["limit"] == 3
    opened(world, 11, 12)
    succeed(world.one(delete(first), OWNER))
    opened(world, 10)


def test_the_limit_holds_within_a_batch(world: World) -> None:
    world.terms = Terms(trades_per_item_max=2)
    outcomes = world.run((create(10), OWNER), (create(10), OWNER), (create(10), OWNER))
    assert [code_of(outcome) for outcome in outcomes] == [None, None, "LIMIT_REACHED"]


def test_items_and_requirements_have_bounds() -> None:
    terms = Terms(trade_items_max=3, trade_requirements_max=2)
    create(10, 11, 12, wants=[*ANY, *ANY]).check(terms)
    propose(UUID(int=1), 10, 11, 12).check(terms)
    for wrong in (create(10, 11, 12, 13), create(10, 10), propose(UUID(int=1), 10, 11, 12, 13)):
        with pytest.raises(Invalid, match=r"payload\.nft_ids: must be 1 to 3 different items"):
            wrong.check(terms)
    with pytest.raises(Invalid, match=r"payload\.requirements"):
        create(10, wants=[*ANY, *ANY, *ANY]).check(terms)
    for empty in ({"nft_ids": ()}, {"requirements": ()}, {"requirements": ({"collection": ""},)}):
        fields = {"nft_ids": (10,), "requirements": ({"collection": PEPE},)} | empty
        with pytest.raises(ValidationError):
            command("trades.create", **fields)
    with pytest.raises(ValidationError):
        propose(UUID(int=1))


def test_large_ids_come_as_text() -> None:
    payload = '{"nft_ids": ["9007199254740993", 10], "requirements": [{"collection": "Plush Pepe"}]}'
    assert decode("trades.create", payload) == create(9007199254740993, 10)


# -- trades.delete


def test_a_deleted_trade_closes_its_open_proposals(world: World) -> None:
    trade_id = opened(world, 10)
    first, second = proposed(world, trade_id, 20), proposed(world, trade_id, 30)
    succeed(world.one(about("decline", trade_id, first), OWNER))
    assert succeed(world.one(delete(trade_id), OWNER)) == {"trade_id": str(trade_id), "proposals_closed": 1}
    assert trade(world, trade_id) == ("deleted", None)
    assert (proposal(world, first), proposal(world, second)) == (("declined", None), ("closed", "deleted"))
    assert told(world, "trade.deleted") == [(f"trade:{trade_id}",), ("user:1",)]
    assert "reason" not in world.events("trade.deleted")[0].fields
    assert told(world, "proposal.closed") == [("user:3",), ("user:1",)]
    assert world.events("proposal.closed")[0].fields == {
        "trade_id": str(trade_id),
        "proposal_id": str(second),
        "nft_ids": ["30"],
        "reason": "deleted",
    }
    check(world)


def test_every_open_proposal_closes_with_its_trade(world: World) -> None:
    trade_id = opened(world, 10)
    proposals = proposed(world, trade_id, 20), proposed(world, trade_id, 30)
    assert succeed(world.one(delete(trade_id), OWNER))["proposals_closed"] == 2
    assert [proposal(world, one) for one in proposals] == [("closed", "deleted")] * 2
    check(world)


@pytest.mark.parametrize("actor", [OWNER, AUTHOR])
def test_owner_and_receiver_delete_a_private_trade(world: World, actor: int) -> None:
    trade_id = opened(world, 10, receiver_id=AUTHOR)
    succeed(world.one(delete(trade_id), actor))
    assert told(world, "trade.deleted") == [("user:1",), ("user:2",)]


def test_nobody_else_deletes_a_public_trade(world: World) -> None:
    trade_id = opened(world, 10)
    proposed(world, trade_id, 20)
    refuse(world, Code.TRADE_PERMISSION_DENIED, lambda: world.one(delete(trade_id), AUTHOR))
    world.one(delete(trade_id), OWNER)
    refuse(world, Code.TRADE_PERMISSION_DENIED, lambda: world.one(delete(trade_id), AUTHOR))


def test_a_trade_is_deleted_once(world: World) -> None:
    trade_id = opened(world, 10)
    succeed(world.one(delete(trade_id), OWNER))
    refuse(world, Code.TRADE_NOT_OPEN, lambda: world.one(delete(trade_id), OWNER))


def test_a_blocked_user_may_only_end_what_is_open(world: World) -> None:
    mine, others = opened(world, 10), opened(world, 20)
    sent, received = proposed(world, others, 11), proposed(world, mine, 21)
    other_received = proposed(world, mine, 30)
    world.one(command("users.block", user_id=OWNER, reason="fraud"))
    for wrong in (create(10), propose(others, 10), about("accept", mine, received)):
        refuse(world, Code.USER_BLOCKED, lambda wrong=wrong: world.one(wrong, OWNER))
    succeed(world.one(about("withdraw_proposal", others, sent), OWNER))
    succeed(world.one(about("decline", mine, other_received), OWNER))
    succeed(world.one(delete(mine), OWNER))


def test_a_private_trade_does_not_exist_for_strangers(world: World) -> None:
    """H31."""
    trade_id = opened(world, 10, receiver_id=AUTHOR)
    proposal_id = proposed(world, trade_id, 20)
    for sent in (
        delete(trade_id),
        propose(trade_id, 30),
        propose(trade_id, 404),
        about("decline", trade_id, proposal_id),
        about("withdraw_proposal", trade_id, proposal_id),
        about("accept", trade_id, proposal_id),
    ):
        refuse(world, Code.TRADE_NOT_FOUND, lambda sent=sent: world.one(sent, OTHER))


# -- detaching


def reserve(world: World, nft_id: int, owner_id: int) -> str:
    succeed(world.one(command("auctions.create", nft_id=nft_id, start_nano=TON), owner_id))
    return "auctioned"


def sell(world: World, nft_id: int, owner_id: int) -> str:
    succeed(world.one(set_price(nft_id, TON), owner_id))
    succeed(world.one(buy(nft_id, TON), OTHER))
    return "sold"


def give(world: World, nft_id: int, owner_id: int) -> str:
    succeed(world.one(transfer(nft_id, OTHER), owner_id))
    return "transferred"


def send_back(world: World, nft_id: int, owner_id: int) -> str:
    succeed(world.one(command("nft.return", nft_id=nft_id), owner_id))
    return "returned"


MOVES = [reserve, sell, give, send_back]


@pytest.mark.parametrize("move", MOVES)
def test_a_trade_is_closed_by_whatever_moves_one_of_its_items(world: World, move: Any) -> None:
    """H11."""
    trade_id, untouched = opened(world, 10, 11), opened(world, 12)
    proposal_id = proposed(world, trade_id, 20)
    reason = move(world, 11, OWNER)
    assert trade(world, trade_id) == proposal(world, proposal_id) == ("closed", reason)
    assert trade(world, untouched) == ("open", None)
    assert told(world, "trade.closed") == [(f"trade:{trade_id}",), ("user:1",)]
    assert world.events("trade.closed")[0].fields == {
        "trade_id": str(trade_id),
        "nft_ids": ["10", "11"],
        "reason": reason,
    }
    refuse(world, Code.TRADE_NOT_OPEN, lambda: world.one(about("accept", trade_id, proposal_id), OWNER))
    refuse(world, Code.TRADE_NOT_OPEN, lambda: world.one(propose(trade_id, 30), OTHER))
    refuse(world, Code.PROPOSAL_NOT_OPEN, lambda: world.one(about("decline", trade_id, proposal_id), OWNER))
    assert owner_of(world, 10) == OWNER


@pytest.mark.parametrize("move", MOVES)
def test_a_proposal_is_closed_by_whatever_moves_one_of_its_items(world: World, move: Any) -> None:
    """H11."""
    trade_id = opened(world, 10)
    proposal_id, untouched = proposed(world, trade_id, 20, 21), proposed(world, trade_id, 30)
    reason = move(world, 21, AUTHOR)
    assert proposal(world, proposal_id) == ("closed", reason)
    assert trade(world, trade_id) == proposal(world, untouched) == ("open", None)
    assert told(world, "proposal.closed") == [("user:2",), ("user:1",)]
    accepting = about("accept", trade_id, proposal_id)
    refuse(world, Code.PROPOSAL_NOT_OPEN, lambda: world.one(accepting, OWNER))
    again = about("withdraw_proposal", trade_id, proposal_id)
    refuse(world, Code.PROPOSAL_NOT_OPEN, lambda: world.one(again, AUTHOR))


def test_a_trade_opened_and_an_item_of_it_sold_in_one_batch(world: World) -> None:
    succeed(world.one(set_price(10, TON), OWNER))
    first, second = world.run((create(10, 11), OWNER), (buy(10, TON), OTHER))
    assert trade(world, UUID(succeed(first)["trade_id"])) == ("closed", "sold")
    succeed(second)
    assert owner_of(world, 10) == OTHER
    check(world)


def test_an_item_whose_trade_has_just_closed_in_another_batch_is_sold(world: World) -> None:
    """Items are read before their trade is locked: the trade's own state decides."""
    trade_id = opened(world, 10)
    succeed(world.one(set_price(10, TON), OWNER))
    stale = world.get(TradeItem, (trade_id, 10))
    succeed(world.one(delete(trade_id), OWNER))
    world.rows[TradeItem, (trade_id, 10)] = stale
    succeed(world.one(buy(10, TON), OTHER))
    assert trade(world, trade_id) == ("deleted", None)
    assert not world.events("trade.closed")


# -- histories


class Act(NamedTuple):
    """A command before it is known what there is to name: `picks` choose among that. A stranger's is sent by whoever
    comes by, not by whom it concerns."""

    kind: str
    picks: tuple[int, int, int]
    is_strangers: bool


KINDS = (
    "create", "create", "propose", "propose", "propose", "accept", "accept", "decline", "withdraw_proposal", "delete",
    "set_price", "buy", "transfer", "offer",
)  # fmt: skip
WANTS: tuple[list[tuple[str, str | None]], ...] = (
    [(PEPE, None)],
    [(PEPE, "Black")],
    [(CAP, None), (PEPE, None)],
    [(PEPE, None), (PEPE, None)],
)
ACTS = st.builds(
    Act, st.sampled_from(KINDS), st.tuples(*[st.integers(0, 11)] * 3), st.sampled_from([False] * 5 + [True])
)


def in_the_middle() -> World:
    """Two trades with a proposal each; a floor on which a fee is more than some can pay."""
    world = begun(ton=2)
    for collection, price_nano in ((PEPE, 20 * TON), (CAP, 70 * TON)):
        world.rows[Floor, ("souk", collection, "")] = Floor("souk", collection, "", price_nano, START)
    first, second = opened(world, 10, 11), opened(world, 20, wants=WANTS[2])
    proposed(world, first, 21)
    proposed(world, second, 30, 34)
    return world


def bind(world: World, act: Act) -> Sent:
    """The command that the act is in this world."""
    one, two, three = act.picks
    users = (OWNER, AUTHOR, OTHER)
    nfts = sorted(Nft._make(row) for (kind, _), row in world.rows.items() if kind is Nft)
    trades = sorted(Trade._make(row) for (kind, _), row in world.rows.items() if kind is Trade)
    proposals = sorted(Proposal._make(row) for (kind, _), row in world.rows.items() if kind is Proposal)
    user, nft = users[one % 3], nfts[two % len(nfts)]
    own = [nft.id for nft in nfts if nft.owner_id == user] or [nfts[0].id]
    given = sorted({own[two % len(own)], own[three % len(own)]})
    the_trade, the_proposal = trades[-1 - one % len(trades)], proposals[-1 - one % len(proposals)]
    match act.kind:
        case "create":
            return create(
                *given, wants=WANTS[two % 4], receiver_id=(None, None, None, users[three % 3])[three % 4]
            ), user
        case "propose":
            return propose(trades[three % len(trades)].id, *given), user
        case "delete":
            return delete(the_trade.id), user if act.is_strangers else the_trade.owner_id
        case "set_price":
            return set_price(nft.id, (TON, None)[three % 2]), user if act.is_strangers else nft.owner_id
        case "buy":
            listed = [nft for nft in nfts if nft.state == NftState.LISTED] or nfts
            return buy(listed[two % len(listed)].id, TON), user
        case "transfer":
            return transfer(nft.id, user), users[three % 3] if act.is_strangers else nft.owner_id
        case "offer":
            listed = [nft for nft in nfts if nft.state == NftState.LISTED] or nfts
            return command("offers.create", nft_id=listed[two % len(listed)].id, price_nano=TON), user
        case _:
            party = the_proposal.author_id if act.kind == "withdraw_proposal" else the_proposal.owner_id
            limit = {"fee_max_nano": TON} if act.kind == "accept" and three % 2 else {}
            ending = about(act.kind, the_proposal.trade_id, the_proposal.id, **limit)
            return ending, user if act.is_strangers else party


@given(st.lists(ACTS, max_size=25))
@settings(max_examples=150)
def test_open_swaps_are_of_free_items_of_their_parties_through_every_history(history: list[Act]) -> None:
    world = in_the_middle()
    for act in history:
        before = world.snapshot()
        [outcome] = world.run(bind(world, act))
        assert outcome.status in (Status.SUCCEEDED, Status.REJECTED), outcome.error
        if outcome.status is Status.REJECTED:
            assert world.snapshot() == before
        check(world)


@given(st.lists(ACTS, max_size=25), st.integers(2, 25))
@settings(max_examples=150, deadline=None)
def test_a_batch_is_worth_as_many_batches_of_one(history: list[Act], size: int) -> None:
    singly, batched = in_the_middle(), in_the_middle()
    outcomes_singly: list[object] = []
    sent: list[Sent] = []
    for act in history:
        sent.append(bind(singly, act))
        outcomes_singly += map(_timeless, singly.run(sent[-1]))
    outcomes_batched: list[object] = []
    for start in range(0, len(sent), size):
        outcomes_batched += map(_timeless, batched.run(*sent[start : start + size]))
    assert outcomes_singly == outcomes_batched
    assert _facts(singly) == _facts(batched)
    check(batched)


def _timeless(outcome: Outcome) -> object:
    """An offer's time of expiry depends on its batch."""
    result = {name: value for name, value in (outcome.result or {}).items() if name != "expires_at"}
    return outcome.status, result, outcome.rejection


def _facts(world: World) -> object:
    kinds = {Trade: 7, Proposal: 6, Nft: 9, Offer: 10}
    rows = {place: row[: kinds[place[0]]] for place, row in world.rows.items() if place[0] in kinds}
    return rows, [event.name for event in world.of(Event)], world.of(Posting), world.of(Deal)
