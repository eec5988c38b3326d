"""Proposals: the most requirements are matched, and a swap moves every item, the fee and nothing else."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import permutations
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.book import FEES, Account, Posting
from commands.deals import Deal, DealItem
from commands.market.floors import Floor
from commands.nft.items import Nft, NftState
from commands.offers import Offer
from commands.outcome import Code, Status
from commands.terms import TON, Terms
from commands.trades.proposals import unmatched
from commands.trades.trades import Requirement, Trade
from tests.commands.swaps import (
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
from tests.commands.world import START, World, code_of, command, set_price

NOWHERE = UUID(int=404)


@pytest.fixture
def world() -> World:
    return begun()


def put(world: World, nft_id: int, **changes: Any) -> None:
    world.rows[Nft, nft_id] = world.get(Nft, nft_id)._replace(**changes)


def set_floor(world: World, price_nano: int, collection: str = PEPE, model: str = "") -> None:
    world.rows[Floor, ("souk", collection, model)] = Floor("souk", collection, model, price_nano, world.now)


# -- matching


class Thing(NamedTuple):
    """What matching looks at in an item."""

    id: int
    collection: str
    backdrop: str


COLLECTIONS, BACKDROPS = st.sampled_from("XY"), st.sampled_from(["red", "blue", "green"])
REQUIREMENTS = st.lists(st.builds(Requirement, collection=COLLECTIONS, backdrop=st.none() | BACKDROPS), max_size=5)
THINGS = st.lists(st.tuples(COLLECTIONS, BACKDROPS), max_size=6).map(
    lambda kinds: [Thing(number, *kind) for number, kind in enumerate(kinds)]
)


def missing(requirements: Sequence[Requirement], things: Sequence[Thing]) -> int:
    return unmatched(requirements, things)  # type: ignore[arg-type] # a thing has all that counts


def tried_out(requirements: Sequence[Requirement], things: Sequence[Thing]) -> int:
    """The same by trying every assignment."""
    padded = [*things, *[None] * len(requirements)]
    return len(requirements) - max(
        sum(
            thing is not None
            and thing.collection == requirement.collection
            and (requirement.backdrop is None or requirement.backdrop == thing.backdrop)
            for requirement, thing in zip(requirements, order, strict=True)
        )
        for order in permutations(padded, len(requirements))
    )


@given(REQUIREMENTS.filter(lambda requirements: len(requirements) <= 4), THINGS.filter(lambda things: len(things) <= 4))
def test_as_many_requirements_are_matched_as_can_be(requirements: list[Requirement], things: list[Thing]) -> None:
    assert missing(requirements, things) == tried_out(requirements, things)


@given(REQUIREMENTS, THINGS, st.randoms(use_true_random=False))
def test_no_order_matters(requirements: list[Requirement], things: list[Thing], random: Any) -> None:
    found = missing(requirements, things)
    random.shuffle(requirements)
    random.shuffle(things)
    assert missing(requirements, things) == found


@given(REQUIREMENTS, THINGS, THINGS)
def test_more_items_never_match_less(requirements: list[Requirement], things: list[Thing], more: list[Thing]) -> None:
    surplus = [thing._replace(id=thing.id + 100) for thing in more]
    assert missing(requirements, things + surplus) <= missing(requirements, things)


def test_the_item_that_serves_both_serves_the_one_that_needs_it() -> None:
    """H30."""
    red, blue = Thing(1, "X", "red"), Thing(2, "X", "blue")
    either, only_red = Requirement(collection="X"), Requirement(collection="X", backdrop="red")
    for requirements in permutations([either, only_red]):
        for things in permutations([red, blue]):
            assert missing(requirements, things) == 0
        assert missing(requirements, [blue, Thing(3, "X", "blue")]) == 1


# -- trades.propose


def test_a_proposal_is_told_to_its_parties_alone(world: World) -> None:
    trade_id = opened(world, 10)
    outcome = world.one(propose(trade_id, 21, 20), AUTHOR)
    proposal_id = succeed(outcome)["proposal_id"]
    assert proposal(world, UUID(proposal_id)) == ("open", None)
    assert told(world, "proposal.made") == [("user:2",), ("user:1",)]
    assert world.events("proposal.made")[0].fields == {
        "trade_id": str(trade_id),
        "proposal_id": proposal_id,
        "nft_ids": ["20", "21"],
    }
    check(world)


def test_an_unknown_trade_is_not_found(world: World) -> None:
    for sent in (
        propose(NOWHERE, 404),
        delete(NOWHERE),
        about("withdraw_proposal", NOWHERE, NOWHERE),
        about("decline", NOWHERE, NOWHERE),
        about("accept", NOWHERE, NOWHERE),
    ):
        refuse(world, Code.TRADE_NOT_FOUND, lambda sent=sent: world.one(sent, AUTHOR))


@pytest.mark.parametrize("external", [False, True])
def test_every_item_is_found(world: World, external: bool) -> None:
    trade_id = opened(world, 10)
    if external:
        put(world, 21, state=NftState.EXTERNAL, owner_id=None)
    lost = 21 if external else 404
    rejection = refuse(world, Code.NFT_NOT_FOUND, lambda: world.one(propose(trade_id, 30, lost), AUTHOR))
    assert rejection["nft_id"] == str(lost)


def test_items_of_others_are_named_before_an_earlier_proposal(world: World) -> None:
    trade_id = opened(world, 10)
    proposed(world, trade_id, 20)
    rejection = refuse(world, Code.NFTS_NOT_OWNED, lambda: world.one(propose(trade_id, 21, 30), AUTHOR))
    assert rejection["nft_ids"] == ["30"]


def test_a_user_has_one_open_proposal_to_a_trade(world: World) -> None:
    trade_id = opened(world, 10)
    first = proposed(world, trade_id, 20)
    put(world, 21, state=NftState.ON_AUCTION)
    refuse(world, Code.PROPOSAL_ALREADY_EXISTS, lambda: world.one(propose(trade_id, 21), AUTHOR))
    withdrawn, again = world.run((about("withdraw_proposal", trade_id, first), AUTHOR), (propose(trade_id, 20), AUTHOR))
    succeed(withdrawn)
    succeed(again)
    check(world)


def test_a_closed_trade_takes_no_proposal(world: World) -> None:
    trade_id = opened(world, 10)
    succeed(world.one(delete(trade_id), OWNER))
    put(world, 20, state=NftState.ON_AUCTION)
    refuse(world, Code.TRADE_NOT_OPEN, lambda: world.one(propose(trade_id, 20), AUTHOR))


@pytest.mark.parametrize(("state", "code"), RESERVED)
def test_a_reserved_item_is_not_proposed(world: World, state: NftState, code: Code) -> None:
    trade_id = opened(world, 10)
    put(world, 11, state=state)
    refuse(world, code, lambda: world.one(propose(trade_id, 12, 11), OWNER))


def test_nobody_proposes_to_oneself(world: World) -> None:
    trade_id = opened(world, 10)
    refuse(world, Code.SELF_TRADE_NOT_ALLOWED, lambda: world.one(propose(trade_id, 14), OWNER))


def test_what_does_not_meet_the_requirements_is_not_proposed(world: World) -> None:
    world.terms = Terms(proposals_per_trade_max=1)
    trade_id = opened(world, 10, wants=[(CAP, None), (PEPE, None), (CAP, "Red"), (PEPE, "Black")])
    rejection = refuse(world, Code.TRADE_REQUIREMENTS_NOT_MET, lambda: world.one(propose(trade_id, 24), AUTHOR))
    assert rejection["unmatched"] == 3
    put(world, 23, collection=CAP, backdrop="Blue")
    proposed(world, trade_id, 20, 21, 22, 23, 24)
    refuse(world, Code.TRADE_REQUIREMENTS_NOT_MET, lambda: world.one(propose(trade_id, 34, 30), OTHER))


def test_a_trade_takes_so_many_open_proposals(world: World) -> None:
    world.terms = Terms(proposals_per_trade_max=1)
    trade_id = opened(world, 10)
    first, second = world.run((propose(trade_id, 20), AUTHOR), (propose(trade_id, 30), OTHER))
    succeed(first)
    assert code_of(second) == "LIMIT_REACHED"
    assert refuse(world, Code.LIMIT_REACHED, lambda: world.one(propose(trade_id, 30), OTHER))["limit"] == 1
    succeed(world.one(about("decline", trade_id, UUID(succeed(first)["proposal_id"])), OWNER))
    proposed(world, trade_id, 30)


def test_an_item_is_part_of_so_many_open_trades_and_proposals(world: World) -> None:
    world.terms = Terms(trades_per_item_max=2)
    trade_id = opened(world, 10)
    opened(world, 20)
    proposed(world, opened(world, 11), 20)
    assert refuse(world, Code.LIMIT_REACHED, lambda: world.one(propose(trade_id, 21, 20), AUTHOR))["limit"] == 2
    proposed(world, trade_id, 21)


def test_the_receiver_of_a_private_trade_proposes_and_is_accepted(world: World) -> None:
    trade_id = opened(world, 10, receiver_id=AUTHOR)
    proposal_id = proposed(world, trade_id, 20)
    succeed(world.one(about("accept", trade_id, proposal_id), OWNER))
    assert told(world, "trade.accepted") == [("user:1",), ("user:2",)]
    assert (owner_of(world, 10), owner_of(world, 20)) == (AUTHOR, OWNER)


# -- trades.withdraw_proposal, trades.decline


@pytest.mark.parametrize(
    ("kind", "actor", "state"), [("withdraw_proposal", AUTHOR, "withdrawn"), ("decline", OWNER, "declined")]
)
def test_a_proposal_is_ended_by_its_party(world: World, kind: str, actor: int, state: str) -> None:
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    ending = about(kind, trade_id, proposal_id)
    for wrong in {OWNER, AUTHOR, OTHER} - {actor}:
        refuse(world, Code.TRADE_PERMISSION_DENIED, lambda wrong=wrong: world.one(ending, wrong))
    assert succeed(world.one(ending, actor)) == {"proposal_id": str(proposal_id)}
    assert proposal(world, proposal_id) == (state, None)
    assert trade(world, trade_id) == ("open", None)
    assert told(world, f"proposal.{state}") == [("user:2",), ("user:1",)]
    refuse(world, Code.PROPOSAL_NOT_OPEN, lambda: world.one(ending, actor))
    check(world)


@pytest.mark.parametrize("kind", ["withdraw_proposal", "decline", "accept"])
def test_a_proposal_unknown_or_to_another_trade_is_not_found(world: World, kind: str) -> None:
    first, second = opened(world, 10), opened(world, 11)
    proposal_id = proposed(world, first, 20)
    for trade_id, wrong in ((first, NOWHERE), (second, proposal_id)):
        sent = about(kind, trade_id, wrong)
        refuse(world, Code.PROPOSAL_NOT_FOUND, lambda sent=sent: world.one(sent, AUTHOR))


# -- trades.accept


def test_a_swap_moves_every_item_and_the_fee(world: World) -> None:
    set_floor(world, 10 * TON)
    trade_id = opened(world, 11, 10)
    proposal_id, other_id = proposed(world, trade_id, 22, 20, 21), proposed(world, trade_id, 30)
    outcome = world.one(about("accept", trade_id, proposal_id), OWNER)
    fee = 3 * (10 * TON // 50)
    [deal] = world.of(Deal)
    assert succeed(outcome) == {
        "deal_id": str(deal.id),
        "sent": ["10", "11"],
        "received": ["20", "21", "22"],
        "fee_nano": fee,
    }
    assert deal[1:] == ("trade", OWNER, AUTHOR, None, 200, fee, None)
    assert [(item.nft_id, item.gift_id, item.direction) for item in world.of(DealItem)] == [
        (10, 10, "to_buyer"),
        (11, 11, "to_buyer"),
        (20, 20, "to_seller"),
        (21, 21, "to_seller"),
        (22, 22, "to_seller"),
    ]
    assert [owner_of(world, nft_id) for nft_id in (10, 11, 20, 21, 22)] == [AUTHOR, AUTHOR, OWNER, OWNER, OWNER]
    assert (world.balance(OWNER), world.balance(AUTHOR)) == (10 * TON - fee, 10 * TON)
    posting = world.of(Posting)[-1]
    assert posting[1:6] == (OWNER, "available", FEES, "available", fee)
    assert posting[8:] == ("deal", str(deal.id))
    assert (trade(world, trade_id), proposal(world, proposal_id)) == (("accepted", None), ("accepted", None))
    assert proposal(world, other_id) == ("closed", "accepted")
    assert told(world, "trade.accepted") == [(f"trade:{trade_id}",), ("user:1",)]
    assert told(world, "proposal.accepted") == [("user:2",), ("user:1",)]
    assert told(world, "proposal.closed") == [("user:3",), ("user:1",)]
    assert [(event.topics, event.fields["role"]) for event in world.events("deal.made")] == [
        (("user:1",), "seller"),
        (("user:2",), "buyer"),
    ]
    check(world)


def test_what_is_swapped_is_off_the_market(world: World) -> None:
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    for nft_id, owner_id in ((10, OWNER), (20, AUTHOR)):
        succeed(world.one(set_price(nft_id, TON), owner_id))
    succeed(world.one(about("accept", trade_id, proposal_id), OWNER))
    for nft_id in (10, 20):
        nft = world.get(Nft, nft_id)
        assert (nft.state, nft.price_nano, nft.fee_bp, nft.hanging) == (NftState.HELD, None, None, False)


def test_a_swap_closes_what_else_its_items_are_part_of(world: World) -> None:
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    of_given, of_received = opened(world, 10, 11), opened(world, 20, 21)
    to_given, to_received = proposed(world, of_given, 30), proposed(world, of_received, 31)
    third = opened(world, 32)
    with_given, with_received = proposed(world, third, 12, 10), proposed(world, opened(world, 33), 20)
    bystander = proposed(world, third, 22)
    succeed(world.one(about("accept", trade_id, proposal_id), OWNER))
    assert trade(world, of_given) == trade(world, of_received) == ("closed", "swapped")
    closed = (to_given, to_received, with_given, with_received)
    assert {proposal(world, proposal_id) for proposal_id in closed} == {("closed", "swapped")}
    assert trade(world, third) == proposal(world, bystander) == ("open", None)
    check(world)


def test_only_the_trades_owner_accepts(world: World) -> None:
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    succeed(world.one(delete(trade_id), OWNER))
    accepting = about("accept", trade_id, proposal_id)
    for wrong in (AUTHOR, OTHER):
        refuse(world, Code.TRADE_PERMISSION_DENIED, lambda wrong=wrong: world.one(accepting, wrong))


def test_a_closed_trade_is_said_before_its_closed_proposal(world: World) -> None:
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    accepting = about("accept", trade_id, proposal_id)
    succeed(world.one(accepting, OWNER))
    refuse(world, Code.TRADE_NOT_OPEN, lambda: world.one(accepting, OWNER))


def test_a_closed_proposal_is_not_accepted(world: World) -> None:
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    succeed(world.one(about("withdraw_proposal", trade_id, proposal_id), AUTHOR))
    accepting = about("accept", trade_id, proposal_id, fee_max_nano=0)
    refuse(world, Code.PROPOSAL_NOT_OPEN, lambda: world.one(accepting, OWNER))


def test_each_items_fee_is_rounded_down_by_itself(world: World) -> None:
    set_floor(world, 99)
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20, 21)
    outcome = world.one(about("accept", trade_id, proposal_id), OWNER)
    assert succeed(outcome)["fee_nano"] == 2 * (99 * 200 // 10_000) != 2 * 99 * 200 // 10_000


def test_the_fee_is_on_the_floors_of_what_is_received(world: World) -> None:
    set_floor(world, 1000 * TON, model="Platinum")
    set_floor(world, 500 * TON, CAP, model="Gold")
    set_floor(world, 50 * TON)
    set_floor(world, 5 * TON, model="Gold")
    trade_id = opened(world, 14)
    proposal_id = proposed(world, trade_id, 20)
    outcome = world.one(about("accept", trade_id, proposal_id), OWNER)
    assert succeed(outcome)["fee_nano"] == 5 * TON // 50


def test_a_swap_without_a_fresh_floor_is_free(world: World) -> None:
    set_floor(world, 10 * TON)
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    world.now += timedelta(days=1, seconds=1)
    postings = world.of(Posting)
    outcome = world.one(about("accept", trade_id, proposal_id, fee_max_nano=0), OWNER)
    assert succeed(outcome)["fee_nano"] == 0
    assert world.of(Posting) == postings


def test_the_rate_is_that_of_the_moment_of_opening(world: World) -> None:
    set_floor(world, 10 * TON)
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    world.terms = Terms(trade_fee_bp=9_999)
    outcome = world.one(about("accept", trade_id, proposal_id), OWNER)
    assert succeed(outcome)["fee_nano"] == 10 * TON // 50


def test_no_fee_above_the_maximum_named_is_paid(world: World) -> None:
    set_floor(world, 1000 * TON)
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    dear = about("accept", trade_id, proposal_id, fee_max_nano=20 * TON - 1)
    assert refuse(world, Code.FEE_TOO_HIGH, lambda: world.one(dear, OWNER))["fee_nano"] == 20 * TON
    set_floor(world, 100 * TON)
    assert (
        succeed(world.one(about("accept", trade_id, proposal_id, fee_max_nano=2 * TON), OWNER))["fee_nano"] == 2 * TON
    )


def test_a_fee_beyond_the_balance_is_refused(world: World) -> None:
    set_floor(world, 501 * TON)
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    accepting = about("accept", trade_id, proposal_id, fee_max_nano=501 * TON // 50)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(accepting, OWNER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (501 * TON // 50, 10 * TON)


def offer(nft_id: int, price_nano: int) -> Any:
    return command("offers.create", nft_id=nft_id, price_nano=price_nano)


def test_the_owners_own_offer_on_what_is_received_pays_the_fee(world: World) -> None:
    set_floor(world, 100 * TON)
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    succeed(world.one(set_price(20, 9 * TON), AUTHOR))
    succeed(world.one(offer(20, 9 * TON), OWNER))
    assert world.balance(OWNER) == TON
    set_floor(world, 501 * TON)
    accepting = about("accept", trade_id, proposal_id)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(accepting, OWNER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (501 * TON // 50 - 9 * TON, TON)
    set_floor(world, 500 * TON)
    succeed(world.one(accepting, OWNER))
    assert world.get(Account, OWNER) == (OWNER, 0, 0)
    [row] = [row for (kind, _), row in world.rows.items() if kind is Offer]
    assert Offer._make(row).state == "closed"
    check(world)


def test_offers_of_others_do_not_pay_the_owners_fee(world: World) -> None:
    set_floor(world, 501 * TON)
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    for nft_id, owner_id in ((10, OWNER), (20, AUTHOR)):
        succeed(world.one(set_price(nft_id, 5 * TON), owner_id))
        succeed(world.one(offer(nft_id, 4 * TON), OTHER))
    accepting = about("accept", trade_id, proposal_id)
    refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(accepting, OWNER))


def test_requirements_not_met_any_more_are_refused_after_the_fee_and_before_the_money(world: World) -> None:
    set_floor(world, 1000 * TON)
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    other = '[{"collection":"Plush Pepe","backdrop":null},{"collection":"Plush Pepe","backdrop":null}]'
    world.rows[Trade, trade_id] = world.get(Trade, trade_id)._replace(requirements=other)
    accepting = about("accept", trade_id, proposal_id)
    assert refuse(world, Code.TRADE_REQUIREMENTS_NOT_MET, lambda: world.one(accepting, OWNER))["unmatched"] == 1
    accepting = about("accept", trade_id, proposal_id, fee_max_nano=0)
    refuse(world, Code.FEE_TOO_HIGH, lambda: world.one(accepting, OWNER))


@pytest.mark.parametrize("nft_id", [10, 20])
@pytest.mark.parametrize(
    "changes",
    [{"owner_id": OTHER}, {"state": NftState.ON_AUCTION}, {"state": NftState.EXTERNAL, "owner_id": None}],
)
def test_an_open_swap_of_items_that_are_not_free_is_a_mistake_of_ours(
    world: World, nft_id: int, changes: dict[str, Any]
) -> None:
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    put(world, nft_id, **changes)
    before = world.snapshot()
    outcome = world.one(about("accept", trade_id, proposal_id), OWNER)
    assert outcome.status is Status.FAILED
    assert "RuntimeError" in (outcome.error or "")
    assert world.snapshot() == before


def test_a_trade_is_opened_proposed_to_and_accepted_in_one_batch(world: World) -> None:
    trade_id, proposal_id = UUID(int=world.last_number + 1), UUID(int=world.last_number + 2)
    outcomes = world.run(
        (create(10, wants=[(CAP, "Red")]), OWNER),
        (propose(trade_id, 24), AUTHOR),
        (about("accept", trade_id, proposal_id), OWNER),
        (about("accept", trade_id, proposal_id), OWNER),
    )
    assert [code_of(outcome) for outcome in outcomes] == [None, None, None, "TRADE_NOT_OPEN"]
    assert (owner_of(world, 10), owner_of(world, 24)) == (AUTHOR, OWNER)
    check(world)


def test_of_two_trades_that_give_one_item_the_first_accepted_gives_it(world: World) -> None:
    first, second = opened(world, 10), opened(world, 10)
    to_first, to_second = proposed(world, first, 20), proposed(world, second, 30)
    one, other = world.run((about("accept", second, to_second), OWNER), (about("accept", first, to_first), OWNER))
    succeed(one)
    assert code_of(other) == "TRADE_NOT_OPEN"
    assert (owner_of(world, 10), owner_of(world, 20), owner_of(world, 30)) == (OTHER, AUTHOR, OWNER)
    check(world)


def test_floors_are_those_of_the_moment_of_acceptance(world: World) -> None:
    trade_id = opened(world, 10)
    proposal_id = proposed(world, trade_id, 20)
    recorded = command("market.record_floor", market="souk", collection=PEPE, price_nano=10 * TON, observed_at=START)
    succeed(world.one(recorded))
    outcome = world.one(about("accept", trade_id, proposal_id), OWNER)
    assert succeed(outcome)["fee_nano"] == 10 * TON // 50
