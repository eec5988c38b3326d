"""Auctions: one leader at a time, whose money alone is held, and one end, which late bids move but not for ever."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.auctions import Auction, Bid, Cancel, Create, PlaceBid, Settle
from commands.book import FEES, Account, Event, Posting
from commands.command import Command, Invalid, Sender
from commands.deals import Deal, DealItem
from commands.nft.items import Nft, NftState
from commands.offers import Create as CreateOffer
from commands.offers import Offer
from commands.outcome import Code, Outcome, Status
from commands.terms import TON, Terms, fee_nano
from commands.users import User
from tests.commands import histories
from tests.commands.world import World, buy, code_of, set_price, transfer

SELLER, ANN, BOB, STRANGER = 1, 2, 3, 4
ITEM, ELSEWHERE = 17, 18
START = 3 * TON
UNKNOWN = UUID(int=404)
WINDOW = timedelta(seconds=300)
EXTENSION = timedelta(seconds=3_600)
MOMENT = timedelta(microseconds=1)
GRACE = timedelta(seconds=2)


@pytest.fixture
def world() -> World:
    """A seller without money and a held item; three users with 10 TON each."""
    world = World()
    world.user(SELLER, ton=0)
    for user_id in (ANN, BOB, STRANGER):
        world.user(user_id)
    world.item(ITEM, SELLER)
    world.item(ELSEWHERE, SELLER)
    return world


def create(**changes: Any) -> Command:
    return Create.model_validate({"nft_id": ITEM, "start_nano": START} | changes)


def cancel(auction_id: UUID, nft_id: int = ITEM) -> Command:
    return Cancel(nft_id=nft_id, auction_id=auction_id)


def bid(auction_id: UUID, amount_nano: int = START, nft_id: int = ITEM) -> Command:
    return PlaceBid(nft_id=nft_id, auction_id=auction_id, amount_nano=amount_nano)


def settle(auction_id: UUID, nft_id: int = ITEM) -> Command:
    return Settle(nft_id=nft_id, auction_id=auction_id)


def done(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status is Status.SUCCEEDED, outcome
    assert outcome.result is not None
    return outcome.result


def opened(world: World, **changes: Any) -> UUID:
    return UUID(done(world.one(create(**changes), SELLER))["auction_id"])


def bidden(world: World, auction_id: UUID, amount_nano: int, bidder: int = ANN) -> UUID:
    return UUID(done(world.one(bid(auction_id, amount_nano), bidder))["bid_id"])


def refused(world: World, code: Code, command: Command, actor: int | None) -> dict[str, Any]:
    """The command is refused with the code, and leaves nothing behind."""
    before = world.snapshot()
    outcome = world.one(command, actor)
    assert outcome.status is Status.REJECTED, outcome
    assert outcome.rejection is not None
    assert outcome.rejection["code"] == code.name
    assert world.snapshot() == before
    return outcome.rejection


def money(world: World, user_id: int) -> tuple[int, int]:
    account = world.get(Account, user_id)
    return account.available_nano, account.held_nano


def told(world: World, name: str) -> dict[tuple[str, ...], dict[str, Any]]:
    return {event.topics: event.fields for event in world.events(name)}


def put(world: World, **changes: Any) -> None:
    world.rows[Nft, ITEM] = world.get(Nft, ITEM)._replace(**changes)


def ends_at(world: World, auction_id: UUID) -> datetime:
    at = world.get(Auction, auction_id).ends_at
    assert isinstance(at, datetime)
    return at


TO_SELLER = ("user:1",)


def public(auction_id: UUID) -> tuple[str, ...]:
    return f"nft:{ITEM}", f"auctions:{auction_id}", "market"


# -- auctions.create


def test_an_auction_reserves_the_item_and_sets_its_end(world: World) -> None:
    accepted_at = world.now
    result = done(world.one(create(step_bp=500, duration_seconds=7_200), SELLER))
    auction_id = UUID(int=world.last_number)
    planned = accepted_at + timedelta(hours=2)
    assert result == {"auction_id": str(auction_id), "ends_at": planned}
    auction = world.get(Auction, auction_id)
    assert (auction.nft_id, auction.seller_id, auction.state, auction.closed_at) == (ITEM, SELLER, "active", None)
    assert (auction.start_nano, auction.current_nano, auction.bid_count, auction.leader_bid_id) == (
        START,
        START,
        0,
        None,
    )
    assert (auction.step_bp, auction.fee_bp) == (500, 500)
    assert (auction.ends_at, auction.planned_ends_at, auction.opened_at) == (planned, planned, world.now)
    nft = world.get(Nft, ITEM)
    assert (nft.state, nft.reserved_by, nft.reserved_kind, nft.owner_id) == (
        NftState.ON_AUCTION,
        auction_id,
        "auction",
        SELLER,
    )
    assert world.timers == [(planned + GRACE, settle(auction_id))]
    fields = {"auction_id": str(auction_id), "nft_id": "17", "start_nano": START}
    assert told(world, "auction.opened") == {public(auction_id): fields, TO_SELLER: fields}
    histories.check(world)


def test_an_auction_lasts_an_hour_with_steps_of_a_tenth_unless_told_otherwise(world: World) -> None:
    accepted_at = world.now
    auction = world.get(Auction, opened(world))
    assert (auction.step_bp, auction.ends_at) == (1_000, accepted_at + timedelta(hours=1))


def test_nobody_auctions_an_item_that_is_not_there(world: World) -> None:
    assert refused(world, Code.NFT_NOT_FOUND, create(nft_id=404), SELLER)["nft_id"] == "404"
    put(world, state=NftState.EXTERNAL, owner_id=None)
    refused(world, Code.NFT_NOT_FOUND, create(), SELLER)


def test_only_the_owner_auctions(world: World) -> None:
    refused(world, Code.NFT_PERMISSION_DENIED, create(), ANN)
    opened(world)
    refused(world, Code.NFT_PERMISSION_DENIED, create(), ANN)


def test_an_item_has_one_auction(world: World) -> None:
    opened(world)
    refused(world, Code.AUCTION_ALREADY_EXISTS, create(), SELLER)


def test_a_listed_item_is_not_auctioned(world: World) -> None:
    done(world.one(set_price(ITEM, 5 * TON), SELLER))
    refused(world, Code.NFT_LISTED, create(), SELLER)


@pytest.mark.parametrize(
    ("state", "code"),
    [(NftState.IN_BUNDLE, Code.NFT_IN_BUNDLE), (NftState.WITHDRAWING, Code.NFT_NOT_AVAILABLE)],
)
def test_a_reserved_item_is_not_auctioned(world: World, state: NftState, code: Code) -> None:
    put(world, state=state)
    refused(world, code, create(), SELLER)


def test_an_item_on_auction_is_moved_by_nothing_else(world: World) -> None:
    opened(world)
    refused(world, Code.NFT_ON_AUCTION, set_price(ITEM, TON), SELLER)
    refused(world, Code.NFT_ON_AUCTION, transfer(ITEM, ANN), SELLER)
    refused(world, Code.NFT_ON_AUCTION, buy(ITEM, TON), ANN)
    refused(world, Code.NFT_ON_AUCTION, CreateOffer(nft_id=ITEM, price_nano=TON), ANN)


def test_auctioning_closes_what_hangs_on_the_item(world: World) -> None:
    done(world.one(set_price(ITEM, 5 * TON), SELLER))
    offer_id = UUID(done(world.one(CreateOffer(nft_id=ITEM, price_nano=4 * TON), ANN))["offer_id"])
    done(world.one(set_price(ITEM, None), SELLER))
    opened(world)
    offer = world.get(Offer, offer_id)
    assert (offer.state, offer.reason) == ("closed", "auctioned")
    assert money(world, ANN) == (10 * TON, 0)
    histories.check(world)


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        ("start_nano", TON // 100, 100_000 * TON),
        ("step_bp", 100, 10_000),
        ("duration_seconds", 60, 604_800),
    ],
)
def test_the_terms_bound_an_auction(field: str, least: int, most: int) -> None:
    for value in (least, most):
        create(**{field: value}).check(Terms())
    for value in (least - 1, most + 1):
        with pytest.raises(Invalid, match=field):
            create(**{field: value}).check(Terms())


# -- auctions.cancel


def test_an_auction_without_bids_is_cancelled_by_its_seller(world: World) -> None:
    auction_id = opened(world)
    assert done(world.one(cancel(auction_id), SELLER)) == {"auction_id": str(auction_id)}
    auction, nft = world.get(Auction, auction_id), world.get(Nft, ITEM)
    assert (auction.state, auction.closed_at) == ("cancelled", world.now)
    assert (nft.state, nft.reserved_by, nft.reserved_kind, nft.owner_id) == (NftState.HELD, None, None, SELLER)
    fields = {"auction_id": str(auction_id), "nft_id": "17", "state": "cancelled"}
    assert told(world, "auction.cancelled") == {public(auction_id): fields, TO_SELLER: fields}
    histories.check(world)
    opened(world)


@pytest.mark.parametrize(("command", "actor"), [(cancel, SELLER), (bid, ANN), (settle, None)])
def test_an_auction_is_found_by_its_id_and_its_item(world: World, command: Any, actor: int | None) -> None:
    auction_id = opened(world)
    refused(world, Code.AUCTION_NOT_FOUND, command(UNKNOWN), actor)
    refused(world, Code.AUCTION_NOT_FOUND, command(auction_id, nft_id=ELSEWHERE), actor)
    refused(world, Code.AUCTION_NOT_FOUND, command(auction_id, nft_id=404), actor)


def test_only_the_seller_cancels(world: World) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, START)
    refused(world, Code.AUCTION_PERMISSION_DENIED, cancel(auction_id), ANN)
    refused(world, Code.AUCTION_PERMISSION_DENIED, cancel(auction_id), STRANGER)


def test_an_auction_with_a_bid_is_not_cancelled(world: World) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, START)
    refused(world, Code.AUCTION_HAS_BIDS, cancel(auction_id), SELLER)
    world.now = ends_at(world, auction_id)
    refused(world, Code.AUCTION_HAS_BIDS, cancel(auction_id), SELLER)


def test_an_auction_is_not_cancelled_after_its_end(world: World) -> None:
    auction_id = opened(world)
    end = ends_at(world, auction_id)
    world.now = end
    refused(world, Code.AUCTION_EXPIRED, cancel(auction_id), SELLER)
    world.now = end - MOMENT
    done(world.one(cancel(auction_id), SELLER))


@pytest.mark.parametrize(("command", "actor"), [(cancel, SELLER), (bid, ANN), (settle, None)])
def test_an_auction_that_is_over_stays_over(world: World, command: Any, actor: int | None) -> None:
    auction_id = opened(world)
    done(world.one(cancel(auction_id), SELLER))
    refused(world, Code.AUCTION_NOT_ACTIVE, command(auction_id), actor)
    world.advance(4_000)
    refused(world, Code.AUCTION_NOT_ACTIVE, command(auction_id), actor)


def test_a_sold_auction_is_over_to_its_seller_and_still_somebody_elses_to_others(world: World) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, START)
    world.advance(4_000)
    refused(world, Code.AUCTION_NOT_ACTIVE, cancel(auction_id), SELLER)
    refused(world, Code.AUCTION_PERMISSION_DENIED, cancel(auction_id), STRANGER)


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ((bid, ANN), (cancel, SELLER), "AUCTION_HAS_BIDS"),
        ((cancel, SELLER), (bid, ANN), "AUCTION_NOT_ACTIVE"),
    ],
)
def test_of_a_bid_and_a_cancel_the_first_wins(world: World, first: Any, second: Any, code: str) -> None:
    auction_id = opened(world)
    won, lost = world.run((first[0](auction_id), first[1]), (second[0](auction_id), second[1]))
    done(won)
    assert code_of(lost) == code
    histories.check(world)


def test_a_blocked_seller_still_cancels_and_does_nothing_else(world: World) -> None:
    auction_id = opened(world)
    for user_id in (SELLER, ANN):
        world.rows[User, user_id] = world.get(User, user_id)._replace(blocked=True)
    refused(world, Code.USER_BLOCKED, create(nft_id=ELSEWHERE), SELLER)
    refused(world, Code.USER_BLOCKED, bid(auction_id), ANN)
    refused(world, Code.USER_BLOCKED, settle(auction_id), ANN)
    done(world.one(cancel(auction_id), SELLER))


# -- auctions.place_bid


def test_a_bid_leads_and_holds_its_amount(world: World) -> None:
    auction_id = opened(world)
    end = ends_at(world, auction_id)
    result = done(world.one(bid(auction_id, 4 * TON), ANN))
    bid_id = UUID(int=world.last_number)
    assert result == {"bid_id": str(bid_id), "amount_nano": 4 * TON, "ends_at": end}
    assert money(world, ANN) == (6 * TON, 4 * TON)
    assert world.get(Bid, bid_id) == (bid_id, auction_id, ANN, 4 * TON, 4 * TON, "leading", world.now, None)
    auction = world.get(Auction, auction_id)
    assert (auction.leader_bid_id, auction.current_nano, auction.bid_count) == (bid_id, 4 * TON, 1)
    assert world.of(Posting)[-1][8:] == ("bid", str(bid_id))
    fields = {"auction_id": str(auction_id), "nft_id": "17", "amount_nano": 4 * TON}
    assert told(world, "auction.bid_placed") == {public(auction_id): fields, TO_SELLER: fields}
    histories.check(world)


def test_an_outbid_bidder_has_the_money_back_at_once(world: World) -> None:
    auction_id = opened(world)
    first = bidden(world, auction_id, 4 * TON)
    second = bidden(world, auction_id, 5 * TON, BOB)
    assert (money(world, ANN), money(world, BOB)) == ((10 * TON, 0), (5 * TON, 5 * TON))
    outbid = world.get(Bid, first)
    assert (outbid.state, outbid.held_nano, outbid.amount_nano, outbid.closed_at) == ("outbid", 0, 4 * TON, world.now)
    assert told(world, "bid.outbid") == {
        ("user:2",): {
            "auction_id": str(auction_id),
            "bid_id": str(first),
            "nft_id": "17",
            "amount_nano": 4 * TON,
            "released_nano": 4 * TON,
        }
    }
    assert [posting[1:6] + posting[8:] for posting in world.of(Posting)[-2:]] == [
        (ANN, "held", ANN, "available", 4 * TON, "bid", str(first)),
        (BOB, "available", BOB, "held", 5 * TON, "bid", str(second)),
    ]
    assert world.get(Auction, auction_id).bid_count == 2
    histories.check(world)


def test_the_money_of_an_outbid_bidder_bids_in_the_very_next_command(world: World) -> None:
    auction_id = opened(world)
    outcomes = world.run(
        (bid(auction_id, 8 * TON), ANN), (bid(auction_id, 9 * TON), BOB), (bid(auction_id, 10 * TON), ANN)
    )
    assert [outcome.status for outcome in outcomes] == [Status.SUCCEEDED] * 3
    assert (money(world, ANN), money(world, BOB)) == ((0, 10 * TON), (10 * TON, 0))
    histories.check(world)


def test_the_first_bid_is_the_start_price_at_least(world: World) -> None:
    auction_id = opened(world)
    assert refused(world, Code.BID_TOO_LOW, bid(auction_id, START - 1), ANN)["minimum_nano"] == START
    bidden(world, auction_id, START)


@pytest.mark.parametrize(
    ("leading", "step_bp", "minimum"),
    [
        (3 * TON, 1_000, 3 * TON + 3 * TON // 10),
        (3 * TON, 10_000, 6 * TON),
        (3 * TON + 9, 1_000, 3 * TON + 9 + 300_000_000),
        (3 * TON + 10, 1_000, 3 * TON + 10 + 300_000_001),
    ],
)
def test_a_later_bid_is_a_step_higher_at_least(world: World, leading: int, step_bp: int, minimum: int) -> None:
    auction_id = opened(world, step_bp=step_bp)
    bidden(world, auction_id, leading)
    for bidder in (ANN, BOB):
        assert refused(world, Code.BID_TOO_LOW, bid(auction_id, minimum - 1), bidder)["minimum_nano"] == minimum
    bidden(world, auction_id, minimum, BOB)


def test_the_least_step_is_one_nano(world: World) -> None:
    world.terms = Terms(price_min_nano=1)
    auction_id = opened(world, start_nano=5, step_bp=100)
    bidden(world, auction_id, 5)
    assert refused(world, Code.BID_TOO_LOW, bid(auction_id, 5), BOB)["minimum_nano"] == 6
    bidden(world, auction_id, 6, BOB)


def test_the_seller_does_not_bid(world: World) -> None:
    auction_id = opened(world)
    refused(world, Code.SELF_TRADE_NOT_ALLOWED, bid(auction_id, START - 1), SELLER)


def test_a_bid_beyond_the_balance_is_refused_with_both_figures(world: World) -> None:
    auction_id = opened(world)
    rejection = refused(world, Code.INSUFFICIENT_BALANCE, bid(auction_id, 10 * TON + 1), ANN)
    assert (rejection["required_nano"], rejection["available_nano"]) == (10 * TON + 1, 10 * TON)
    bidden(world, auction_id, 10 * TON)


def test_a_bid_in_time_is_before_the_end_by_the_time_of_acceptance(world: World) -> None:
    auction_id = opened(world)
    end = ends_at(world, auction_id)
    world.now = end
    refused(world, Code.AUCTION_EXPIRED, bid(auction_id), ANN)
    refused(world, Code.AUCTION_EXPIRED, bid(auction_id), SELLER)
    world.now = end - MOMENT
    bidden(world, auction_id, START)


# -- the leader's own raise


def test_a_raise_holds_the_difference_only(world: World) -> None:
    auction_id = opened(world)
    first = bidden(world, auction_id, 8 * TON)
    second = bidden(world, auction_id, 10 * TON)
    assert money(world, ANN) == (0, 10 * TON)
    raised = world.get(Bid, first)
    assert (raised.state, raised.held_nano, raised.closed_at) == ("raised", 0, world.now)
    assert world.get(Bid, second)[3:6] == (10 * TON, 10 * TON, "leading")
    posting = world.of(Posting)[-1]
    assert posting[1:6] + posting[8:] == (ANN, "available", ANN, "held", 2 * TON, "bid", str(second))
    assert world.events("bid.outbid") == []
    assert world.get(Auction, auction_id).bid_count == 2
    histories.check(world)


def test_a_raise_beyond_the_balance_names_only_the_difference(world: World) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, 8 * TON)
    rejection = refused(world, Code.INSUFFICIENT_BALANCE, bid(auction_id, 10 * TON + 1), ANN)
    assert (rejection["required_nano"], rejection["available_nano"]) == (2 * TON + 1, 2 * TON)


def test_raising_to_the_same_again_is_too_low(world: World) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, 10 * TON)
    refused(world, Code.BID_TOO_LOW, bid(auction_id, 10 * TON), ANN)


def test_a_raise_near_the_end_does_not_extend(world: World) -> None:
    auction_id = opened(world)
    end = ends_at(world, auction_id)
    bidden(world, auction_id, START)
    world.now = end - timedelta(seconds=10)
    assert done(world.one(bid(auction_id, 5 * TON), ANN))["ends_at"] == end
    assert world.events("auction.extended") == []
    assert len(world.timers) == 1


def test_an_outbid_raiser_gets_the_whole_of_the_raised_bid(world: World) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, 4 * TON)
    bidden(world, auction_id, 6 * TON)
    bidden(world, auction_id, 8 * TON, BOB)
    assert money(world, ANN) == (10 * TON, 0)
    [outbid] = world.events("bid.outbid")
    assert outbid.fields["released_nano"] == 6 * TON
    histories.check(world)


# -- anti-sniping


def test_a_change_of_leader_in_the_window_moves_the_end(world: World) -> None:
    auction_id = opened(world)
    end = ends_at(world, auction_id)
    bidden(world, auction_id, START)
    world.now = accepted_at = end - timedelta(seconds=10)
    assert done(world.one(bid(auction_id, 4 * TON), BOB))["ends_at"] == accepted_at + WINDOW
    auction = world.get(Auction, auction_id)
    assert (auction.ends_at, auction.planned_ends_at) == (accepted_at + WINDOW, end)
    assert world.timers[-1] == (accepted_at + WINDOW + GRACE, settle(auction_id))
    fields = {"auction_id": str(auction_id), "nft_id": "17", "ends_at": accepted_at + WINDOW}
    assert told(world, "auction.extended") == {public(auction_id): fields, TO_SELLER: fields}
    histories.check(world)


def test_the_first_bid_counts_as_a_change_of_leader(world: World) -> None:
    auction_id = opened(world)
    world.now = accepted_at = ends_at(world, auction_id) - timedelta(seconds=1)
    bidden(world, auction_id, START)
    assert ends_at(world, auction_id) == accepted_at + WINDOW


def test_the_window_begins_a_window_before_the_end(world: World) -> None:
    auction_id = opened(world)
    end = ends_at(world, auction_id)
    world.now = end - WINDOW - MOMENT
    bidden(world, auction_id, START)
    assert ends_at(world, auction_id) == end
    world.now = end - WINDOW
    bidden(world, auction_id, 4 * TON, BOB)
    assert ends_at(world, auction_id) == end
    assert len(world.timers) == 1
    world.now = end - WINDOW + MOMENT
    bidden(world, auction_id, 5 * TON, ANN)
    assert ends_at(world, auction_id) == end + MOMENT
    assert len(world.timers) == 2


def test_the_window_of_a_moved_end_moves_with_it(world: World) -> None:
    auction_id = opened(world)
    end = ends_at(world, auction_id)
    world.now = end - timedelta(seconds=1)
    bidden(world, auction_id, START)
    moved = ends_at(world, auction_id)
    world.now = moved - WINDOW - MOMENT
    bidden(world, auction_id, 4 * TON, BOB)
    assert ends_at(world, auction_id) == moved


def test_twenty_rivals_extend_by_an_hour_in_all_and_one_timer_settles(world: World) -> None:
    for user_id in (ANN, BOB):
        world.user(user_id, ton=1_000)
    auction_id = opened(world, step_bp=100)
    planned = ends_at(world, auction_id)
    amount, early = START, []
    for number in range(20):
        accepted_at = ends_at(world, auction_id) - timedelta(seconds=30)
        early += world.advance((accepted_at - world.now).total_seconds())
        world.now = accepted_at
        bidden(world, auction_id, amount, (ANN, BOB)[number % 2])
        assert ends_at(world, auction_id) == min(accepted_at + WINDOW, planned + EXTENSION)
        amount += amount // 10
    assert ends_at(world, auction_id) == planned + EXTENSION
    assert len(early) > 10
    assert {code_of(outcome) for outcome in early} == {"AUCTION_NOT_EXPIRED"}
    [outcome] = world.advance(33)
    assert done(outcome)["buyer_id"] == BOB
    assert world.timers == []
    histories.check(world)


def test_timers_of_ends_that_moved_find_the_auction_alive(world: World) -> None:
    auction_id = opened(world)
    planned = ends_at(world, auction_id)
    world.now = planned - timedelta(seconds=1)
    bidden(world, auction_id, START)
    world.now = planned
    assert [code_of(outcome) for outcome in world.advance(2)] == ["AUCTION_NOT_EXPIRED"]
    [outcome] = world.advance(302)
    assert done(outcome)["state"] == "sold"


def test_a_smaller_extension_never_brings_the_end_forward(world: World) -> None:
    auction_id = opened(world)
    world.now = ends_at(world, auction_id) - timedelta(seconds=1)
    bidden(world, auction_id, START)
    moved = ends_at(world, auction_id)
    world.terms = Terms(auction_extension_max_seconds=0)
    world.now = moved - timedelta(seconds=1)
    bidden(world, auction_id, 5 * TON, BOB)
    assert ends_at(world, auction_id) == moved


# -- auctions.settle


def test_the_leader_wins_at_the_leading_bid(world: World) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, 3 * TON)
    [outcome] = world.advance(4_000)
    [deal] = world.of(Deal)
    assert outcome.result == {
        "auction_id": str(auction_id),
        "state": "sold",
        "deal_id": str(deal.id),
        "buyer_id": ANN,
        "price_nano": 3 * TON,
        "fee_nano": 150_000_000,
    }
    assert deal == (
        UUID(int=world.last_number), "auction", SELLER, ANN, 3 * TON, 500, 150_000_000, 2_850_000_000,
    )  # fmt: skip
    assert world.of(DealItem) == [(deal.id, ITEM, ITEM, 1, "to_buyer")]
    assert (money(world, SELLER), money(world, ANN)) == ((2_850_000_000, 0), (7 * TON, 0))
    nft = world.get(Nft, ITEM)
    assert (nft.owner_id, nft.state, nft.reserved_by, nft.reserved_kind) == (ANN, NftState.HELD, None, None)
    auction = world.get(Auction, auction_id)
    assert (auction.state, auction.closed_at) == ("sold", world.now)
    won = world.get(Bid, auction.leader_bid_id)
    assert (won.state, won.held_nano, won.closed_at) == ("won", 0, world.now)
    assert [posting[1:6] + posting[8:] for posting in world.of(Posting)[-2:]] == [
        (ANN, "held", SELLER, "available", 2_850_000_000, "bid", str(won.id)),
        (ANN, "held", FEES, "available", 150_000_000, "bid", str(won.id)),
    ]
    histories.check(world)


def test_a_settlement_is_told_to_the_public_the_seller_and_the_winner(world: World) -> None:
    auction_id = opened(world)
    bid_id = bidden(world, auction_id, 3 * TON)
    already = len(world.records)
    world.advance(4_000)
    events = [row for row in world.records[already:] if isinstance(row, Event)]
    assert [(event.name, event.topics) for event in events] == [
        ("auction.settled", public(auction_id)),
        ("auction.settled", TO_SELLER),
        ("bid.won", ("user:2",)),
        ("nft.sold", ("nft:17", "collection:Plush Pepe", "market")),
        ("deal.made", ("user:1",)),
        ("deal.made", ("user:2",)),
        ("balance.changed", ("user:2",)),
        ("balance.changed", ("user:1",)),
    ]
    ids = {"auction_id": str(auction_id), "nft_id": "17"}
    assert events[0].fields == events[1].fields == ids | {"state": "sold", "price_nano": 3 * TON}
    assert events[2].fields == ids | {"bid_id": str(bid_id), "amount_nano": 3 * TON}
    assert events[3].fields["source"] == "auction"


def test_an_auction_without_bids_gives_the_item_back(world: World) -> None:
    auction_id = opened(world)
    [outcome] = world.advance(4_000)
    assert outcome.result == {"auction_id": str(auction_id), "state": "unsold"}
    auction, nft = world.get(Auction, auction_id), world.get(Nft, ITEM)
    assert (auction.state, auction.closed_at) == ("unsold", world.now)
    assert (nft.owner_id, nft.state, nft.reserved_by, nft.reserved_kind) == (SELLER, NftState.HELD, None, None)
    fields = {"auction_id": str(auction_id), "nft_id": "17", "state": "unsold"}
    assert told(world, "auction.settled") == {public(auction_id): fields, TO_SELLER: fields}
    assert world.of(Deal) == []
    histories.check(world)


@pytest.mark.parametrize("actor", [None, SELLER, ANN, STRANGER])
def test_anybody_settles_a_grace_after_the_end_and_not_before(world: World, actor: int | None) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, START)
    due = ends_at(world, auction_id) + GRACE
    world.now = due - MOMENT
    refused(world, Code.AUCTION_NOT_EXPIRED, settle(auction_id), actor)
    world.now = due
    assert done(world.one(settle(auction_id), actor))["buyer_id"] == ANN
    refused(world, Code.AUCTION_NOT_ACTIVE, settle(auction_id), actor)
    assert {code_of(outcome) for outcome in world.advance(10)} == {"AUCTION_NOT_ACTIVE"}


def test_of_two_settlements_in_a_batch_one_pays(world: World) -> None:
    auction_id = opened(world)
    bidden(world, auction_id, 3 * TON)
    world.now = ends_at(world, auction_id) + GRACE
    first, second = world.run((settle(auction_id), None), (settle(auction_id), STRANGER))
    assert done(first)["fee_nano"] == 150_000_000
    assert code_of(second) == "AUCTION_NOT_ACTIVE"
    assert money(world, SELLER) == (2_850_000_000, 0)
    histories.check(world)


def test_a_timely_bid_that_is_executed_late_still_wins(world: World) -> None:
    auction_id = opened(world)
    end = ends_at(world, auction_id)
    world.now = end - MOMENT
    bidden(world, auction_id, 4 * TON)
    assert world.now > end
    assert [code_of(outcome) for outcome in world.advance(600)] == [None, "AUCTION_NOT_ACTIVE"]
    assert world.get(Nft, ITEM).owner_id == ANN
    histories.check(world)


def test_the_fee_is_that_of_the_moment_of_opening(world: World) -> None:
    auction_id = opened(world)
    world.terms = Terms(auction_fee_bp=9_999)
    bidden(world, auction_id, 3 * TON)
    [outcome] = world.advance(4_000)
    assert done(outcome)["fee_nano"] == 150_000_000


def test_an_item_is_auctioned_and_bid_for_in_one_batch(world: World) -> None:
    auction_id = UUID(int=world.last_number + 1)
    outcomes = world.run(
        (create(), SELLER), (bid(auction_id), ANN), (bid(auction_id, 4 * TON), ANN), (bid(auction_id, 5 * TON), BOB)
    )
    assert [outcome.status for outcome in outcomes] == [Status.SUCCEEDED] * 4
    histories.check(world)
    world.advance(4_000)
    assert world.get(Nft, ITEM).owner_id == BOB


def test_a_winner_auctions_the_item_in_turn(world: World) -> None:
    bidden(world, opened(world), START)
    world.advance(4_000)
    done(world.one(create(), ANN))
    histories.check(world)


def test_auctions_are_ordered_by_their_item_and_settled_by_anybody() -> None:
    for command in (create(), cancel(UNKNOWN), bid(UNKNOWN), settle(UNKNOWN)):
        assert command.asset(UNKNOWN, ANN) == "nft:17"
    assert Settle.sent_by == set(Sender)
    for kind in (Create, Cancel, PlaceBid):
        assert kind.sent_by == {Sender.USER}


@pytest.mark.parametrize("amount", [TON // 100 - 1, 100_000 * TON + 1])
def test_the_terms_bound_a_bid(amount: int) -> None:
    with pytest.raises(Invalid, match="amount_nano"):
        bid(UNKNOWN, amount).check(Terms())


# -- random histories


ALL_KINDS = (*histories.AUCTION_KINDS, *histories.AUCTION_KINDS, *histories.OFFER_KINDS, *histories.ITEM_KINDS)


@given(histories.steps(*ALL_KINDS))
@settings(max_examples=200, deadline=None)
def test_bids_and_holds_agree_through_any_history(history: list[histories.Step]) -> None:
    world = histories.begun()
    for step in history:
        outcomes = histories.run(world, step)
        assert {outcome.status for outcome in outcomes} <= {Status.SUCCEEDED, Status.REJECTED}
        histories.check(world)


@given(histories.steps(*ALL_KINDS))
@settings(max_examples=100, deadline=None)
def test_a_batch_of_bids_is_worth_as_many_batches_of_one(history: list[histories.Step]) -> None:
    histories.compare(history)


Rivals = st.lists(
    st.tuples(st.sampled_from((ANN, BOB, STRANGER)), st.integers(1, 400), st.integers(0, 3 * TON)), max_size=25
)


@given(Rivals, st.sampled_from((100, 1_000, 10_000)))
@settings(max_examples=100, deadline=None)
def test_a_bidding_war_is_as_a_plain_model_of_it(rivals: list[tuple[int, int, int]], step_bp: int) -> None:
    """Rivals bid seconds apart; the model is a list of (bidder, amount), an end and a plan."""
    world = World()
    world.user(SELLER, ton=0)
    for user_id in (ANN, BOB, STRANGER):
        world.user(user_id, ton=50_000)
    world.item(ITEM, SELLER)
    opened_at = world.now
    auction_id = opened(world, step_bp=step_bp, duration_seconds=600)
    end = planned = opened_at + timedelta(seconds=600)
    bids: list[tuple[int, int]] = []
    at = opened_at
    for bidder, pause_seconds, surplus in rivals:
        at += timedelta(seconds=pause_seconds)
        leader, leading = bids[-1] if bids else (None, 0)
        minimum = leading + max(1, leading * step_bp // 10_000) if bids else START
        amount = minimum + surplus - TON
        world.now = at
        outcome = world.one(bid(auction_id, max(1, amount)), bidder)
        if at >= end:
            assert code_of(outcome) == "AUCTION_EXPIRED"
        elif amount < minimum:
            assert outcome.rejection is not None
            assert (outcome.rejection["code"], outcome.rejection["minimum_nano"]) == ("BID_TOO_LOW", minimum)
        elif amount > 50_000 * TON:
            assert code_of(outcome) == "INSUFFICIENT_BALANCE"
        else:
            bids.append((bidder, amount))
            if bidder != leader and at >= end - WINDOW:
                end = max(end, min(at + WINDOW, planned + EXTENSION))
            assert done(outcome)["ends_at"] == end
    histories.check(world)
    world.now = max(at, end)
    world.advance(3)
    winner, price = bids[-1] if bids else (SELLER, 0)
    assert world.get(Nft, ITEM).owner_id == winner
    assert world.balance(SELLER) == price - fee_nano(price, 500)
    histories.check(world)
