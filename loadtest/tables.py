"""What the tables say after a run: our own proof that nothing was lost or made up, and what came of each module.

Read-only, in one snapshot, and written from the documentation alone: it shares no query with the project's own audit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

CHECKS = {
    "sum of all balances, nanoTON": "SELECT coalesce(sum(available_nano + held_nano), 0) FROM accounts",
    "users who owe": "SELECT count(*) FROM accounts WHERE id > 0 AND (available_nano < 0 OR held_nano < 0)",
    "balances that are not their postings' sum": """
        WITH moved AS (
            SELECT credit_account AS id, credit_side AS side, amount_nano FROM postings
            UNION ALL SELECT debit_account, debit_side, -amount_nano FROM postings
        ), sums AS (
            SELECT id, sum(amount_nano) FILTER (WHERE side = 'available') AS available_nano,
                sum(amount_nano) FILTER (WHERE side = 'held') AS held_nano
            FROM moved GROUP BY id
        )
        SELECT count(*) FROM accounts FULL JOIN sums USING (id)
        WHERE accounts.available_nano IS DISTINCT FROM coalesce(sums.available_nano, 0)
            OR accounts.held_nano IS DISTINCT FROM coalesce(sums.held_nano, 0)
    """,
    "users who hold what no open document does": """
        WITH documents AS (
            SELECT author_id AS user_id, held_nano FROM offers
            UNION ALL SELECT bidder_id, held_nano FROM bids
            UNION ALL SELECT seller_id, deposit_held_nano FROM presales
            UNION ALL SELECT buyer_id, buyer_held_nano FROM presales
            UNION ALL SELECT user_id, held_nano FROM withdrawals
            UNION ALL SELECT user_id, held_nano FROM returns
            UNION ALL SELECT buyer_id, held_nano FROM channel_purchases
        ), held AS (SELECT user_id, sum(held_nano) AS nano FROM documents GROUP BY user_id)
        SELECT count(*) FROM accounts LEFT JOIN held ON held.user_id = accounts.id
        WHERE accounts.held_nano <> coalesce(held.nano, 0)
    """,
}
"""Each must be 0."""

OWNERS = "SELECT id, owner_id FROM nfts WHERE id = ANY($1::bigint[])"

CAME = """
    WITH came AS (
        SELECT 'sales' AS module, 'sold' AS state, price_nano AS nano
        FROM deals WHERE source = 'sale' AND seller_id > $1
        UNION ALL SELECT 'offers', state, price_nano FROM offers WHERE author_id > $1
        UNION ALL SELECT 'auctions', state, current_nano FROM auctions WHERE seller_id > $1
        UNION ALL SELECT 'bids', state, NULL FROM bids WHERE bidder_id > $1
        UNION ALL SELECT 'swaps', state, NULL FROM trades WHERE owner_id > $1
        UNION ALL SELECT 'presales', state, price_nano FROM presales WHERE seller_id > $1
        UNION ALL SELECT 'telegram accounts', state, NULL FROM telegram_accounts WHERE user_id > $1
        UNION ALL SELECT 'channels', state, NULL FROM channels WHERE owner_id > $1
        UNION ALL SELECT 'channel sales', state, price_nano FROM channel_purchases WHERE seller_id > $1
        UNION ALL SELECT 'deposits', state, amount_nano FROM deposits WHERE user_id > $1 OR user_id IS NULL
        UNION ALL SELECT 'withdrawals', state, amount_nano FROM withdrawals WHERE user_id > $1
        UNION ALL SELECT 'returns', state, NULL FROM returns WHERE user_id > $1
    )
    SELECT module, state, count(*), sum(nano)::bigint AS nano FROM came GROUP BY 1, 2 ORDER BY 3 DESC
"""
"""What became of the documents of those who came with this run: their ids begin above $1."""
MODULES = {
    "sales": "sold",
    "offers": "accepted",
    "auctions": "sold",
    "bids": "won",
    "swaps": "accepted",
    "presales": "delivered",
    "telegram accounts": "connected",
    "channels": "sold",
    "channel sales": "confirmed",
    "deposits": "credited",
    "withdrawals": "confirmed",
    "returns": "confirmed",
}
"""Each with the state that its documents are opened for."""


@dataclass(frozen=True)
class Tables:
    """`checks` is (what, expected, found); `came` is by module, by state, (count, nanoTON or None)."""

    checks: list[tuple[str, int, int]] = field(default_factory=list)
    came: dict[str, dict[str, tuple[int, int | None]]] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        return all(expected == found for _, expected, found in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "checks": {what: {"expected": expected, "found": found} for what, expected, found in self.checks},
            "came": self.came,
        }


async def read(dsn: str, base: int, owners: Mapping[int, int]) -> Tables:
    """`base`: the ids of the run's users begin above it. `owners`: by item, as the receipts tell."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            checks = [(what, 0, int(await connection.fetchval(query))) for what, query in CHECKS.items()]
            found = await connection.fetch(OWNERS, list(owners))
            right = sum(owners[row["id"]] == row["owner_id"] for row in found)
            checks.append(("items owned by whom the receipts name", len(owners), right))
            tables = Tables(checks)
            for row in await connection.fetch(CAME, base):
                tables.came.setdefault(row["module"], {})[row["state"]] = row["count"], row["nano"]
    finally:
        await connection.close()
    return tables
