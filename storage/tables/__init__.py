"""The tables, as migrations make them and reads use them.

Documents and records of `commands` have a table of the same name whose columns carry their fields; a test holds the two
together.
"""

from storage.tables.base import HOLDS, Moment, metadata
from storage.tables.exchange import (
    HOUR,
    auctions,
    bids,
    floor_points,
    floors,
    offers,
    presales,
    proposal_items,
    proposals,
    trade_items,
    trades,
)
from storage.tables.items import gifts, intakes, nfts, returns, traits, users
from storage.tables.journal import api_keys, commands, partitions, sessions, workers
from storage.tables.money import accounts, deposits, postings, withdrawals
from storage.tables.outside import (
    account_channels,
    account_gifts,
    channel_gifts,
    channel_purchases,
    channels,
    gateway_log,
    gateway_requests,
    telegram_accounts,
)
from storage.tables.records import deal_items, deals, events
from storage.tables.retention import archived_commands, maintenance
from storage.tables.sandbox import sandbox_effects, sandbox_faults, sandbox_tokens
from storage.tables.webhooks import deliveries, webhooks

__all__ = [
    "HOLDS",
    "HOUR",
    "Moment",
    "account_channels",
    "account_gifts",
    "accounts",
    "api_keys",
    "archived_commands",
    "auctions",
    "bids",
    "channel_gifts",
    "channel_purchases",
    "channels",
    "commands",
    "deal_items",
    "deals",
    "deliveries",
    "deposits",
    "events",
    "floor_points",
    "floors",
    "gateway_log",
    "gateway_requests",
    "gifts",
    "intakes",
    "maintenance",
    "metadata",
    "nfts",
    "offers",
    "partitions",
    "postings",
    "presales",
    "proposal_items",
    "proposals",
    "returns",
    "sandbox_effects",
    "sandbox_faults",
    "sandbox_tokens",
    "sessions",
    "telegram_accounts",
    "trade_items",
    "trades",
    "traits",
    "users",
    "webhooks",
    "withdrawals",
    "workers",
]
