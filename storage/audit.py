"""The audit: proves from the tables that money and items are conserved.

Each invariant is a query that returns what breaks it, by id, and a figure that says how much it looked at. Needs only
read access.
"""

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

_SHOWN_MAX = 10


class Invariant(NamedTuple):
    """A statement, the query of what breaks it (one text column), and the query of its figure."""

    name: str
    statement: str
    broken: str
    figure: str


class Finding(NamedTuple):
    """An invariant as found. `broken` are the first of what breaks it."""

    name: str
    statement: str
    figure: int
    broken: list[str]


_SIDES = """
SELECT account, side, sum(amount) AS balance FROM (
    SELECT debit_account AS account, debit_side AS side, -amount_nano AS amount FROM postings
    UNION ALL
    SELECT credit_account, credit_side, amount_nano FROM postings
) AS sides GROUP BY account, side
"""

INVARIANTS = (
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
        WITH posted AS ({_SIDES}), kept AS (
            SELECT id AS account, 'available' AS side, available_nano AS balance FROM accounts
            UNION ALL SELECT id, 'held', held_nano FROM accounts
        )
        SELECT coalesce(posted.account, kept.account) || ' ' || coalesce(posted.side, kept.side)
        FROM posted FULL JOIN kept ON posted.account = kept.account AND posted.side = kept.side
        WHERE coalesce(posted.balance, 0) <> coalesce(kept.balance, 0)
            OR (kept.account IS NULL AND posted.balance IS NOT NULL)
        """,  # noqa: S608 - constant
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
        "SELECT id::text FROM accounts WHERE id > 0 AND held_nano <> 0",
        "SELECT coalesce(sum(held_nano), 0)::bigint FROM accounts",
    ),
    Invariant(
        "V7",
        "every posting, deal and event is of a command that succeeded",
        """
        SELECT DISTINCT effects.command_id::text FROM (
            SELECT command_id FROM postings UNION SELECT id FROM deals UNION SELECT command_id FROM events
        ) AS effects
        LEFT JOIN commands ON commands.id = effects.command_id
        WHERE commands.status IS DISTINCT FROM 'succeeded'
        """,
        "SELECT count(*) FROM commands WHERE status = 'succeeded'",
    ),
    Invariant(
        "V8",
        "every deal's price is the seller's part and the fee, rounded down",
        """
        SELECT id::text FROM deals
        WHERE price_nano IS NOT NULL AND (
            price_nano <> fee_nano + seller_nano OR seller_id = buyer_id
            OR fee_nano::numeric <> div(price_nano::numeric * fee_bp, 10000)
        )
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
        "V11",
        "the fees account is the sum of all fees",
        """
        SELECT id::text FROM accounts
        WHERE id = -1 AND available_nano <> (SELECT coalesce(sum(fee_nano), 0) FROM deals)
        """,
        "SELECT coalesce(sum(fee_nano), 0)::bigint FROM deals",
    ),
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
        """,
        "SELECT count(*) FROM nfts",
    ),
    Invariant(
        "V27",
        "intakes, deals and transfers of an item, in order, lead to its owner without a gap",
        """
        WITH moves AS (
            SELECT intakes.nft_id, NULL::bigint AS from_id, sender_id AS to_id, commands.seq
            FROM intakes JOIN commands ON commands.id = intakes.command_id
            UNION ALL
            SELECT deal_items.nft_id,
                CASE direction WHEN 'to_buyer' THEN seller_id ELSE buyer_id END,
                CASE direction WHEN 'to_buyer' THEN buyer_id ELSE seller_id END, commands.seq
            FROM deal_items JOIN deals ON deals.id = deal_items.deal_id JOIN commands ON commands.id = deals.id
            WHERE deal_items.nft_id IS NOT NULL
            UNION ALL
            SELECT (payload ->> 'nft_id')::bigint, actor, (payload ->> 'to_user_id')::bigint, seq
            FROM commands WHERE kind = 'nft.transfer' AND status = 'succeeded'
        ), chain AS (
            SELECT nft_id, from_id, to_id,
                lag(to_id) OVER item AS owner_before, lead(seq) OVER item AS next_seq
            FROM moves WINDOW item AS (PARTITION BY nft_id ORDER BY seq)
        )
        SELECT nfts.id::text FROM nfts
        LEFT JOIN chain ON chain.nft_id = nfts.id
        WHERE chain.nft_id IS NULL OR (from_id IS NOT NULL AND from_id IS DISTINCT FROM owner_before)
            OR (next_seq IS NULL AND state <> 'external' AND to_id IS DISTINCT FROM owner_id)
        """,
        "SELECT count(*) FROM nfts",
    ),
    Invariant(
        "V28",
        "every document is opened by a command that succeeded, of the kind that opens it",
        """
        SELECT documents.id::text FROM (
            SELECT id, 'market.deposit' AS kind FROM deposits UNION ALL SELECT command_id, 'nft.receive' FROM intakes
        ) AS documents
        LEFT JOIN commands ON commands.id = documents.id AND commands.kind = documents.kind
        WHERE commands.status IS DISTINCT FROM 'succeeded'
        """,
        "SELECT count(*) FROM commands",
    ),
)


async def audit(engine: AsyncEngine) -> list[Finding]:
    """Every invariant as found in one snapshot of the database."""
    findings = []
    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="REPEATABLE READ")
        for name, statement, broken, figure in INVARIANTS:
            rows = await connection.scalars(text(broken))
            found = [str(row) for row in rows.fetchmany(_SHOWN_MAX)]
            findings.append(Finding(name, statement, int(await connection.scalar(text(figure)) or 0), found))
    return findings
