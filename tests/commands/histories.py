"""Random histories of items that are offered for and auctioned: how they are drawn, run, and what holds after each
step. A step is some time that passes, then some commands sent at one moment, as one batch or one by one.
"""

from collections import Counter
from copy import copy
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import strategies as st

from commands.auctions import Auction, Bid, BidState
from commands.book import FEES, Account, Posting
from commands.command import Command
from commands.deals import Deal
from commands.nft.items import Nft, NftState
from commands.offers import Offer
from commands.outcome import Outcome
from commands.terms import TON, fee_nano
from tests.commands.world import Sent, World, buy, command, set_price, transfer

USERS = (1, 2, 3, 4)
ITEMS = (1, 2)
PRICES = (4 * TON, 5 * TON, 8 * TON + 7)
SHORT_AUCTION_SECONDS = 600
NO_DOCUMENT = UUID(int=0)

OFFER_KINDS = ("offers.create", "offers.withdraw", "offers.refuse", "offers.counter", "offers.accept", "offers.expire")
AUCTION_KINDS = ("auctions.create", "auctions.cancel", "auctions.place_bid", "auctions.place_bid", "auctions.settle")
ITEM_KINDS = ("nft.set_price", "nft.clear_price", "nft.buy", "nft.transfer")


class Act(NamedTuple):
    """A command before it is known which documents there are: `choice` picks among them."""

    kind: str
    actor: int
    item: int
    price_nano: int
    choice: int


class Step(NamedTuple):
    passes_seconds: int
    acts: list[Act]


def steps(*kinds: str) -> st.SearchStrategy[list[Step]]:
    act = st.builds(
        Act, st.sampled_from(kinds), st.sampled_from(USERS), st.sampled_from(ITEMS), st.sampled_from(PRICES),
        st.integers(0, 3),
    )  # fmt: skip
    passes = st.sampled_from((0, 0, 0, 1, 130, 400, SHORT_AUCTION_SECONDS, 30_000, 86_400))
    return st.lists(st.builds(Step, passes, st.lists(act, max_size=6)), max_size=10)


def begun() -> World:
    """Four users with 20 TON each; two listed items of the first two."""
    world = World()
    for user_id in USERS:
        world.user(user_id, ton=20)
    for nft_id in ITEMS:
        world.item(nft_id, nft_id)
        world.one(set_price(nft_id, 8 * TON), nft_id)
    return world


def bind(world: World, acts: list[Act], first_number: int) -> list[Sent]:
    """The commands of a step; they may name documents that earlier ones of the step open."""
    offers = [row for (kind, _), row in world.rows.items() if kind is Offer]
    auctions = [row for (kind, _), row in world.rows.items() if kind is Auction]
    documents = {
        "offers": [(row.nft_id, row.id) for row in offers if isinstance(row, Offer)],
        "auctions": [(row.nft_id, row.id) for row in auctions if isinstance(row, Auction)],
    }
    sent: list[Sent] = []
    for number, act in enumerate(acts, first_number):
        family, _, verb = act.kind.partition(".")
        if family != "nft" and verb == "create":
            documents[family].append((act.item, UUID(int=number)))
        latest = documents[family][::-1][act.choice :][:1] if family != "nft" else []
        system = act.kind in ("offers.expire", "auctions.settle")
        sent.append((_command(act, *latest[0]) if latest else _command(act), None if system else act.actor))
    return sent


def _command(act: Act, item: int | None = None, document_id: UUID = NO_DOCUMENT) -> Command:
    nft_id = act.item if item is None else item
    offer, auction = {"nft_id": nft_id, "offer_id": document_id}, {"nft_id": nft_id, "auction_id": document_id}
    match act.kind:
        case "nft.set_price":
            return set_price(act.item, act.price_nano)
        case "nft.clear_price":
            return set_price(act.item, None)
        case "nft.buy":
            return buy(act.item, act.price_nano)
        case "nft.transfer":
            return transfer(act.item, act.choice + 1)
        case "offers.create":
            return command(act.kind, nft_id=act.item, price_nano=act.price_nano)
        case "offers.counter" | "offers.accept":
            return command(act.kind, **offer, price_nano=act.price_nano)
        case "offers.withdraw" | "offers.refuse" | "offers.expire":
            return command(act.kind, **offer)
        case "auctions.create":
            terms = {"start_nano": PRICES[0], "duration_seconds": SHORT_AUCTION_SECONDS}
            return command(act.kind, nft_id=act.item, **terms)
        case "auctions.place_bid":
            return command(act.kind, **auction, amount_nano=act.price_nano + act.choice * TON)
        case _:
            return command(act.kind, **auction)


def run(world: World, step: Step, *, singly: bool = False) -> list[Outcome]:
    """A step's outcomes; those of the timers that are due come first."""
    outcomes = world.advance(step.passes_seconds)
    moment = world.now
    sent = bind(world, step.acts, world.last_number + 1)
    if not singly:
        outcomes += world.run(*sent) if sent else []
    for each in sent if singly else []:
        world.now = moment
        outcomes += world.run(each)
    world.now = moment
    return outcomes


def compare(history: list[Step]) -> None:
    """A batch of n is worth n batches of one: the same outcomes, rows, records and timers after each step, but for the
    moments at which they were written."""
    batched = begun()
    alone = copy(batched)
    alone.rows, alone.records, alone.timers = batched.rows.copy(), batched.records.copy(), batched.timers.copy()
    for step in history:
        assert run(batched, step) == run(alone, step, singly=True)
        assert _timeless(batched) == _timeless(alone)
        assert batched.records == alone.records
        assert batched.timers == alone.timers


def _timeless(world: World) -> dict[Any, Any]:
    moments = dict.fromkeys(("opened_at", "closed_at", "updated_at", "listed_at"))
    rows = {key: row._asdict() for key, row in world.rows.items() if hasattr(row, "_asdict")}
    return {key: {name: value for name, value in row.items() if name not in moments} for key, row in rows.items()}


def check(world: World) -> None:
    """Money is conserved, and every hold, offer, bid, auction and deal is as the others say."""
    world.check()
    of_kind: dict[Any, list[Any]] = {kind: [] for kind in (Offer, Auction, Bid, Nft, Account)}
    for (kind, _), row in world.rows.items():
        if kind in of_kind:
            of_kind[kind].append(row)
    _check_holds(world, of_kind)
    _check_offers(world, of_kind[Offer])
    for nft in of_kind[Nft]:
        assert (nft.price_nano is not None) == (nft.fee_bp is not None) == (nft.state == NftState.LISTED)
        assert (nft.reserved_by is not None) == (nft.state == NftState.ON_AUCTION)
        active = [auction for auction in of_kind[Auction] if auction.nft_id == nft.id and auction.closed_at is None]
        assert [auction.id for auction in active] == ([] if nft.reserved_by is None else [nft.reserved_by])
    for auction in of_kind[Auction]:
        _check_auction(world, auction, [bid for bid in of_kind[Bid] if bid.auction_id == auction.id])
    sold = [auction for auction in of_kind[Auction] if auction.state == "sold"]
    assert len(sold) == len([deal for deal in world.of(Deal) if deal.source == "auction"])
    for deal in world.of(Deal):
        assert deal.fee_nano == fee_nano(deal.price_nano, deal.fee_bp)
        assert deal.price_nano == deal.fee_nano + deal.seller_nano
        assert deal.seller_id != deal.buyer_id
    fees = sum(posting.amount_nano for posting in world.of(Posting) if posting.credit_account == FEES)
    assert fees == sum(deal.fee_nano for deal in world.of(Deal))


def _check_holds(world: World, of_kind: dict[Any, list[Any]]) -> None:
    """A user's held side is what the open documents hold, and each document's postings say what it holds."""
    held: Counter[int] = Counter()
    recorded: Counter[tuple[object, int]] = Counter()
    group = {str(offer.id): ("offer", offer.id) for offer in of_kind[Offer]}
    group |= {str(bid.id): ("bids of", bid.auction_id) for bid in of_kind[Bid]}
    for offer in of_kind[Offer]:
        held[offer.author_id] += offer.held_nano
        recorded[group[str(offer.id)], offer.author_id] += offer.held_nano
    for bid in of_kind[Bid]:
        held[bid.bidder_id] += bid.held_nano
        recorded[group[str(bid.id)], bid.bidder_id] += bid.held_nano
    posted: Counter[tuple[object, int]] = Counter()
    for posting in world.of(Posting):
        if posting.credit_side == "held":
            posted[group[posting.document_id], posting.credit_account] += posting.amount_nano
        if posting.debit_side == "held":
            posted[group[posting.document_id], posting.debit_account] -= posting.amount_nano
    assert +posted == +recorded
    assert -posted == Counter()
    assert {account.id: account.held_nano for account in of_kind[Account] if account.held_nano} == +held


def _check_offers(world: World, offers: list[Offer]) -> None:
    open_offers = [offer for offer in offers if offer.closed_at is None]
    for offer in offers:
        assert offer.held_nano == (offer.price_nano if offer.state == "open" else 0)
        assert (offer.state == "open") == (offer.closed_at is None)
    for offer in open_offers:
        nft = world.get(Nft, offer.nft_id)
        assert nft.state in (NftState.HELD, NftState.LISTED)
        assert nft.hanging
        assert nft.owner_id == offer.owner_id != offer.author_id
        assert _has_timer(world, "offers.expire", offer.id, offer.expires_at)
    assert len({(offer.nft_id, offer.author_id) for offer in open_offers}) == len(open_offers)


def _check_auction(world: World, auction: Auction, bids: list[Bid]) -> None:
    highest = max(bids, key=lambda bid: bid.amount_nano, default=None)
    assert auction.bid_count == len(bids)
    assert auction.leader_bid_id == (None if highest is None else highest.id)
    assert auction.current_nano == (auction.start_nano if highest is None else highest.amount_nano)
    assert len({bid.amount_nano for bid in bids}) == len(bids)
    assert 0 <= (auction.ends_at - auction.planned_ends_at).total_seconds() <= 3_600
    for bid in bids:
        assert bid.held_nano == (bid.amount_nano if bid.state == BidState.LEADING else 0)
        assert (bid.closed_at is None) == (bid.state == BidState.LEADING)
        assert bid.bidder_id != auction.seller_id
    nft = world.get(Nft, auction.nft_id)
    match auction.state:
        case "active":
            assert (nft.state, nft.reserved_by, nft.owner_id) == (NftState.ON_AUCTION, auction.id, auction.seller_id)
            assert highest is None or highest.state == BidState.LEADING
            assert _has_timer(world, "auctions.settle", auction.id, auction.ends_at)
        case "sold":
            assert highest is not None
            assert highest.state == BidState.WON
            sold = (auction.seller_id, highest.bidder_id, highest.amount_nano)
            assert sold in [deal[2:5] for deal in world.of(Deal) if deal.source == "auction"]
        case _:
            assert bids == []


def _has_timer(world: World, kind: str, document_id: UUID, deadline: datetime) -> bool:
    run_at = deadline + timedelta(seconds=world.terms.timer_grace_seconds)
    return any(
        at == run_at and timer.kind == kind and document_id in timer.model_dump().values() for at, timer in world.timers
    )
