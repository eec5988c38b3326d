"""Invariants of items: custody, reservations, what hangs on them, and the path of every owner."""

from storage.audit.invariant import ALL_COMMANDS, Invariant

# Every change of owner, with the event that tells its place in the order of execution: events get their numbers while
# the item's row is locked, which neither the journal's numbers nor the times of batches do. A delivered presale is two
# steps of one command: the gift comes in, and then is its buyer's.
_MOVES = f"""
SELECT nft_id, NULL::bigint AS from_id, sender_id AS to_id, command_id, 0 AS step FROM intakes
UNION ALL
SELECT deal_items.nft_id,
    CASE direction WHEN 'to_buyer' THEN seller_id ELSE buyer_id END,
    CASE direction WHEN 'to_buyer' THEN buyer_id ELSE seller_id END, deals.id, 1
FROM deal_items JOIN deals ON deals.id = deal_items.deal_id WHERE deal_items.nft_id IS NOT NULL
UNION ALL
SELECT (payload ->> 'nft_id')::bigint, actor, (payload ->> 'to_user_id')::bigint, id, 1
FROM {ALL_COMMANDS} AS commands WHERE kind = 'nft.transfer' AND status = 'succeeded'
UNION ALL
SELECT returns.nft_id, returns.user_id, NULL, commands.id, 1
FROM {ALL_COMMANDS} AS commands JOIN returns ON returns.id = (payload ->> 'return_id')::uuid
WHERE kind = 'nft.return_confirm' AND status = 'succeeded'
"""
_MOVED = "('nft.received', 'deal.made', 'nft.transferred', 'nft.returned')"


def _reservation(nft_state: str, table: str, document_state: str, user: str) -> str:
    """What breaks: items in the state are reserved by exactly one such document of their owner, and the reverse."""
    return f"""
    SELECT CASE WHEN nfts.id IS NULL THEN documents.id::text ELSE nfts.id::text END
    FROM (SELECT * FROM nfts WHERE state = '{nft_state}') AS nfts
    FULL JOIN (
        SELECT id, nft_id, {user}, count(*) OVER (PARTITION BY nft_id) AS rivals
        FROM {table} WHERE state = '{document_state}'
    ) AS documents
    ON documents.id = nfts.reserved_by AND documents.nft_id = nfts.id AND documents.{user} = nfts.owner_id
    WHERE nfts.id IS NULL OR documents.id IS NULL OR rivals > 1
    """


ITEM_INVARIANTS = (
    Invariant(
        "V12",
        "every deposit, intake and gift in custody is there once",
        """
        SELECT 'deposit ' || hash FROM deposits GROUP BY wallet, logical_time, hash HAVING count(*) > 1
        UNION ALL SELECT 'intake ' || message_ref FROM intakes GROUP BY message_ref HAVING count(*) > 1
        UNION ALL SELECT 'gift ' || gift_id FROM nfts GROUP BY gift_id HAVING count(*) > 1
        """,
        "SELECT count(*) FROM intakes",
    ),
    Invariant(
        "V13",
        "an item is priced while listed, ownerless while external, reserved while another document has it",
        """
        SELECT id::text FROM nfts
        WHERE (price_nano IS NOT NULL) <> (state = 'listed') OR (fee_bp IS NOT NULL) <> (state = 'listed')
            OR (owner_id IS NULL) <> (state = 'external')
            OR (reserved_by IS NOT NULL) <> (state IN ('on_auction', 'in_bundle', 'withdrawing'))
            OR (reserved_kind IS NOT NULL) <> (state IN ('on_auction', 'in_bundle', 'withdrawing'))
        """,
        "SELECT count(*) FROM nfts",
    ),
    Invariant(
        "V14",
        "an item on auction is reserved by exactly one active auction of its owner",
        _reservation("on_auction", "auctions", "active", "seller_id"),
        "SELECT count(*) FROM nfts WHERE state = 'on_auction'",
    ),
    Invariant(
        "V16",
        "an item being withdrawn is reserved by exactly one requested return of its owner",
        _reservation("withdrawing", "returns", "requested", "user_id"),
        "SELECT count(*) FROM nfts WHERE state = 'withdrawing'",
    ),
    Invariant(
        "V17",
        "an open offer is for a free item, to its owner, and the only one of its author",
        """
        SELECT offers.id::text FROM offers LEFT JOIN nfts ON nfts.id = offers.nft_id
        WHERE offers.state = 'open' AND (
            nfts.state IS NULL OR nfts.state NOT IN ('held', 'listed')
            OR nfts.owner_id = author_id OR nfts.owner_id IS DISTINCT FROM offers.owner_id)
        UNION ALL
        SELECT min(id::text) FROM offers WHERE state = 'open' GROUP BY nft_id, author_id HAVING count(*) > 1
        """,
        "SELECT count(*) FROM offers WHERE state = 'open'",
    ),
    Invariant(
        "V18",
        "items of an open trade or proposal are free and their party's, and an open proposal's trade is open",
        """
        SELECT documents.id || coalesce(' ' || items.nft_id, '')
        FROM (
            SELECT id, owner_id AS party_id FROM trades WHERE state = 'open'
            UNION ALL SELECT id, author_id FROM proposals WHERE state = 'open'
        ) AS documents
        LEFT JOIN (
            SELECT trade_id AS document_id, nft_id FROM trade_items WHERE closed_at IS NULL
            UNION ALL SELECT proposal_id, nft_id FROM proposal_items WHERE closed_at IS NULL
        ) AS items ON items.document_id = documents.id
        LEFT JOIN nfts ON nfts.id = items.nft_id
        WHERE nfts.id IS NULL OR nfts.owner_id IS DISTINCT FROM party_id OR nfts.state NOT IN ('held', 'listed')
        UNION ALL
        SELECT proposals.id::text FROM proposals LEFT JOIN trades ON trades.id = trade_id
        WHERE proposals.state = 'open' AND trades.state IS DISTINCT FROM 'open'
        UNION ALL
        SELECT trade_id || ' ' || nft_id FROM trade_items JOIN trades ON trades.id = trade_id
        WHERE (trade_items.closed_at IS NULL) <> (state = 'open')
        UNION ALL
        SELECT proposal_id || ' ' || nft_id FROM proposal_items JOIN proposals ON proposals.id = proposal_id
        WHERE (proposal_items.closed_at IS NULL) <> (state = 'open')
        """,
        "SELECT (SELECT count(*) FROM trades WHERE state = 'open')"
        " + (SELECT count(*) FROM proposals WHERE state = 'open')",
    ),
    Invariant(
        "V27",
        "intakes, deals, transfers and returns of an item, in order, lead to its owner without a gap",
        f"""
        WITH told AS (
            SELECT command_id, min(id) AS place FROM events WHERE name IN {_MOVED} GROUP BY command_id
        ), chain AS (
            SELECT nft_id, from_id, to_id,
                lag(to_id) OVER item AS owner_before, lead(nft_id) OVER item IS NULL AS is_last
            FROM ({_MOVES}) AS moves LEFT JOIN told USING (command_id)
            WINDOW item AS (PARTITION BY nft_id ORDER BY place, step)
        )
        SELECT DISTINCT coalesce(nfts.id, chain.nft_id)::text FROM nfts
        FULL JOIN chain ON chain.nft_id = nfts.id
        WHERE nfts.id IS NULL OR chain.nft_id IS NULL OR from_id IS DISTINCT FROM owner_before
            OR (is_last AND to_id IS DISTINCT FROM owner_id)
        """,
        "SELECT count(*) FROM nfts",
    ),
)
