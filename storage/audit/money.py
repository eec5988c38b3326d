"""Invariants of money: accounts, postings, holds, fees, what came in and what left."""

from storage.audit.invariant import ALL_COMMANDS, PRESENT, Invariant

_SIDES = """
SELECT debit_account AS account, debit_side AS side, -amount_nano AS amount FROM postings
UNION ALL SELECT credit_account, credit_side, amount_nano FROM postings
"""

# What documents hold, by their postings. The bids of one bidder in one auction hold as one: a raised bid hands its hold
# to the next.
_HELD_BY_POSTINGS = """
SELECT document_kind, document_id, credit_account AS user_id, amount_nano FROM postings WHERE credit_side = 'held'
UNION ALL
SELECT document_kind, document_id, debit_account, -amount_nano FROM postings WHERE debit_side = 'held'
"""

# Every document that may hold money: what it should hold while it is open, and what it records.
_HOLDERS = """
SELECT 'offer' AS kind, id, state = 'open' AS is_open, price_nano AS due, held_nano AS held FROM offers
UNION ALL SELECT 'bid', id, state = 'leading', amount_nano, held_nano FROM bids
UNION ALL SELECT 'withdrawal', id, state = 'requested', amount_nano, held_nano FROM withdrawals
UNION ALL SELECT 'return', id, state = 'requested', fee_nano, held_nano FROM returns
UNION ALL SELECT 'channel_purchase', id, state = 'requested', price_nano, held_nano FROM channel_purchases
UNION ALL
SELECT 'presale', id, state IN ('listed', 'sold'), deposit_held_nano + buyer_held_nano,
    deposit_held_nano + buyer_held_nano
FROM presales
"""

MONEY_INVARIANTS = (
    Invariant(
        "V1",
        "all accounts together hold nothing",
        "SELECT sum(available_nano + held_nano)::text FROM accounts HAVING sum(available_nano + held_nano) <> 0",
        "SELECT count(*) FROM accounts",
    ),
    Invariant(
        "V2",
        "every balance is the sum of its postings",
        f"""
        WITH posted AS (SELECT account, side, sum(amount) AS balance FROM ({_SIDES}) AS sides GROUP BY 1, 2),
        kept AS (
            SELECT id AS account, 'available' AS side, available_nano AS balance FROM accounts
            UNION ALL SELECT id, 'held', held_nano FROM accounts
        )
        SELECT coalesce(posted.account, kept.account) || ' ' || coalesce(posted.side, kept.side)
        FROM posted FULL JOIN kept ON posted.account = kept.account AND posted.side = kept.side
        WHERE coalesce(posted.balance, 0) <> coalesce(kept.balance, 0)
            OR (kept.account IS NULL AND posted.balance IS NOT NULL)
        """,
        "SELECT count(*) FROM postings",
    ),
    Invariant(
        "V3",
        "no user's balance is negative, and the platform's have their signs",
        """
        SELECT id::text FROM accounts
        WHERE (id > 0 AND (available_nano < 0 OR held_nano < 0)) OR (id IN (-1, -3, -5) AND available_nano < 0)
            OR (id = -2 AND available_nano > 0) OR (id < 0 AND held_nano <> 0)
        """,
        "SELECT count(*) FROM accounts",
    ),
    Invariant(
        "V4",
        "what a user has held is the sum of that user's holds",
        """
        WITH holding AS (SELECT user_id, sum(amount_nano) AS amount FROM holds GROUP BY user_id)
        SELECT coalesce(id, user_id)::text FROM accounts FULL JOIN holding ON user_id = id
        WHERE coalesce(held_nano, 0) <> coalesce(amount, 0)
        """,
        "SELECT coalesce(sum(held_nano), 0)::bigint FROM accounts",
    ),
    Invariant(
        "V5",
        "an open document holds its amount, a closed one nothing",
        f"""
        SELECT kind || ' ' || id FROM ({_HOLDERS}) AS holders
        WHERE held <> CASE WHEN is_open THEN due ELSE 0 END
        """,
        f"SELECT count(*) FROM ({_HOLDERS}) AS holders WHERE is_open",
    ),
    Invariant(
        "V6",
        "what a document records as held is the sum of its postings",
        f"""
        WITH sums AS (
            SELECT document_kind, coalesce(auction_id::text, document_id) AS document_id, user_id,
                sum(posted) AS posted, sum(recorded) AS recorded
            FROM (
                SELECT document_kind, document_id, user_id, amount_nano AS posted, 0 AS recorded
                FROM ({_HELD_BY_POSTINGS}) AS postings
                UNION ALL SELECT document_kind, document_id, user_id, 0, amount_nano FROM holds
            ) AS both_sides
            LEFT JOIN bids ON document_kind = 'bid' AND bids.id::text = document_id
            GROUP BY 1, 2, 3
        )
        SELECT concat_ws(' ', document_kind, document_id, 'of', user_id) FROM sums WHERE posted <> recorded
        """,
        "SELECT count(*) FROM holds",
    ),
    Invariant(
        "V7",
        "every posting moves something, and every posting, deal and event is of a command that succeeded",
        f"""
        SELECT 'posting ' || id FROM postings
        WHERE amount_nano <= 0 OR (debit_account, debit_side) = (credit_account, credit_side)
        UNION ALL
        SELECT effects.command_id::text FROM (
            SELECT command_id FROM postings UNION SELECT id FROM deals
            UNION SELECT command_id FROM events
            WHERE name NOT IN ('gateway.contradicted', 'webhook.disabled', 'command.finished')
        ) AS effects
        LEFT JOIN {ALL_COMMANDS} AS commands ON commands.id = effects.command_id
        WHERE CASE WHEN commands.id IS NULL THEN {PRESENT.format(id="effects.command_id")}
            ELSE status <> 'succeeded' END
        """,
        f"SELECT count(*) FROM {ALL_COMMANDS} AS commands WHERE status = 'succeeded'",
    ),
    Invariant(
        "V8",
        "every deal's price is the seller's part and the fee, rounded down",
        """
        SELECT id::text FROM deals
        WHERE seller_id = buyer_id OR (price_nano IS NULL) <> (source = 'trade')
            OR (price_nano IS NOT NULL AND (
                price_nano IS DISTINCT FROM fee_nano + seller_nano
                OR fee_nano::numeric <> div(price_nano::numeric * fee_bp, 10000)
            ))
        """,
        "SELECT count(*) FROM deals",
    ),
    Invariant(
        "V9",
        "the deposits account mirrors the deposits, the unclaimed one those unclaimed",
        """
        SELECT id::text FROM accounts
        WHERE (id = -2 AND -available_nano <> (SELECT coalesce(sum(amount_nano), 0) FROM deposits))
            OR (id = -5 AND available_nano <> (
                SELECT coalesce(sum(amount_nano), 0) FROM deposits WHERE state = 'unclaimed'))
        """,
        "SELECT count(*) FROM deposits",
    ),
    Invariant(
        "V10",
        "the withdrawals account is what confirmed withdrawals paid out, and their network fees",
        """
        SELECT id::text FROM accounts
        WHERE id = -3 AND available_nano <> (
            SELECT coalesce(sum(amount_nano - fee_nano + network_fee_nano), 0) FROM withdrawals
            WHERE state = 'confirmed')
        UNION ALL
        SELECT 'withdrawal ' || id FROM withdrawals
        WHERE state = 'confirmed' AND (network_fee_nano IS NULL OR tx_hash IS NULL)
        """,
        "SELECT count(*) FROM withdrawals WHERE state = 'confirmed'",
    ),
    Invariant(
        "V11",
        "the fees account is the sum of all fees",
        """
        SELECT id::text FROM accounts
        WHERE id = -1 AND available_nano <> (
            (SELECT coalesce(sum(fee_nano), 0) FROM deals)
            + (SELECT coalesce(sum(fee_nano), 0) FROM withdrawals WHERE state = 'confirmed')
            + (SELECT coalesce(sum(fee_nano), 0) FROM returns WHERE state = 'confirmed')
            + (SELECT coalesce(sum(price_nano * deposit_bp / 10000 - price_nano * penalty_bp / 10000), 0)
               FROM presales WHERE state = 'failed')
        )
        """,
        "SELECT coalesce(sum(fee_nano), 0)::bigint FROM deals",
    ),
)
