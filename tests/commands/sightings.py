"""What can be seen of a world, in the words of the model: the two are compared as they stand."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from commands import auctions, offers
from commands.accounts.telegram import AccountChannel, AccountGift, Channel, TelegramAccount
from commands.book import DEPOSITS, EXPENSE, FEES, UNCLAIMED, WITHDRAWALS, Account, Posting
from commands.channels import purchases as channel_purchases
from commands.deals import Deal
from commands.document import STORED
from commands.market import deposits as market
from commands.market import withdrawals
from commands.market.floors import Floor
from commands.nft import returns
from commands.nft.items import Intake, Nft
from commands.presale import presales
from commands.trades.trades import Proposal, Trade
from commands.users import User
from tests.commands.model.market import Document, Market
from tests.commands.world import World

PLATFORM = {
    FEES: "fees",
    DEPOSITS: "deposits",
    WITHDRAWALS: "withdrawals",
    EXPENSE: "expense",
    UNCLAIMED: "unclaimed",
}
HOLDERS: tuple[tuple[str, type[Any], str, str], ...] = tuple(
    (hold.kind, document, hold.user, hold.amount) for document, stored in STORED.items() for hold in stored.holds
)
"""Every kind of documents that hold money: (kind, type, whose, the field that records it)."""


def tables(model: Market) -> dict[type[Any], Mapping[Any, Document]]:
    """The model's documents by the type that stores them."""
    return {
        Nft: model.items,
        offers.Offer: model.offers,
        auctions.Auction: model.auctions,
        auctions.Bid: model.bids,
        presales.Presale: model.presales,
        Trade: model.trades,
        Proposal: model.proposals,
        market.Deposit: model.deposits,
        withdrawals.Withdrawal: model.withdrawals,
        returns.Return: model.returns,
        TelegramAccount: model.accounts,
        Channel: model.channels,
        channel_purchases.ChannelPurchase: model.purchases,
    }


def of_model(model: Market) -> dict[str, Any]:
    held: Counter[int] = Counter()
    for (_, _, user_id), amount in model.holds().items():
        held[user_id] += amount
    seen: dict[str, Any] = {
        document.__name__: {
            id_: {field.name: getattr(row, field.name) for field in fields(row)} for id_, row in table.items()
        }
        for document, table in tables(model).items()
    }
    return seen | {
        "users": model.blocked,
        "withdrawn at": model.withdrawn_at,
        "money": {user_id: (model.available[user_id], held[user_id]) for user_id in model.blocked},
        "platform": {name: amount for name, amount in model.platform.items() if amount},
        "holds": model.holds(),
        "intakes": model.intakes,
        "floors": model.floors,
        "deals": {id_: tuple(deal) for id_, deal in model.deals.items()},
        "account gifts": model.account_gifts,
        "account channels": model.account_channels,
        "timers": _sorted((at, kind, names) for at, kind, names in model.timers),
    }


def of_world(world: World, model: Market) -> dict[str, Any]:
    """The same of a world: of its documents, those fields that the model has."""
    seen: dict[str, Any] = {}
    for document, table in tables(model).items():
        known = [field.name for row in list(table.values())[:1] for field in fields(row)]
        rows = rows_of(world, document)
        seen[document.__name__] = {row.id: {name: getattr(row, name) for name in known} for row in rows}
    users = rows_of(world, User)
    return seen | {
        "users": {user.id: user.blocked for user in users},
        "withdrawn at": {user.id: user.withdrawn_at for user in users if user.withdrawn_at},
        "money": {row.id: (row.available_nano, row.held_nano) for row in rows_of(world, Account)},
        "platform": platform(world),
        "holds": holds(world),
        "intakes": {row.message_ref for row in rows_of(world, Intake)},
        "floors": {(row.collection, row.model): (row.price_nano, row.recorded_at) for row in rows_of(world, Floor)},
        "deals": {deal.id: (deal.source, *deal[2:5], deal.fee_nano) for deal in world.of(Deal)},
        "account gifts": {(row.account_id, row.gift_id) for row in rows_of(world, AccountGift)},
        "account channels": {(row.account_id, row.channel_id) for row in rows_of(world, AccountChannel)},
        "timers": _sorted((at, command.kind, command.model_dump()) for at, command in world.timers),
    }


def rows_of(world: World, document: type[Any]) -> list[Any]:
    return [row for (kind, _), row in world.rows.items() if kind is document]


def holds(world: World) -> dict[tuple[str, Any, int], int]:
    """What documents record as held, whatever their state."""
    found = {
        (kind, row.id, getattr(row, whose)): getattr(row, amount)
        for kind, document, whose, amount in HOLDERS
        for row in rows_of(world, document)
    }
    return {place: amount for place, amount in found.items() if amount}


def platform(world: World) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for posting in world.of(Posting):
        for account, change in ((posting.debit_account, -1), (posting.credit_account, 1)):
            if account < 0:
                sums[PLATFORM[account]] += change * posting.amount_nano
    return {name: amount for name, amount in sums.items() if amount}


def _sorted(timers: Any) -> list[tuple[datetime, str, bytes]]:
    return sorted((at, kind, to_json(dict(sorted(names.items())))) for at, kind, names in timers)
