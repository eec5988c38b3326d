"""Invariants of documents: auctions, presales, channels, their timers and requests, and what opened them."""

from commands.document import STORED
from storage.audit.invariant import ALL_COMMANDS, PRESENT, Invariant

_SALES = f"""
SELECT (payload ->> 'auction_id')::uuid AS auction_id, deals.seller_id, buyer_id, deals.price_nano
FROM {ALL_COMMANDS} AS commands JOIN deals USING (id) WHERE kind = 'auctions.settle' AND status = 'succeeded'
"""

_DEADLINES = " UNION ALL ".join(
    f"SELECT '{deadline.timer}' AS kind, id::text AS id, {deadline.at} AS deadline FROM {table} WHERE closed_at IS NULL"
    for table, deadline in ((stored.table, stored.deadline) for stored in STORED.values())
    if deadline is not None
)
_WITH_EXPIRY = """(
    'accounts.connect', 'accounts.approve', 'channels.add', 'channels.buy', 'market.withdraw', 'nft.return'
)"""
# What a system command is about; in an answer, the reference of the request.
_ABOUT = """coalesce(
    payload ->> 'auction_id', payload ->> 'offer_id', payload ->> 'presale_id', payload ->> 'withdrawal_id',
    payload ->> 'return_id', payload ->> 'purchase_id', payload ->> 'check_id', payload ->> 'approve_id',
    payload ->> 'account_id'
)"""

_WAITING = """
SELECT 'withdrawal ' || id AS document, id AS reference FROM withdrawals WHERE state = 'requested'
UNION ALL SELECT 'return ' || id, id FROM returns WHERE state = 'requested'
UNION ALL SELECT 'channel purchase ' || id, id FROM channel_purchases WHERE state = 'requested'
UNION ALL SELECT 'channel ' || id, check_id FROM channels WHERE state = 'checking'
UNION ALL SELECT 'account ' || id, id FROM telegram_accounts WHERE state = 'requested'
UNION ALL SELECT 'account ' || id, approve_id FROM telegram_accounts WHERE state = 'signing_in'
"""

_OPENED_BY = {
    "offers": "offers.create",
    "auctions": "auctions.create",
    "bids": "auctions.place_bid",
    "presales": "presale.register",
    "trades": "trades.create",
    "proposals": "trades.propose",
    "deposits": "market.deposit",
    "withdrawals": "market.withdraw",
    "returns": "nft.return",
    "telegram_accounts": "accounts.connect",
    "channel_purchases": "channels.buy",
}
_DEAL_MADE_BY = {
    "sale": "nft.buy",
    "offer": "offers.accept",
    "auction": "auctions.settle",
    "presale": "presale.deliver",
    "trade": "trades.accept",
    "channel": "channels.buy",
}
_ASKED_BY = {
    "gift.transfer": "nft.return",
    "gift.send": "accounts.send_gift",
    "ton.pay": "market.withdraw",
    "channel.inspect": "channels.add",
    "channel.transfer": "channels.buy",
    "account.send_code": "accounts.connect",
    "account.sign_in": "accounts.approve",
    "account.snapshot": "accounts.sync",
    "account.sign_out": "accounts.disconnect accounts.approve_confirm accounts.sync_fail",
}


def _case(column: str, kinds: dict[str, str]) -> str:
    return f"CASE {column} " + " ".join(f"WHEN '{value}' THEN '{kind}'" for value, kind in kinds.items()) + " END"


_DOCUMENTS = " UNION ALL ".join(
    [
        *(f"SELECT '{table}' AS name, id, '{kind}' AS kinds FROM {table}" for table, kind in _OPENED_BY.items()),
        f"SELECT 'deals', id, {_case('source', _DEAL_MADE_BY)} FROM deals",
        f"SELECT 'gateway_requests', reference, {_case('op', _ASKED_BY)} FROM gateway_requests",
        "SELECT 'intakes', command_id, 'nft.receive presale.deliver' FROM intakes",
    ]
)

DOCUMENT_INVARIANTS = (
    Invariant(
        "V19",
        "an active auction is led by its highest bid and ends in time, a sold one is its highest bidder's",
        f"""
        WITH sums AS (
            SELECT auction_id, count(*) AS bids, max(amount_nano) AS highest,
                count(*) FILTER (WHERE state = 'leading') AS leads, count(*) FILTER (WHERE state = 'won') AS won
            FROM bids GROUP BY auction_id
        )
        SELECT auctions.id::text FROM auctions
        LEFT JOIN sums ON sums.auction_id = auctions.id
        LEFT JOIN bids AS leader ON leader.auction_id = auctions.id AND leader.id = leader_bid_id
        WHERE auctions.state = 'active' AND (
            coalesce(leads, 0) <> (bids IS NOT NULL)::int
            OR (leader_bid_id IS NOT NULL) <> (bids IS NOT NULL)
            OR (bids IS NOT NULL AND (
                leader.state IS DISTINCT FROM 'leading' OR leader.amount_nano IS DISTINCT FROM highest
                OR leader.held_nano IS DISTINCT FROM highest))
            OR ends_at > planned_ends_at + make_interval(secs => :auction_extension_max_seconds)
        )
        UNION ALL
        SELECT auctions.id::text FROM auctions
        LEFT JOIN sums ON sums.auction_id = auctions.id
        LEFT JOIN bids AS winner ON winner.auction_id = auctions.id AND winner.state = 'won'
        LEFT JOIN ({_SALES}) AS sale ON sale.auction_id = auctions.id
        WHERE CASE auctions.state
            WHEN 'active' THEN won > 0 OR sale.auction_id IS NOT NULL
            WHEN 'sold' THEN won <> 1 OR leads <> 0 OR winner.amount_nano IS DISTINCT FROM highest
                OR sale.buyer_id IS DISTINCT FROM winner.bidder_id OR sale.price_nano IS DISTINCT FROM highest
                OR sale.seller_id IS DISTINCT FROM auctions.seller_id
            ELSE bids IS NOT NULL OR sale.auction_id IS NOT NULL END
        """,
        "SELECT count(*) FROM auctions",
    ),
    Invariant(
        "V20",
        "a presale holds the deposit while priced, the deposit and the price while sold, and else nothing",
        """
        SELECT id::text FROM presales
        WHERE CASE state
            WHEN 'registered' THEN deposit_held_nano <> 0 OR buyer_held_nano <> 0 OR buyer_id IS NOT NULL
                OR price_nano IS NOT NULL
            WHEN 'listed' THEN deposit_held_nano IS DISTINCT FROM price_nano * deposit_bp / 10000
                OR buyer_held_nano <> 0 OR buyer_id IS NOT NULL
            WHEN 'sold' THEN deposit_held_nano IS DISTINCT FROM price_nano * deposit_bp / 10000
                OR buyer_held_nano IS DISTINCT FROM price_nano OR buyer_id IS NULL
            ELSE deposit_held_nano <> 0 OR buyer_held_nano <> 0 END
        """,
        "SELECT count(*) FROM presales",
    ),
    Invariant(
        "V21",
        "a gift has one open presale at most, and its seller has not brought it into custody otherwise",
        """
        SELECT 'gift ' || gift_id FROM presales WHERE state IN ('registered', 'listed', 'sold')
        GROUP BY gift_id HAVING count(*) > 1
        UNION ALL
        SELECT presales.id::text FROM presales
        JOIN nfts ON nfts.gift_id = presales.gift_id AND nfts.state <> 'external'
        LEFT JOIN intakes ON intakes.message_ref = nfts.message_ref
        WHERE presales.state IN ('registered', 'listed', 'sold') AND sender_id IS NOT DISTINCT FROM seller_id
        """,
        "SELECT count(*) FROM presales WHERE state IN ('registered', 'listed', 'sold')",
    ),
    Invariant(
        "V22",
        "a channel being sold is reserved by exactly one requested purchase, and priced ones are on sale",
        """
        SELECT CASE WHEN channels.id IS NULL THEN purchases.id::text ELSE channels.id::text END
        FROM (SELECT * FROM channels WHERE state = 'selling') AS channels
        FULL JOIN (
            SELECT id, channel_id, count(*) OVER (PARTITION BY channel_id) AS rivals
            FROM channel_purchases WHERE state = 'requested'
        ) AS purchases ON purchases.id = reserved_by AND channel_id = channels.id
        WHERE channels.id IS NULL OR purchases.id IS NULL OR rivals > 1
        UNION ALL
        SELECT id::text FROM channels
        WHERE (price_nano IS NOT NULL) <> (state IN ('listed', 'selling'))
            OR (reserved_by IS NOT NULL) <> (state = 'selling')
        """,
        "SELECT count(*) FROM channels",
    ),
    Invariant(
        "V23",
        "every open document with a deadline has a timer for it, every request not yet attempted its expiry",
        f"""
        WITH timers AS (
            SELECT kind, {_ABOUT} AS id, run_at, payload ->> 'reason' AS reason
            FROM commands WHERE status IN ('scheduled', 'accepted') AND run_at IS NOT NULL
        )
        SELECT deadlines.kind || ' ' || deadlines.id FROM ({_DEADLINES}) AS deadlines
        LEFT JOIN timers ON timers.kind = deadlines.kind AND timers.id = deadlines.id
            AND run_at >= deadline + make_interval(secs => :timer_grace_seconds)
        WHERE timers.id IS NULL
        UNION ALL
        SELECT answers || '_fail ' || reference FROM gateway_requests
        LEFT JOIN timers ON timers.kind = answers || '_fail' AND timers.id = reference::text AND reason = 'expired'
        WHERE state = 'pending' AND attempts = 0 AND answers IN {_WITH_EXPIRY} AND timers.id IS NULL
        """,
        f"SELECT count(*) FROM ({_DEADLINES}) AS deadlines",
    ),
    Invariant(
        "V24",
        "every document that waits for the outside has one open request, or its answer is yet to be decided",
        f"""
        WITH answers AS (
            SELECT {_ABOUT} AS id FROM commands
            WHERE status = 'accepted' AND (kind LIKE '%\\_confirm' OR kind LIKE '%\\_fail')
        )
        SELECT document FROM ({_WAITING}) AS waiting
        LEFT JOIN gateway_requests USING (reference)
        GROUP BY document, reference
        HAVING count(op) <> 1 OR (
            bool_or(state IN ('done', 'refused', 'cancelled')) AND reference::text NOT IN (
                SELECT id FROM answers WHERE id IS NOT NULL))
        """,
        f"SELECT count(*) FROM ({_WAITING}) AS waiting",
    ),
    Invariant(
        "V28",
        "every document is opened by a command that succeeded, of the kind that opens it",
        f"""
        SELECT documents.id::text FROM ({_DOCUMENTS}) AS documents
        LEFT JOIN {ALL_COMMANDS} AS commands ON commands.id = documents.id
        WHERE CASE WHEN commands.id IS NULL THEN {PRESENT.format(id="documents.id")}
            ELSE status <> 'succeeded' OR kind = ANY(string_to_array(kinds, ' ')) IS NOT TRUE END
        """,
        f"SELECT count(*) FROM ({_DOCUMENTS}) AS documents",
    ),
)
