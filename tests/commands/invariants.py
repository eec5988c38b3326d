"""The invariants that hold after every command, as far as a world in memory shows them: of money, of items and what
reserves or hangs on them, of timers and of requests to the outside world.
"""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from commands.accounts.telegram import Channel, TelegramAccount
from commands.auctions import Auction, Bid
from commands.book import Posting
from commands.channels.purchases import ChannelPurchase
from commands.deals import Deal, DealItem
from commands.document import is_open
from commands.market.withdrawals import Withdrawal
from commands.nft.items import Intake, Nft
from commands.nft.returns import Return
from commands.offers import Offer
from commands.presale.presales import Presale
from commands.requests import GatewayRequest
from commands.terms import fee_nano
from commands.trades.trades import Proposal, ProposalItem, Trade, TradeItem
from tests.commands.sightings import HOLDERS, holds, platform, rows_of
from tests.commands.world import World

FREE = ("held", "listed")
GIVEN_UP = ("market.withdraw", "nft.return", "accounts.connect", "accounts.approve", "channels.add", "channels.buy")
"""What answers the requests that end after a time if they were never attempted."""


def check(world: World) -> None:
    world.check()
    check_holds(world)
    check_deals_and_fees(world)
    check_items(world)
    check_offers_and_swaps(world)
    for auction in rows_of(world, Auction):
        check_auction(auction, [bid for bid in rows_of(world, Bid) if bid.auction_id == auction.id])
    for presale in rows_of(world, Presale):
        check_presale(presale)
    check_channels(world)
    check_timers(world)
    check_requests(world)


def check_holds(world: World) -> None:
    """Only open documents hold money, and as much as their postings say: those of a raised bid count for the bids that
    follow in the auction."""
    group = {bid.id: bid.auction_id for bid in rows_of(world, Bid)}
    recorded: Counter[tuple[str, int]] = Counter()
    for (_, id_, user_id), amount in holds(world).items():
        recorded[str(group.get(id_, id_)), user_id] += amount
    posted: Counter[tuple[str, int]] = Counter()
    groups = {str(bid_id): str(auction_id) for bid_id, auction_id in group.items()}
    for posting in world.of(Posting):
        place = groups.get(posting.document_id or "", posting.document_id or "")
        if posting.credit_side == "held":
            posted[place, posting.credit_account] += posting.amount_nano
        if posting.debit_side == "held":
            posted[place, posting.debit_account] -= posting.amount_nano
    assert {place: amount for place, amount in posted.items() if amount} == recorded
    for _, document, _, held in HOLDERS:
        assert not [row for row in rows_of(world, document) if getattr(row, held) and not is_open(row)]


def check_deals_and_fees(world: World) -> None:
    """Every price is shared between two different parties, and the platform's revenue is made of known fees."""
    deals = world.of(Deal)
    for deal in deals:
        assert deal.seller_id != deal.buyer_id
        if deal.price_nano is not None:
            assert deal.fee_nano == fee_nano(deal.price_nano, deal.fee_bp)
            assert deal.price_nano == deal.fee_nano + deal.seller_nano
    paid = sum(deal.fee_nano for deal in deals)
    for document in (Withdrawal, Return):
        paid += sum(row.fee_nano for row in rows_of(world, document) if row.state == "confirmed")
    for presale in rows_of(world, Presale):
        if presale.state == "failed":
            paid += fee_nano(presale.price_nano, presale.deposit_bp) - fee_nano(presale.price_nano, presale.penalty_bp)
    assert platform(world).get("fees", 0) == paid
    sums = platform(world)
    assert all(sums.get(name, 0) >= 0 for name in ("fees", "withdrawals", "unclaimed"))
    assert sums.get("deposits", 0) <= 0


def check_items(world: World) -> None:
    """An item is reserved by the one document that says so; its price is set while it is listed."""
    reserving: dict[tuple[int, Any], tuple[str, int]] = {}
    for auction in rows_of(world, Auction):
        if is_open(auction):
            reserving[auction.nft_id, auction.id] = "on_auction", auction.seller_id
    for asked in rows_of(world, Return):
        if is_open(asked):
            reserving[asked.nft_id, asked.id] = "withdrawing", asked.user_id
    nfts = rows_of(world, Nft)
    assert len({nft.gift_id for nft in nfts}) == len(nfts)
    for nft in nfts:
        assert (nft.price_nano is not None) == (nft.fee_bp is not None) == (nft.state == "listed")
        assert (nft.owner_id is None) == (nft.state == "external") == (nft.closed_at is not None)
    assert {(nft.id, nft.reserved_by): (nft.state, nft.owner_id) for nft in nfts if nft.reserved_by} == reserving
    assert all(nft.reserved_by for nft in nfts if nft.state not in (*FREE, "external"))
    assert len({intake.command_id for intake in rows_of(world, Intake)}) == len(rows_of(world, Intake))


def check_offers_and_swaps(world: World) -> None:
    """What is open hangs on free items of the right owners, one of a kind for each author."""
    nfts = {nft.id: nft for nft in rows_of(world, Nft)}
    open_offers = [offer for offer in rows_of(world, Offer) if is_open(offer)]
    for offer in open_offers:
        nft = nfts[offer.nft_id]
        assert nft.state in FREE
        assert nft.owner_id == offer.owner_id != offer.author_id
        assert nft.hanging
    assert len({(offer.nft_id, offer.author_id) for offer in open_offers}) == len(open_offers)
    trades = {trade.id: trade for trade in rows_of(world, Trade)}
    proposals = {proposal.id: proposal for proposal in rows_of(world, Proposal)}
    of_trades = [(item, trades[item.trade_id], "owner_id") for item in rows_of(world, TradeItem)]
    of_proposals = [(item, proposals[item.proposal_id], "author_id") for item in rows_of(world, ProposalItem)]
    for item, swap, party in of_trades + of_proposals:
        assert is_open(item) == is_open(swap)
        if is_open(swap):
            assert nfts[item.nft_id].state in FREE
            assert nfts[item.nft_id].owner_id == getattr(swap, party)
            assert nfts[item.nft_id].hanging
    open_proposals = [proposal for proposal in proposals.values() if is_open(proposal)]
    assert all(is_open(trades[proposal.trade_id]) for proposal in open_proposals)
    assert len({(one.trade_id, one.author_id) for one in open_proposals}) == len(open_proposals)
    moved = Counter(item.deal_id for item in world.of(DealItem))
    assert all(moved[deal.id] for deal in world.of(Deal))


def check_auction(auction: Auction, bids: list[Any]) -> None:
    highest = max(bids, key=lambda bid: bid.amount_nano, default=None)
    assert auction.leader_bid_id == (highest and highest.id)
    assert auction.bid_count == len(bids) == len({bid.amount_nano for bid in bids})
    assert auction.planned_ends_at <= auction.ends_at <= auction.planned_ends_at + timedelta(seconds=3_600)
    for bid in bids:
        last = {"active": "leading", "sold": "won"}[auction.state]
        assert (bid.state == last) == (bid is highest)
        assert bid.held_nano == (bid.amount_nano if bid.state == "leading" else 0)
        assert bid.bidder_id != auction.seller_id
    assert bids or auction.state != "sold"


def check_presale(presale: Any) -> None:
    deposit = fee_nano(presale.price_nano, presale.deposit_bp) if presale.state in ("listed", "sold") else 0
    assert presale.deposit_held_nano == deposit
    assert presale.buyer_held_nano == (presale.price_nano if presale.state == "sold" else 0)
    assert presale.buyer_id is None or presale.state in ("sold", "delivered", "failed")


def check_channels(world: World) -> None:
    purchases = [purchase for purchase in rows_of(world, ChannelPurchase) if is_open(purchase)]
    channels = rows_of(world, Channel)
    selling = {(channel.id, channel.reserved_by) for channel in channels if channel.state == "selling"}
    assert selling == {(purchase.channel_id, purchase.id) for purchase in purchases}
    for channel in channels:
        assert (channel.price_nano is not None) == (channel.state in ("listed", "selling"))
        assert (channel.reserved_by is not None) == (channel.state == "selling")
    connected = [account for account in rows_of(world, TelegramAccount) if account.state == "connected"]
    for unique in ("phone", "telegram_id"):
        assert len({getattr(account, unique) for account in connected}) == len(connected)
    assert len({(account.user_id, account.name) for account in connected}) == len(connected)


def check_timers(world: World) -> None:
    """Whatever has a deadline has a timer for it."""
    set_for = {(kind_of(command), at) for at, command in world.timers}
    for document, verb, deadline in (
        (Auction, "auctions.settle", "ends_at"),
        (Offer, "offers.expire", "expires_at"),
        (Presale, "presale.expire", "deadline_at"),
    ):
        for row in rows_of(world, document):
            if is_open(row):
                run_at: datetime = getattr(row, deadline) + timedelta(seconds=world.terms.timer_grace_seconds)
                assert ((verb, row.id), run_at) in set_for


def kind_of(command: Any) -> tuple[str, Any]:
    """What the timer does, to which document: the last id that it names."""
    named = command.model_dump()
    ids = [named[name] for name in ("auction_id", "offer_id", "presale_id") if name in named]
    return command.kind, ids[-1] if ids else None


def check_requests(world: World) -> None:
    """What waits for the outside world has a request that is not over, and a timer that gives it up if it is never
    attempted; what has ended since is not even attempted."""
    requests = {request.reference: request for request in rows_of(world, GatewayRequest)}
    waiting = [row.id for kind in (Withdrawal, Return, ChannelPurchase) for row in rows_of(world, kind) if is_open(row)]
    waiting += [channel.check_id for channel in rows_of(world, Channel) if channel.state == "checking"]
    for account in rows_of(world, TelegramAccount):
        waiting += [account.id] if account.state == "requested" else []
        waiting += [account.approve_id] if account.state == "signing_in" else []
    for reference in waiting:
        assert is_open(requests[reference])
        assert (
            not world.timers
            or any(reference in timer.model_dump().values() for _, timer in world.timers)
            or (requests[reference].attempts)
        )
    unwanted = {reference for reference, request in requests.items() if request.answers in GIVEN_UP} - {*waiting}
    assert not [reference for reference in unwanted if requests[reference].state == "pending"]
