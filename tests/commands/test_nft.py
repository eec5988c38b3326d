"""Items: received once, priced by their owner, bought at the price seen, given away."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.book import FEES, Account, Event, Posting
from commands.command import Command
from commands.deals import Deal, DealItem
from commands.nft.items import Gift, Nft, NftState
from commands.offers import Create, Offer
from commands.outcome import Code, Status
from commands.terms import TON, Terms, fee_nano
from commands.users import User
from tests.commands import histories
from tests.commands.world import World, buy, code_of, gift, receive, set_price, transfer

SELLER, BUYER, OTHER = 1, 2, 3
ITEM = 17


@pytest.fixture
def world() -> World:
    """A seller with one held item, a buyer and another user with 10 TON each."""
    world = World()
    world.user(SELLER, ton=0)
    world.user(BUYER)
    world.user(OTHER)
    world.item(ITEM, SELLER)
    return world


def put(world: World, **changes: Any) -> None:
    world.rows[Nft, ITEM] = world.get(Nft, ITEM)._replace(**changes)


def listed(world: World, price_nano: int = 5 * TON) -> None:
    assert world.one(set_price(ITEM, price_nano), SELLER).status is Status.SUCCEEDED


def create_offer(price_nano: int, nft_id: int = ITEM) -> Command:
    return Create(nft_id=nft_id, price_nano=price_nano)


def refuse(world: World, code: Code, outcome_of: Any) -> dict[str, Any]:
    """The command is refused with the code, and leaves nothing behind."""
    before = world.snapshot()
    outcome = outcome_of()
    assert outcome.status is Status.REJECTED
    assert outcome.rejection["code"] == code.name
    assert outcome.rejection["detail"] == code.value
    assert world.snapshot() == before
    rejection: dict[str, Any] = outcome.rejection
    return rejection


# -- nft.receive


def test_a_gift_of_a_stranger_makes_the_user_and_the_item() -> None:
    world = World()
    outcome = world.one(receive(5, 77))
    assert outcome.result == {"nft_id": "5", "owner_id": 77}
    assert world.get(User, 77).memo == "2D2D"
    nft = world.get(Nft, 5)
    assert (nft.owner_id, nft.state, nft.gift_id, nft.message_ref) == (77, NftState.HELD, 5, "message 5")
    assert world.get(Gift, 5).collection == "Plush Pepe"
    assert [event.topics for event in world.events("nft.received")] == [("nft:5",), ("user:77",)]


def test_a_message_is_recorded_once(world: World) -> None:
    refuse(world, Code.INTAKE_ALREADY_RECORDED, lambda: world.one(receive(ITEM, SELLER)))


def test_an_item_in_custody_is_not_received_again(world: World) -> None:
    again = receive(ITEM, OTHER, message_ref="another")
    refuse(world, Code.NFT_ALREADY_IN_CUSTODY, lambda: world.one(again))


def test_a_gift_in_custody_is_not_received_as_another_item(world: World) -> None:
    other_item = receive(99, OTHER, gift=gift(ITEM))
    refuse(world, Code.NFT_ALREADY_IN_CUSTODY, lambda: world.one(other_item))
    first, second = world.run((receive(50, OTHER, gift=gift(60)), None), (receive(51, OTHER, gift=gift(60)), None))
    assert first.status is Status.SUCCEEDED
    assert code_of(second) == "NFT_ALREADY_IN_CUSTODY"


def test_an_item_on_its_way_back_is_not_received(world: World) -> None:
    put(world, state=NftState.WITHDRAWING)
    refuse(world, Code.NFT_RETURN_OPEN, lambda: world.one(receive(ITEM, SELLER, message_ref="another")))


def test_an_item_that_left_comes_back_to_its_sender(world: World) -> None:
    put(world, state=NftState.EXTERNAL, owner_id=None)
    assert world.one(receive(ITEM, OTHER, message_ref="again")).status is Status.SUCCEEDED
    assert (world.get(Nft, ITEM).owner_id, world.get(Nft, ITEM).state) == (OTHER, NftState.HELD)


# -- nft.set_price


def test_pricing_lists_the_item_at_the_fee_of_the_moment(world: World) -> None:
    outcome = world.one(set_price(ITEM, 5 * TON), SELLER)
    assert outcome.result == {"nft_id": "17", "state": "listed", "price_nano": 5 * TON}
    assert world.get(Nft, ITEM).fee_bp == 100
    [event] = world.events("nft.priced")
    assert event.topics == ("nft:17", "collection:Plush Pepe", "market")


def test_clearing_the_price_takes_it_off_the_market(world: World) -> None:
    listed(world)
    assert world.one(set_price(ITEM, None), SELLER).status is Status.SUCCEEDED
    nft = world.get(Nft, ITEM)
    assert (nft.state, nft.price_nano, nft.fee_bp) == (NftState.HELD, None, None)


def test_pricing_anew_keeps_the_time_of_listing(world: World) -> None:
    listed(world)
    listed_at = world.get(Nft, ITEM).listed_at
    listed(world, 6 * TON)
    assert world.get(Nft, ITEM).listed_at == listed_at
    world.one(set_price(ITEM, None), SELLER)
    assert world.get(Nft, ITEM).listed_at is None
    listed(world)
    assert world.get(Nft, ITEM).listed_at > listed_at


@pytest.mark.parametrize("price", [TON, None])
def test_only_the_owner_prices(world: World, price: int | None) -> None:
    refuse(world, Code.NFT_PERMISSION_DENIED, lambda: world.one(set_price(ITEM, price), OTHER))


@pytest.mark.parametrize("command", [set_price(404, TON), set_price(404, None), buy(404, TON), transfer(404, OTHER)])
def test_an_unknown_item_is_not_found(world: World, command: Any) -> None:
    assert refuse(world, Code.NFT_NOT_FOUND, lambda: world.one(command, BUYER))["nft_id"] == "404"


@pytest.mark.parametrize("command", [set_price(ITEM, TON), buy(ITEM, TON), transfer(ITEM, OTHER)])
def test_an_item_that_left_is_not_found(world: World, command: Any) -> None:
    put(world, state=NftState.EXTERNAL, owner_id=None)
    refuse(world, Code.NFT_NOT_FOUND, lambda: world.one(command, BUYER))


RESERVED = [
    (NftState.ON_AUCTION, Code.NFT_ON_AUCTION),
    (NftState.IN_BUNDLE, Code.NFT_IN_BUNDLE),
    (NftState.WITHDRAWING, Code.NFT_NOT_AVAILABLE),
]


@pytest.mark.parametrize(("state", "code"), RESERVED)
@pytest.mark.parametrize(
    ("command", "actor"),
    [
        (set_price(ITEM, TON), SELLER),
        (set_price(ITEM, None), SELLER),
        (transfer(ITEM, OTHER), SELLER),
        (buy(ITEM, TON), BUYER),
    ],
)
def test_a_reserved_item_is_moved_by_nobody_else(
    world: World, state: NftState, code: Code, command: Any, actor: int
) -> None:
    put(world, state=state)
    rejection = refuse(world, code, lambda: world.one(command, actor))
    assert rejection.get("state") == (state if code is Code.NFT_NOT_AVAILABLE else None)


def test_whose_the_item_is_comes_before_its_state_and_that_before_the_receiver(world: World) -> None:
    put(world, state=NftState.ON_AUCTION)
    refuse(world, Code.NFT_PERMISSION_DENIED, lambda: world.one(set_price(ITEM, TON), OTHER))
    refuse(world, Code.NFT_PERMISSION_DENIED, lambda: world.one(transfer(ITEM, BUYER), OTHER))
    refuse(world, Code.NFT_ON_AUCTION, lambda: world.one(transfer(ITEM, SELLER), SELLER))


# -- nft.buy


def test_buying_moves_money_item_and_fee(world: World) -> None:
    listed(world)
    outcome = world.one(buy(ITEM, 5 * TON), BUYER)
    fee = 5 * TON // 100
    [deal] = world.of(Deal)
    assert outcome.result == {
        "deal_id": str(deal.id),
        "nft_id": "17",
        "seller_id": SELLER,
        "price_nano": 5 * TON,
        "fee_nano": fee,
    }
    assert deal[1:8] == ("sale", SELLER, BUYER, 5 * TON, 100, fee, 5 * TON - fee)
    assert [item[1:] for item in world.of(DealItem)] == [(ITEM, ITEM, 1, "to_buyer")]
    assert (world.balance(SELLER), world.balance(BUYER)) == (5 * TON - fee, 5 * TON)
    nft = world.get(Nft, ITEM)
    assert (nft.owner_id, nft.state, nft.price_nano, nft.fee_bp) == (BUYER, NftState.HELD, None, None)
    assert world.of(Posting)[-1][3:6] == (FEES, "available", fee)
    world.check()


def test_a_sale_is_told_to_the_public_without_names_and_to_each_party(world: World) -> None:
    listed(world)
    already = len(world.records)
    world.one(buy(ITEM, 5 * TON), BUYER)
    told = [row for row in world.records[already:] if isinstance(row, Event)]
    assert [(event.name, event.topics) for event in told] == [
        ("nft.sold", ("nft:17", "collection:Plush Pepe", "market")),
        ("deal.made", ("user:1",)),
        ("deal.made", ("user:2",)),
        ("balance.changed", ("user:2",)),
        ("balance.changed", ("user:1",)),
    ]
    assert not {"seller_id", "buyer_id", "user_id"} & told[0].fields.keys()
    assert [event.fields["role"] for event in told[1:3]] == ["seller", "buyer"]


def test_a_held_item_is_not_on_sale(world: World) -> None:
    refuse(world, Code.NFT_NOT_ON_SALE, lambda: world.one(buy(ITEM, TON), BUYER))


def test_nobody_buys_from_oneself(world: World) -> None:
    listed(world)
    refuse(world, Code.SELF_TRADE_NOT_ALLOWED, lambda: world.one(buy(ITEM, 1 * TON), SELLER))


@pytest.mark.parametrize("seen", [5 * TON - 1, 5 * TON + 1])
def test_nobody_is_charged_a_price_not_seen(world: World, seen: int) -> None:
    listed(world)
    rejection = refuse(world, Code.PRICE_CHANGED, lambda: world.one(buy(ITEM, seen), BUYER))
    assert rejection["price_nano"] == 5 * TON


def test_a_price_beyond_the_balance_is_refused_with_both_figures(world: World) -> None:
    listed(world, 1000 * TON)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(buy(ITEM, 1000 * TON), BUYER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (1000 * TON, 10 * TON)


def test_a_balance_pays_a_price_equal_to_it(world: World) -> None:
    listed(world, 10 * TON)
    assert world.one(buy(ITEM, 10 * TON), BUYER).status is Status.SUCCEEDED
    assert world.balance(BUYER) == 0


def test_of_two_buyers_in_a_batch_the_first_wins(world: World) -> None:
    listed(world)
    first, second = world.run((buy(ITEM, 5 * TON), OTHER), (buy(ITEM, 5 * TON), BUYER))
    assert first.status is Status.SUCCEEDED
    assert code_of(second) == "NFT_NOT_ON_SALE"
    assert world.balance(BUYER) == 10 * TON
    world.check()


def test_the_money_of_the_buyers_own_offer_pays_for_the_purchase(world: World) -> None:
    listed(world, 10 * TON)
    offer_id = world.one(create_offer(6 * TON), BUYER).result["offer_id"]  # type: ignore[index]
    assert world.one(buy(ITEM, 10 * TON), BUYER).status is Status.SUCCEEDED
    offer = world.get(Offer, UUID(offer_id))
    assert (offer.state, offer.reason, offer.held_nano) == ("closed", "sold", 0)
    assert (world.get(Account, BUYER).available_nano, world.get(Account, BUYER).held_nano) == (0, 0)
    assert world.events("balance.changed")[-2].fields["change_held_nano"] == -6 * TON
    histories.check(world)


def test_a_purchase_beyond_balance_and_offer_names_what_the_offer_does_not_cover(world: World) -> None:
    listed(world, 10 * TON + 1)
    world.one(create_offer(6 * TON), BUYER)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(buy(ITEM, 10 * TON + 1), BUYER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (4 * TON + 1, 4 * TON)


def test_only_the_buyers_own_open_offer_on_the_item_counts(world: World) -> None:
    listed(world, 6 * TON)
    world.item(ITEM + 1, SELLER)
    world.one(set_price(ITEM + 1, 6 * TON), SELLER)
    assert world.one(create_offer(5 * TON, ITEM + 1), BUYER).status is Status.SUCCEEDED
    assert world.one(create_offer(5 * TON), OTHER).status is Status.SUCCEEDED
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(buy(ITEM, 6 * TON), BUYER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (6 * TON, 5 * TON)


def test_an_offer_above_the_price_needs_no_more_money(world: World) -> None:
    listed(world, 10 * TON)
    world.one(create_offer(10 * TON), BUYER)
    world.one(set_price(ITEM, 5 * TON), SELLER)
    assert world.one(buy(ITEM, 5 * TON), BUYER).status is Status.SUCCEEDED
    assert world.balance(BUYER) == 5 * TON
    histories.check(world)


def test_an_offer_and_its_purchase_in_one_batch(world: World) -> None:
    listed(world, 10 * TON)
    outcomes = world.run((create_offer(6 * TON), BUYER), (buy(ITEM, 10 * TON), BUYER))
    assert [outcome.status for outcome in outcomes] == [Status.SUCCEEDED] * 2
    histories.check(world)


def test_the_fee_is_that_of_the_moment_of_pricing(world: World) -> None:
    listed(world)
    world.terms = Terms(market_fee_bp=9_999)
    outcome = world.one(buy(ITEM, 5 * TON), BUYER)
    assert outcome.result is not None
    assert outcome.result["fee_nano"] == 5 * TON // 100


@pytest.mark.parametrize(
    ("price_nano", "fee"), [(10_000_001, 100_000), (99_999_999_999_999, 999_999_999_999), (10_000_000, 100_000)]
)
def test_fees_are_rounded_down_once(price_nano: int, fee: int) -> None:
    assert fee_nano(price_nano, 100) == fee


@given(st.integers(1, 10**14), st.integers(0, 9_999))
def test_a_fee_never_takes_the_whole_price(price_nano: int, fee_bp: int) -> None:
    assert 0 <= fee_nano(price_nano, fee_bp) < price_nano


def test_no_posting_of_zero_is_written(world: World) -> None:
    world.terms = Terms(market_fee_bp=0)
    listed(world)
    before = len(world.of(Posting))
    world.one(buy(ITEM, 5 * TON), BUYER)
    assert len(world.of(Posting)) == before + 1


# -- nft.transfer


def test_giving_away_moves_the_item_and_no_money(world: World) -> None:
    listed(world)
    before = world.of(Posting)
    outcome = world.one(transfer(ITEM, OTHER), SELLER)
    assert outcome.result == {"nft_id": "17", "owner_id": OTHER}
    nft = world.get(Nft, ITEM)
    assert (nft.owner_id, nft.state, nft.price_nano) == (OTHER, NftState.HELD, None)
    assert world.of(Posting) == before
    assert not world.of(Deal)
    public, *private = world.events("nft.transferred")
    assert public.fields == {"nft_id": "17"}
    assert [event.topics for event in private] == [("user:1",), ("user:3",)]


def test_nobody_gives_to_nobody(world: World) -> None:
    refuse(world, Code.USER_NOT_FOUND, lambda: world.one(transfer(ITEM, 404), SELLER))
    refuse(world, Code.USER_NOT_FOUND, lambda: world.one(transfer(404, 404), SELLER))


def test_only_the_owner_gives(world: World) -> None:
    refuse(world, Code.NFT_PERMISSION_DENIED, lambda: world.one(transfer(ITEM, OTHER), BUYER))


def test_nobody_gives_to_oneself(world: World) -> None:
    refuse(world, Code.SELF_TRADE_NOT_ALLOWED, lambda: world.one(transfer(ITEM, SELLER), SELLER))


def test_an_item_is_given_priced_and_bought_in_one_batch(world: World) -> None:
    outcomes = world.run(
        (transfer(ITEM, OTHER), SELLER), (set_price(ITEM, 3 * TON), OTHER), (buy(ITEM, 3 * TON), BUYER)
    )
    assert [outcome.status for outcome in outcomes] == [Status.SUCCEEDED] * 3
    assert world.balance(OTHER) == 13 * TON - 3 * TON // 100
    world.check()
