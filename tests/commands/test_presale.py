"""Presales: priced against a deposit, bought against the full price, delivered or paid for."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.book import FEES, Account, Event, Posting
from commands.command import Command, Invalid, decode
from commands.deals import Deal, DealItem
from commands.nft.items import Gift, Intake, Nft, NftState
from commands.outcome import Code, Outcome, Status
from commands.presale.presales import Presale, PresaleState
from commands.terms import TON, Terms, fee_nano
from commands.users import User
from tests.commands.test_nft import refuse
from tests.commands.world import START, Sent, World, code_of, command, gift, receive

SELLER, BUYER, OTHER = 1, 2, 3
GIFT = 17
DAY = 86_400
MOVABLE = START + timedelta(days=10)
DEADLINE = MOVABLE + timedelta(days=2)


def register(gift_id: int = GIFT, seller_id: int = SELLER, transferable_at: datetime = MOVABLE) -> Command:
    return command(
        "presale.register",
        gift_id=gift_id,
        gift=gift(gift_id),
        seller_id=seller_id,
        transferable_at=transferable_at,
    )


def named(kind: str, presale_id: UUID, gift_id: int = GIFT, **fields: Any) -> Command:
    return command(f"presale.{kind}", presale_id=presale_id, gift_id=gift_id, **fields)


def deliver(presale_id: UUID, sender_id: int = SELLER, gift_id: int = GIFT, **changes: Any) -> Command:
    fields = {"nft_id": gift_id, "gift": gift(gift_id), "sender_id": sender_id, "message_ref": f"presale of {gift_id}"}
    return named("deliver", presale_id, gift_id, **(fields | changes))


def succeed(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status is Status.SUCCEEDED, outcome
    assert outcome.result is not None
    return outcome.result


def registered(world: World) -> UUID:
    """A presale of the seller."""
    return UUID(succeed(world.one(register()))["presale_id"])


def listed(world: World, price_nano: int = 5 * TON) -> UUID:
    presale_id = registered(world)
    succeed(world.one(named("set_price", presale_id, price_nano=price_nano), SELLER))
    return presale_id


def sold(world: World, price_nano: int = 5 * TON) -> UUID:
    presale_id = listed(world, price_nano)
    succeed(world.one(named("buy", presale_id, price_nano=price_nano), BUYER))
    return presale_id


@pytest.fixture
def world() -> World:
    """Three users with 10 TON each."""
    world = World()
    for user_id in (SELLER, BUYER, OTHER):
        world.user(user_id)
    return world


def of(world: World, presale_id: UUID) -> Presale:
    presale: Presale = world.get(Presale, presale_id)
    return presale


def sides(world: World, user_id: int) -> tuple[int, int]:
    account = world.get(Account, user_id)
    return account.available_nano, account.held_nano


def told(world: World, name: str) -> list[tuple[str, ...]]:
    return [event.topics for event in world.events(name)]


def until(world: World, moment: datetime) -> None:
    """The next command is accepted then."""
    world.now = moment


# -- presale.register


def test_a_stranger_registered_as_seller_becomes_a_user(world: World) -> None:
    presale_id = succeed(world.one(register(seller_id=77)))["presale_id"]
    presale = of(world, UUID(presale_id))
    assert (presale.seller_id, presale.state, presale.price_nano) == (77, PresaleState.REGISTERED, None)
    assert world.get(User, 77).memo == "2D2D"
    assert world.get(Gift, GIFT).collection == "Plush Pepe"
    assert told(world, "presale.registered") == [("gift:17",), ("user:77",)]


def test_the_deadline_is_a_grace_after_the_gift_may_move(world: World) -> None:
    outcome = world.one(register())
    assert succeed(outcome)["deadline_at"] == DEADLINE
    assert [run_at for run_at, _ in world.timers] == [DEADLINE + timedelta(seconds=2)]


@pytest.mark.parametrize("state", [NftState.HELD, NftState.WITHDRAWING])
def test_a_gift_in_custody_is_not_sold_in_advance(world: World, state: NftState) -> None:
    world.item(GIFT, SELLER)
    world.rows[Nft, GIFT] = world.get(Nft, GIFT)._replace(state=state)
    refuse(world, Code.NFT_ALREADY_IN_CUSTODY, lambda: world.one(register()))


def test_a_gift_that_left_custody_may_be_sold_in_advance(world: World) -> None:
    world.item(GIFT, SELLER)
    world.rows[Nft, GIFT] = world.get(Nft, GIFT)._replace(state=NftState.EXTERNAL, owner_id=None)
    succeed(world.one(register()))


@pytest.mark.parametrize("seller_id", [SELLER, OTHER])
def test_a_gift_has_one_open_presale_whoever_sells(world: World, seller_id: int) -> None:
    registered(world)
    refuse(world, Code.PRESALE_ALREADY_EXISTS, lambda: world.one(register(seller_id=seller_id)))


def test_a_closed_presale_makes_room_for_the_next(world: World) -> None:
    first = registered(world)
    deleted, second = world.run((named("delete", first), SELLER), (register(seller_id=OTHER), None))
    succeed(deleted)
    succeed(second)


def test_custody_is_looked_for_before_another_presale_and_that_before_time(world: World) -> None:
    registered(world)
    late = register(transferable_at=START)
    refuse(world, Code.PRESALE_ALREADY_EXISTS, lambda: world.one(late))
    world.one(receive(GIFT, OTHER))
    refuse(world, Code.NFT_ALREADY_IN_CUSTODY, lambda: world.one(late))


def test_a_gift_that_may_move_already_is_not_sold_in_advance(world: World) -> None:
    refuse(world, Code.PRESALE_EXPIRED, lambda: world.one(register(transferable_at=world.now)))
    succeed(world.one(register(transferable_at=world.now + timedelta(microseconds=1))))


@pytest.mark.parametrize("of_command", [register, lambda gift_id: deliver(UUID(int=1), gift_id=gift_id)])
def test_the_gift_described_is_the_gift_named(of_command: Any) -> None:
    fields = of_command(GIFT).model_dump() | {"gift": gift(GIFT + 1)}
    with pytest.raises(Invalid, match=r"payload\.gift\.id"):
        type(of_command(GIFT)).model_validate(fields).check(Terms())
    of_command(GIFT).check(Terms())


@pytest.mark.parametrize("text", ["2030-01-10T00:00:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "soon"])
def test_a_moment_has_an_offset_and_bounds(text: str) -> None:
    payload = register().model_dump_json().replace("2030-01-11T00:00:00Z", text)
    with pytest.raises(Invalid, match="transferable_at"):
        decode("presale.register", payload)


def test_a_moment_is_read_whatever_its_offset() -> None:
    payload = register().model_dump_json().replace("2030-01-11T00:00:00Z", "2030-01-11T02:30:00+02:30")
    assert decode("presale.register", payload) == register()


# -- presale.set_price


def test_pricing_holds_the_deposit_and_copies_the_rates(world: World) -> None:
    presale_id = registered(world)
    outcome = world.one(named("set_price", presale_id, price_nano=5 * TON), SELLER)
    assert succeed(outcome) == {
        "presale_id": str(presale_id),
        "state": "listed",
        "price_nano": 5 * TON,
        "deposit_held_nano": TON,
    }
    presale = of(world, presale_id)
    assert (presale.fee_bp, presale.deposit_bp, presale.penalty_bp) == (0, 2_000, 1_000)
    assert sides(world, SELLER) == (9 * TON, TON)
    assert told(world, "presale.priced") == [("gift:17", "market"), ("user:1",)]
    check(world)


@pytest.mark.parametrize(("price_nano", "moved"), [(8 * TON, 600_000_000), (2 * TON, -600_000_000), (5 * TON, 0)])
def test_a_new_price_moves_the_difference_only(world: World, price_nano: int, moved: int) -> None:
    presale_id = listed(world)
    before = len(world.of(Posting))
    succeed(world.one(named("set_price", presale_id, price_nano=price_nano), SELLER))
    assert [posting.amount_nano for posting in world.of(Posting)[before:]] == ([abs(moved)] if moved else [])
    assert sides(world, SELLER) == (9 * TON - moved, TON + moved)
    check(world)


def test_clearing_the_price_gives_the_deposit_back_and_forgets_the_rates(world: World) -> None:
    presale_id = listed(world)
    outcome = world.one(named("set_price", presale_id, price_nano=None), SELLER)
    assert succeed(outcome) == {
        "presale_id": str(presale_id),
        "state": "registered",
        "price_nano": None,
        "deposit_held_nano": 0,
    }
    presale = of(world, presale_id)
    assert (presale.price_nano, presale.fee_bp, presale.deposit_bp, presale.penalty_bp) == (None,) * 4
    assert sides(world, SELLER) == (10 * TON, 0)
    check(world)


def test_pricing_takes_the_rates_of_its_moment(world: World) -> None:
    presale_id = listed(world)
    world.terms = Terms(presale_fee_bp=300, presale_deposit_bp=4_000, presale_penalty_bp=2_500)
    succeed(world.one(named("set_price", presale_id, price_nano=5 * TON), SELLER))
    presale = of(world, presale_id)
    assert (presale.fee_bp, presale.deposit_bp, presale.penalty_bp) == (300, 4_000, 2_500)
    assert sides(world, SELLER) == (8 * TON, 2 * TON)


@pytest.mark.parametrize(
    "of_presale",
    [
        lambda presale_id, gift_id: (named("set_price", presale_id, gift_id, price_nano=TON), SELLER),
        lambda presale_id, gift_id: (named("delete", presale_id, gift_id), SELLER),
        lambda presale_id, gift_id: (named("buy", presale_id, gift_id, price_nano=TON), BUYER),
        lambda presale_id, gift_id: (deliver(presale_id, gift_id=gift_id), None),
        lambda presale_id, gift_id: (named("expire", presale_id, gift_id), None),
    ],
)
def test_a_presale_unknown_or_of_another_gift_is_not_found(world: World, of_presale: Any) -> None:
    presale_id = listed(world)
    refuse(world, Code.PRESALE_NOT_FOUND, lambda: world.one(*of_presale(UUID(int=404), GIFT)))
    refuse(world, Code.PRESALE_NOT_FOUND, lambda: world.one(*of_presale(presale_id, GIFT + 1)))


@pytest.mark.parametrize("price_nano", [TON, None])
def test_only_the_seller_prices(world: World, price_nano: int | None) -> None:
    presale_id = sold(world)
    pricing = named("set_price", presale_id, price_nano=price_nano)
    refuse(world, Code.PRESALE_PERMISSION_DENIED, lambda: world.one(pricing, BUYER))


@pytest.mark.parametrize("price_nano", [1000 * TON, None])
def test_a_sold_presale_is_not_priced_again(world: World, price_nano: int | None) -> None:
    presale_id = sold(world)
    pricing = named("set_price", presale_id, price_nano=price_nano)
    refuse(world, Code.PRESALE_ALREADY_BOUGHT, lambda: world.one(pricing, SELLER))


CLOSED = [PresaleState.DELIVERED, PresaleState.FAILED, PresaleState.LAPSED, PresaleState.DELETED]


def closed(world: World, state: PresaleState) -> UUID:
    if state is PresaleState.DELETED:
        presale_id = listed(world)
        succeed(world.one(named("delete", presale_id), SELLER))
        return presale_id
    presale_id = sold(world) if state is PresaleState.FAILED else listed(world)
    if state is PresaleState.DELIVERED:
        succeed(world.one(deliver(presale_id)))
    else:
        world.advance(13 * DAY)
    assert of(world, presale_id).state == state
    return presale_id


@pytest.mark.parametrize("state", CLOSED)
def test_a_closed_presale_is_available_for_nothing(world: World, state: PresaleState) -> None:
    presale_id = closed(world, state)
    for sent in (
        (named("set_price", presale_id, price_nano=TON), SELLER),
        (named("set_price", presale_id, price_nano=None), SELLER),
        (named("delete", presale_id), SELLER),
        (named("buy", presale_id, price_nano=5 * TON), BUYER),
        (named("expire", presale_id), None),
    ):
        refuse(world, Code.PRESALE_NOT_AVAILABLE, lambda sent=sent: world.one(*sent))
    again = deliver(presale_id, message_ref="again")
    code = Code.NFT_ALREADY_IN_CUSTODY if state is PresaleState.DELIVERED else Code.PRESALE_NOT_AVAILABLE
    refuse(world, code, lambda: world.one(again))
    check(world)


def test_a_gift_that_may_move_is_priced_no_more_but_cleared(world: World) -> None:
    presale_id = listed(world)
    until(world, MOVABLE)
    refuse(
        world, Code.PRESALE_EXPIRED, lambda: world.one(named("set_price", presale_id, price_nano=1000 * TON), SELLER)
    )
    succeed(world.one(named("set_price", presale_id, price_nano=None), SELLER))
    assert sides(world, SELLER) == (10 * TON, 0)


def test_pricing_in_time_is_valid_however_late_it_runs(world: World) -> None:
    presale_id = listed(world)
    until(world, MOVABLE - timedelta(microseconds=1))
    succeed(world.one(named("set_price", presale_id, price_nano=6 * TON), SELLER))
    assert world.now > MOVABLE


def test_a_deposit_beyond_the_balance_is_refused_with_the_difference(world: World) -> None:
    presale_id = registered(world)
    pricing = named("set_price", presale_id, price_nano=100 * TON)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(pricing, SELLER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (20 * TON, 10 * TON)
    succeed(world.one(named("set_price", presale_id, price_nano=40 * TON), SELLER))
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(pricing, SELLER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (12 * TON, 2 * TON)
    succeed(world.one(named("set_price", presale_id, price_nano=50 * TON), SELLER))
    assert sides(world, SELLER) == (0, 10 * TON)


@pytest.mark.parametrize("kind", ["set_price", "buy"])
@pytest.mark.parametrize("price_nano", [9_999_999, 100_000 * TON + 1])
def test_a_price_has_bounds(kind: str, price_nano: int) -> None:
    with pytest.raises(Invalid, match="price_nano"):
        named(kind, UUID(int=1), price_nano=price_nano).check(Terms())


def test_no_price_needs_no_bounds() -> None:
    named("set_price", UUID(int=1), price_nano=None).check(Terms())


# -- presale.delete


@pytest.mark.parametrize("actor", [SELLER, None])
def test_seller_and_operator_delete_an_unsold_presale(world: World, actor: int | None) -> None:
    presale_id = listed(world)
    outcome = world.one(named("delete", presale_id), actor)
    assert succeed(outcome) == {"presale_id": str(presale_id), "released_nano": TON}
    assert of(world, presale_id).state == PresaleState.DELETED
    assert sides(world, SELLER) == (10 * TON, 0)
    assert told(world, "presale.deleted") == [("gift:17",), ("user:1",)]
    check(world)


def test_nobody_else_deletes(world: World) -> None:
    presale_id = sold(world)
    refuse(world, Code.PRESALE_PERMISSION_DENIED, lambda: world.one(named("delete", presale_id), BUYER))


@pytest.mark.parametrize("actor", [SELLER, None])
def test_a_sold_presale_is_not_deleted(world: World, actor: int | None) -> None:
    presale_id = sold(world)
    refuse(world, Code.PRESALE_ALREADY_BOUGHT, lambda: world.one(named("delete", presale_id), actor))


def test_a_blocked_seller_may_delete_but_not_price(world: World) -> None:
    presale_id = listed(world)
    world.one(command("users.block", user_id=SELLER, reason="fraud"))
    refuse(world, Code.USER_BLOCKED, lambda: world.one(named("set_price", presale_id, price_nano=None), SELLER))
    succeed(world.one(named("delete", presale_id), SELLER))


# -- presale.buy


def test_buying_holds_the_whole_price(world: World) -> None:
    presale_id = listed(world)
    outcome = world.one(named("buy", presale_id, price_nano=5 * TON), BUYER)
    assert succeed(outcome) == {"presale_id": str(presale_id), "price_nano": 5 * TON, "deadline_at": DEADLINE}
    presale = of(world, presale_id)
    assert (presale.state, presale.buyer_id, presale.buyer_held_nano) == (PresaleState.SOLD, BUYER, 5 * TON)
    assert sides(world, BUYER) == (5 * TON, 5 * TON)
    assert told(world, "presale.sold") == [("gift:17", "market"), ("user:1",), ("user:2",)]
    assert not world.of(Deal)
    check(world)


def test_a_presale_is_bought_once(world: World) -> None:
    presale_id = listed(world)
    buying = named("buy", presale_id, price_nano=5 * TON)
    first, second = world.run((buying, BUYER), (buying, OTHER))
    succeed(first)
    assert code_of(second) == "PRESALE_ALREADY_BOUGHT"
    assert sides(world, OTHER) == (10 * TON, 0)


def test_an_unpriced_presale_is_not_available(world: World) -> None:
    presale_id = registered(world)
    buying = named("buy", presale_id, price_nano=5 * TON)
    refuse(world, Code.PRESALE_NOT_AVAILABLE, lambda: world.one(buying, BUYER))


def test_a_gift_that_may_move_is_not_bought_in_advance(world: World) -> None:
    presale_id = listed(world)
    buying = named("buy", presale_id, price_nano=5 * TON)
    until(world, MOVABLE)
    refuse(world, Code.PRESALE_EXPIRED, lambda: world.one(buying, SELLER))
    until(world, MOVABLE - timedelta(microseconds=1))
    succeed(world.one(buying, BUYER))


def test_nobody_buys_from_oneself_and_that_is_said_before_the_price(world: World) -> None:
    presale_id = listed(world)
    buying = named("buy", presale_id, price_nano=4 * TON)
    refuse(world, Code.SELF_TRADE_NOT_ALLOWED, lambda: world.one(buying, SELLER))


def test_nobody_is_charged_a_price_not_seen(world: World) -> None:
    presale_id = listed(world, 50 * TON)
    buying = named("buy", presale_id, price_nano=4 * TON)
    rejection = refuse(world, Code.PRICE_CHANGED, lambda: world.one(buying, BUYER))
    assert rejection["price_nano"] == 50 * TON


def test_a_price_beyond_the_balance_is_refused(world: World) -> None:
    presale_id = listed(world, 10 * TON + 1)
    buying = named("buy", presale_id, price_nano=10 * TON + 1)
    rejection = refuse(world, Code.INSUFFICIENT_BALANCE, lambda: world.one(buying, BUYER))
    assert (rejection["required_nano"], rejection["available_nano"]) == (10 * TON + 1, 10 * TON)


# -- presale.deliver


def test_delivery_of_a_sold_presale_completes_the_sale(world: World) -> None:
    presale_id = sold(world)
    outcome = world.one(deliver(presale_id))
    [deal] = world.of(Deal)
    assert succeed(outcome) == {
        "presale_id": str(presale_id),
        "nft_id": "17",
        "owner_id": BUYER,
        "deal_id": str(deal.id),
    }
    assert deal[1:] == ("presale", SELLER, BUYER, 5 * TON, 0, 0, 5 * TON)
    assert [item[1:] for item in world.of(DealItem)] == [(GIFT, GIFT, 1, "to_buyer")]
    nft = world.get(Nft, GIFT)
    assert (nft.owner_id, nft.state, nft.message_ref) == (BUYER, NftState.HELD, "presale of 17")
    assert world.get(Intake, "presale of 17").sender_id == SELLER
    assert of(world, presale_id).state == PresaleState.DELIVERED
    assert (sides(world, SELLER), sides(world, BUYER)) == ((15 * TON, 0), (5 * TON, 0))
    assert told(world, "presale.delivered") == [("gift:17",), ("user:1",), ("user:2",)]
    assert told(world, "nft.received") == [("nft:17",), ("user:2",)]
    assert [event.fields["source"] for event in world.events("nft.sold")] == ["presale"]
    assert [event.fields["role"] for event in world.events("deal.made")] == ["seller", "buyer"]
    check(world)


def test_delivery_of_an_unsold_presale_brings_the_item_to_its_seller(world: World) -> None:
    presale_id = listed(world)
    outcome = world.one(deliver(presale_id))
    assert succeed(outcome) == {"presale_id": str(presale_id), "nft_id": "17", "owner_id": SELLER}
    assert world.get(Nft, GIFT).owner_id == SELLER
    assert sides(world, SELLER) == (10 * TON, 0)
    assert told(world, "presale.delivered") == [("gift:17",), ("user:1",)]
    assert not world.of(Deal)
    check(world)


def test_the_fee_is_that_of_the_moment_of_pricing(world: World) -> None:
    world.terms = Terms(presale_fee_bp=250)
    presale_id = sold(world)
    world.terms = Terms(presale_fee_bp=9_999)
    succeed(world.one(deliver(presale_id)))
    [deal] = world.of(Deal)
    assert (deal.fee_bp, deal.fee_nano) == (250, 125_000_000)
    assert sides(world, SELLER) == (15 * TON - 125_000_000, 0)
    check(world)


def test_delivery_is_valid_as_long_as_the_presale_has_not_ended(world: World) -> None:
    presale_id = sold(world)
    until(world, DEADLINE + timedelta(days=1))
    delivered, expired = world.run((deliver(presale_id), None), (named("expire", presale_id), None))
    succeed(delivered)
    assert code_of(expired) == "PRESALE_NOT_AVAILABLE"
    assert sides(world, SELLER) == (15 * TON, 0)


def test_a_presale_is_registered_priced_bought_and_delivered_in_one_batch(world: World) -> None:
    presale_id = UUID(int=7)
    outcomes = world.run(
        (register(), None),
        (named("set_price", presale_id, price_nano=5 * TON), SELLER),
        (named("buy", presale_id, price_nano=5 * TON), BUYER),
        (deliver(presale_id), None),
    )
    assert [outcome.status for outcome in outcomes] == [Status.SUCCEEDED] * 4
    assert of(world, presale_id).opened_at == world.get(Nft, GIFT).opened_at
    check(world)


def test_a_gift_from_somebody_else_is_not_the_sellers_delivery(world: World) -> None:
    presale_id = sold(world)
    for sender_id in (OTHER, BUYER):
        arrival = deliver(presale_id, sender_id)
        refuse(world, Code.PRESALE_PERMISSION_DENIED, lambda arrival=arrival: world.one(arrival))


def test_a_message_is_delivered_once(world: World) -> None:
    presale_id = sold(world)
    world.item(5, SELLER)
    again = deliver(presale_id, message_ref="message 5")
    refuse(world, Code.INTAKE_ALREADY_RECORDED, lambda: world.one(again))


def test_an_item_on_its_way_back_is_not_delivered(world: World) -> None:
    presale_id = sold(world)
    world.item(GIFT, OTHER)
    world.rows[Nft, GIFT] = world.get(Nft, GIFT)._replace(state=NftState.WITHDRAWING)
    refuse(world, Code.NFT_RETURN_OPEN, lambda: world.one(deliver(presale_id)))


# -- intake beside a presale


def test_the_gift_of_an_open_presale_is_not_received_from_its_seller(world: World) -> None:
    presale_id = sold(world)
    rejection = refuse(world, Code.GIFT_HAS_PRESALE, lambda: world.one(receive(GIFT, SELLER)))
    assert rejection["presale_id"] == str(presale_id)


@pytest.mark.parametrize("state", [PresaleState.LAPSED, PresaleState.DELETED])
def test_the_gift_of_a_closed_presale_is_received(world: World, state: PresaleState) -> None:
    closed(world, state)
    succeed(world.one(receive(GIFT, SELLER)))


def test_a_gift_is_registered_and_received_in_one_batch(world: World) -> None:
    first, second = world.run((register(), None), (receive(GIFT, SELLER), None))
    succeed(first)
    assert code_of(second) == "GIFT_HAS_PRESALE"
    first, second = world.run((receive(5, SELLER), None), (register(5), None))
    succeed(first)
    assert code_of(second) == "NFT_ALREADY_IN_CUSTODY"


# -- presale.expire


def test_a_sold_presale_that_fails_pays_the_buyer_a_penalty_out_of_the_deposit(world: World) -> None:
    presale_id = sold(world)
    [outcome] = world.advance(13 * DAY)
    assert succeed(outcome) == {"presale_id": str(presale_id), "state": "failed", "penalty_nano": TON // 2}
    assert (sides(world, SELLER), sides(world, BUYER)) == ((9 * TON, 0), (10 * TON + TON // 2, 0))
    assert sum(posting.amount_nano for posting in world.of(Posting) if posting.credit_account == FEES) == TON // 2
    assert told(world, "presale.failed") == [("gift:17",), ("user:1",), ("user:2",)]
    assert world.events("presale.failed")[0].fields["penalty_nano"] == TON // 2
    check(world)


@pytest.mark.parametrize("priced", [False, True])
def test_an_unsold_presale_lapses(world: World, priced: bool) -> None:
    presale_id = listed(world) if priced else registered(world)
    [outcome] = world.advance(13 * DAY)
    assert succeed(outcome) == {"presale_id": str(presale_id), "state": "lapsed", "penalty_nano": 0}
    assert sides(world, SELLER) == (10 * TON, 0)
    assert told(world, "presale.lapsed") == [("gift:17",), ("user:1",)]
    assert "penalty_nano" not in world.events("presale.lapsed")[0].fields
    check(world)


def test_a_presale_does_not_end_before_its_deadline_and_a_grace(world: World) -> None:
    presale_id = sold(world)
    until(world, DEADLINE + timedelta(seconds=2, microseconds=-1))
    refuse(world, Code.PRESALE_NOT_EXPIRED, lambda: world.one(named("expire", presale_id)))
    until(world, DEADLINE + timedelta(seconds=2))
    succeed(world.one(named("expire", presale_id)))


def test_the_penalty_is_that_of_the_moment_of_pricing(world: World) -> None:
    sold(world)
    world.terms = Terms(presale_penalty_bp=0, presale_deposit_bp=0)
    world.advance(13 * DAY)
    assert (sides(world, SELLER), sides(world, BUYER)) == ((9 * TON, 0), (10 * TON + TON // 2, 0))


def test_a_whole_deposit_may_be_the_penalty(world: World) -> None:
    world.terms = Terms(presale_penalty_bp=2_000)
    sold(world)
    world.advance(13 * DAY)
    assert (sides(world, SELLER), sides(world, BUYER)) == ((9 * TON, 0), (11 * TON, 0))
    check(world)


# -- hard cases


def test_a_price_set_after_the_sale_counts_for_nothing(world: World) -> None:
    """H8."""
    presale_id = sold(world, 10 * TON)
    raised = named("set_price", presale_id, price_nano=1000 * TON)
    refuse(world, Code.PRESALE_ALREADY_BOUGHT, lambda: world.one(raised, SELLER))
    assert sides(world, SELLER) == (8 * TON, 2 * TON)
    succeed(world.one(deliver(presale_id)))
    assert sides(world, SELLER) == (20 * TON, 0)
    assert sides(world, BUYER) == (0, 0)


def test_a_sold_presale_is_untouched_until_its_deadline(world: World) -> None:
    """H9."""
    presale_id = sold(world, 10 * TON)
    before = world.snapshot()
    assert world.advance(11 * DAY) == []
    refuse(world, Code.PRESALE_NOT_EXPIRED, lambda: world.one(named("expire", presale_id)))
    assert world.snapshot() == before
    world.advance(2 * DAY)
    assert of(world, presale_id).state == PresaleState.FAILED
    assert (sides(world, SELLER), sides(world, BUYER)) == ((8 * TON, 0), (11 * TON, 0))


def test_a_strangers_gift_is_the_strangers_and_the_presale_goes_on(world: World) -> None:
    """H10."""
    presale_id = sold(world)
    succeed(world.one(receive(GIFT, OTHER)))
    assert world.get(Nft, GIFT).owner_id == OTHER
    assert of(world, presale_id).state == PresaleState.SOLD
    refuse(world, Code.NFT_ALREADY_IN_CUSTODY, lambda: world.one(deliver(presale_id)))
    world.advance(13 * DAY)
    assert of(world, presale_id).state == PresaleState.FAILED
    assert world.get(Nft, GIFT).owner_id == OTHER


# -- histories


def check(world: World) -> None:
    """What every presale keeps (V4, V20, V21), beside the money."""
    world.check()
    holds = dict.fromkeys((user_id for kind, user_id in world.rows if kind is User), 0)
    open_gifts = []
    for (kind, _), row in world.rows.items():
        if kind is not Presale:
            continue
        presale = Presale._make(row)
        held = presale.deposit_held_nano, presale.buyer_held_nano
        price_nano = presale.price_nano or 0
        deposit = fee_nano(price_nano, presale.deposit_bp or 0)
        match presale.state:
            case PresaleState.REGISTERED:
                assert (held, presale.buyer_id, presale.price_nano) == ((0, 0), None, None)
            case PresaleState.LISTED:
                assert (held, presale.buyer_id) == ((deposit, 0), None)
                assert price_nano
            case PresaleState.SOLD:
                assert held == (deposit, price_nano)
                assert presale.buyer_id not in (None, presale.seller_id)
            case _:
                assert held == (0, 0)
        assert (presale.closed_at is None) == (presale.state in ("registered", "listed", "sold"))
        if presale.closed_at is None:
            open_gifts.append(presale.gift_id)
        holds[presale.seller_id] += presale.deposit_held_nano
        if presale.buyer_id is not None:
            holds[presale.buyer_id] += presale.buyer_held_nano
    assert len(open_gifts) == len(set(open_gifts))
    for user_id, held_nano in holds.items():
        assert world.get(Account, user_id).held_nano == held_nano


class Act(NamedTuple):
    """A command before it is known which presales there are: `picks` choose among them. A stranger's is sent by
    whoever comes by, not by whom it concerns."""

    kind: str
    picks: tuple[int, int, int]
    is_strangers: bool
    passes_days: int


KINDS = ("register", "set_price", "set_price", "buy", "buy", "delete", "deliver", "expire", "receive")
PRICES = (3 * TON + 7, 9 * TON, TON, 40 * TON, None)
ACTS = st.builds(
    Act,
    st.sampled_from(KINDS),
    st.tuples(*[st.integers(0, 11)] * 3),
    st.sampled_from([False] * 5 + [True]),
    st.sampled_from([0, 0, 0, 0, 0, 9, 11, 13]),
)


def begun() -> World:
    world = World(Terms(presale_fee_bp=300))
    for user_id in (SELLER, BUYER, OTHER):
        world.user(user_id)
    for gift_id, seller_id in ((1, SELLER), (2, BUYER)):
        presale_id = UUID(succeed(world.one(register(gift_id, seller_id)))["presale_id"])
        succeed(world.one(named("set_price", presale_id, gift_id, price_nano=PRICES[0]), seller_id))
    return world


def bind(world: World, act: Act) -> Sent:
    """The command that the act is in this world."""
    one, two, three = act.picks
    user, gift_id = one % 3 + 1, two % 3 + 1
    presales = sorted(Presale._make(row) for (kind, _), row in world.rows.items() if kind is Presale)
    presale = presales[-1 - two % len(presales)]
    seller = user if act.is_strangers else presale.seller_id
    match act.kind:
        case "register":
            return register(gift_id, user, world.now + timedelta(days=10)), None
        case "receive":
            return receive(gift_id, user, message_ref=f"intake {gift_id}"), None
        case "set_price":
            return named("set_price", presale.id, presale.gift_id, price_nano=PRICES[three % 5]), seller
        case "buy":
            seen = PRICES[three % 4] if act.is_strangers else presale.price_nano or TON
            return named("buy", presale.id, presale.gift_id, price_nano=seen), user
        case "deliver":
            return deliver(presale.id, seller, presale.gift_id), None
        case _:
            actor = None if act.kind == "expire" or three == 0 else seller
            return named(act.kind, presale.id, presale.gift_id), actor


@given(st.lists(ACTS, max_size=25))
@settings(max_examples=150)
def test_presales_hold_what_they_say_through_every_history(history: list[Act]) -> None:
    world = begun()
    for act in history:
        sent = bind(world, act)
        before = world.snapshot()
        [outcome] = world.run(sent)
        assert outcome.status in (Status.SUCCEEDED, Status.REJECTED), outcome.error
        if outcome.status is Status.REJECTED:
            assert world.snapshot() == before
        check(world)
        assert all(timed.status is not Status.FAILED for timed in world.advance(act.passes_days * DAY))
        check(world)


@given(st.lists(ACTS, max_size=25), st.integers(2, 25))
@settings(max_examples=150)
def test_a_batch_is_worth_as_many_batches_of_one(history: list[Act], size: int) -> None:
    singly, batched = begun(), begun()
    outcomes_singly, sent = [], []
    for act in history:
        sent.append(bind(singly, act))
        outcomes_singly += singly.run(sent[-1])
    outcomes_batched: list[Outcome] = []
    for start in range(0, len(sent), size):
        outcomes_batched += batched.run(*sent[start : start + size])
    assert outcomes_singly == outcomes_batched
    assert _timeless(singly) == _timeless(batched)


def _timeless(world: World) -> object:
    kinds = (Account, Nft, Presale)
    rows = {
        place: tuple(None if isinstance(value, datetime) else value for value in row)
        for place, row in world.rows.items()
        if place[0] in kinds
    }
    return rows, [event.name for event in world.of(Event)], world.of(Posting), world.of(Deal)
