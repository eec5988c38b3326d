"""A marketplace of a million items in custody and 200,000 listings, made by SQL in well under a minute.

Traits are spread as in life: a few collections, models and backdrops are common, most are rare, and the rare ones cost
more. Some users own, sell and bid very much more than others: user 1 most of all.
"""

from storage.settings import Settings
from tests.installation import connected

ITEMS = 1_000_000
LISTED = 200_000
USERS = 20_000
PRESALES = 10_000
RARE = "Rare Thing"
"""A collection of 50 items, 10 of them listed."""

_TRAITS = "collection, num, model, pattern, backdrop, model_permille"
_ID = "('0197b0c4-0000-7000-8000-' || lpad(to_hex({}), 12, '0'))::uuid"


def _id(number: str) -> str:
    return _ID.format(number)


GIFTS = f"""
INSERT INTO gifts (id, collection, num, model, pattern, backdrop, model_permille, pattern_permille, backdrop_permille,
    center_color, edge_color, pattern_color, text_color, slug)
SELECT id, CASE WHEN id % 20000 = 5 THEN '{RARE}' ELSE 'Collection ' || collection END, num,
    CASE WHEN model = 0 THEN 'Original' ELSE 'Model ' || collection || '-' || model END,
    'Pattern ' || pattern, 'Backdrop ' || backdrop, 30 - model / 2, 20 - pattern / 13, 20 - backdrop / 4,
    1, 2, 3, 4, 'slug-' || id
FROM (
    SELECT id, floor(100 * random() ^ 2.5)::int AS collection, floor(60 * random() ^ 2)::int AS model,
        floor(250 * random() ^ 1.5)::int AS pattern, floor(80 * random() ^ 2)::int AS backdrop,
        1 + floor(400000 * random())::int AS num
    FROM generate_series(1, {ITEMS} + {PRESALES}) AS id
) AS made
"""
NFTS = f"""
INSERT INTO nfts (id, gift_id, owner_id, state, reserved_by, reserved_kind, price_nano, fee_bp, listed_at, hanging,
    collection, num, model, pattern, backdrop, model_permille, opened_at)
SELECT id, id, owner, state, CASE state WHEN 'on_auction' THEN {_id("id")} END,
    CASE state WHEN 'on_auction' THEN 'auction' END, CASE state WHEN 'listed' THEN price END,
    CASE state WHEN 'listed' THEN 100 END, CASE state WHEN 'listed' THEN received + interval '1 day' END, false,
    collection, num, model, pattern, backdrop, model_permille, received
FROM (
    SELECT gifts.*, 1 + floor({USERS} * random() ^ 3)::bigint AS owner,
        CASE WHEN id % 5 = 0 THEN 'listed' WHEN id % 100 = 7 THEN 'on_auction' ELSE 'held' END AS state,
        (1e9 * (51 - model_permille - backdrop_permille) ^ 2 * (0.2 + random()))::bigint AS price,
        now() - interval '100 days' * (1 - id / 1000001.0) AS received
    FROM gifts WHERE id <= {ITEMS}
) AS made
"""
AUCTIONS = f"""
INSERT INTO auctions (id, nft_id, seller_id, start_nano, current_nano, bid_count, step_bp, fee_bp, ends_at,
    planned_ends_at, state, opened_at, {_TRAITS})
SELECT reserved_by, id, owner_id, 1000000000, 1000000000 + id * 1000, id / 100 % 5, 1000, 500, ends, ends, 'active',
    now() - interval '1 hour' * random(), {_TRAITS}
FROM nfts, LATERAL (SELECT now() + interval '7 days' * (0.1 + random()) AS ends) AS drawn WHERE state = 'on_auction'
"""
BIDS = f"""
INSERT INTO bids (id, auction_id, bidder_id, amount_nano, held_nano, state, opened_at, closed_at)
SELECT {_id("nft_id * 16 + number")}, id, 1 + floor({USERS} * random() ^ 3)::bigint, current_nano - number,
    CASE number WHEN 1 THEN current_nano - number ELSE 0 END, CASE number WHEN 1 THEN 'leading' ELSE 'outbid' END,
    now(), CASE number WHEN 1 THEN NULL ELSE now() END
FROM auctions CROSS JOIN generate_series(1, 5) AS number WHERE number <= bid_count
"""
PRESALES_MADE = f"""
INSERT INTO presales (id, gift_id, seller_id, price_nano, fee_bp, deposit_bp, penalty_bp, deposit_held_nano,
    buyer_held_nano, transferable_at, deadline_at, state, opened_at, {_TRAITS})
SELECT {_id("id")}, id, 1 + id % {USERS}, id * 1000, 0, 2000, 1000, id * 1000 * 2000 / 10000, 0,
    now() + interval '9 days', now() + interval '11 days', 'listed', now() - interval '1 day' * random(),
    {_TRAITS}
FROM gifts WHERE id > {ITEMS}
"""
OFFERS = f"""
INSERT INTO offers (id, nft_id, owner_id, author_id, price_nano, fee_bp, held_nano, state, expires_at, updated_at,
    opened_at, closed_at)
SELECT {_id("number")}, nfts.id, nfts.owner_id, author, 1000000000, 100,
    CASE WHEN number % 10 = 0 THEN 1000000000 ELSE 0 END, CASE WHEN number % 10 = 0 THEN 'open' ELSE 'expired' END,
    now() + interval '1 day', at, at, CASE WHEN number % 10 = 0 THEN NULL ELSE at END
FROM (
    SELECT number, 1 + floor({USERS} * random() ^ 3)::bigint AS author, now() - interval '30 days' * random() AS at
    FROM generate_series(1, 100000) AS number
) AS made JOIN nfts ON nfts.id = number * 5 WHERE author <> owner_id
"""
DEALS = f"""
INSERT INTO deals (id, source, seller_id, buyer_id, price_nano, fee_bp, fee_nano, seller_nano, made_at)
SELECT {_id("number")}, (ARRAY['sale', 'sale', 'sale', 'offer', 'auction', 'presale', 'trade'])[1 + number % 7], seller,
    CASE WHEN buyer = seller THEN seller + 1 ELSE buyer END, 1000000000, 100, 10000000, 990000000,
    now() - interval '1 minute' * (200000 - number)
FROM (
    SELECT number, 1 + floor({USERS} * random() ^ 3)::bigint AS seller,
        1 + floor({USERS} * random() ^ 3)::bigint AS buyer
    FROM generate_series(1, 200000) AS number
) AS made
"""
DEAL_ITEMS = f"""
INSERT INTO deal_items (deal_id, nft_id, gift_id, quantity, direction)
SELECT {_id("number")}, number, number, 1, 'to_buyer' FROM generate_series(1, 200000) AS number
"""
POSTINGS = f"""
INSERT INTO postings (command_id, debit_account, debit_side, credit_account, credit_side, amount_nano,
    debit_balance_nano, credit_balance_nano, document_kind, document_id, at)
SELECT {_id("number")}, debit, 'available', CASE WHEN number % 3 = 0 THEN debit ELSE 1 + (debit * 7) % {USERS} END,
    CASE WHEN number % 3 = 0 THEN 'held' ELSE 'available' END, 1000, 5000, 6000,
    CASE WHEN number % 3 = 0 THEN 'offer' ELSE 'deal' END, {_id("number")}::text,
    now() - interval '1 minute' * (400000 - number)
FROM (
    SELECT number, 2 + floor(({USERS} - 1) * random() ^ 3)::bigint AS debit FROM generate_series(1, 400000) AS number
) AS made WHERE debit <> 1 + (debit * 7) % {USERS}
"""
TRADES = f"""
INSERT INTO trades (id, owner_id, receiver_id, requirements, fee_bp, state, opened_at, wants_collections,
    wants_backdrops)
SELECT {_id("number")}, 1 + number % 1000, CASE WHEN number % 10 = 0 THEN 1001 + number % 1000 END,
    json_build_array(json_build_object('collection', 'Collection ' || (number % 100),
        'backdrop', CASE WHEN number % 3 = 0 THEN 'Backdrop ' || (number % 80) END)),
    200, 'open', now() - interval '1 minute' * number, ARRAY['Collection ' || (number % 100)],
    CASE WHEN number % 3 = 0 THEN ARRAY['Backdrop ' || (number % 80)] END
FROM generate_series(1, 20000) AS number
"""
TRADE_ITEMS = f"""
INSERT INTO trade_items (trade_id, nft_id, opened_at, {_TRAITS})
SELECT {_id("number")}, id, now(), {_TRAITS}
FROM generate_series(1, 20000) AS number, LATERAL (SELECT * FROM generate_series(1, 3) AS item JOIN nfts
    ON id = 3 + number * 30 + 100 * item) AS given
"""
PROPOSALS = f"""
INSERT INTO proposals (id, trade_id, owner_id, author_id, state, opened_at)
SELECT {_id("number")}, {_id("number")}, 1 + number % 1000, 2001 + number % 100, 'open',
    now() - interval '1 minute' * number
FROM generate_series(1, 20000) AS number
"""
PROPOSAL_ITEMS = f"""
INSERT INTO proposal_items (proposal_id, nft_id, opened_at)
SELECT {_id("number")}, 4 + number * 30 + 100 * item, now()
FROM generate_series(1, 20000) AS number, generate_series(1, 3) AS item
"""
CHANNELS = f"""
INSERT INTO telegram_accounts (id, user_id, phone, stars, premium, state, connected_at, opened_at)
SELECT {_id("number")}, number, '+' || 10000000 + number, 0, false, 'connected', now(), now()
FROM generate_series(1, 5000) AS number;
INSERT INTO channels (id, owner_id, account_id, check_id, title, gifts, gifts_hash, price_nano, fee_bp, state,
    opened_at)
SELECT number, number, {_id("number")}, {_id("number")}, 'Channel ' || number,
    (SELECT json_agg(json_build_object('gift_id', (number * 200 + item)::text, 'quantity', 1))
     FROM generate_series(0, 9) AS item), 'hash', number::bigint * 1000000, 100, 'listed',
    now() - interval '1 minute' * number
FROM generate_series(1, 5000) AS number;
INSERT INTO channel_gifts (channel_id, gift_id, quantity, {_TRAITS})
SELECT number, id, 1, {_TRAITS}
FROM generate_series(1, 5000) AS number, LATERAL (SELECT * FROM generate_series(0, 9) AS item JOIN gifts
    ON id = number * 200 + item) AS held
"""
MONEY = f"""
INSERT INTO deposits (wallet, logical_time, hash, id, amount_nano, memo, user_id, state, opened_at, closed_at)
SELECT 'wallet', number, 'hash', {_id("number")}, 1000, '', CASE WHEN number % 50 > 0 THEN 1 + number % 1000 END,
    CASE WHEN number % 50 > 0 THEN 'credited' ELSE 'unclaimed' END, now() - interval '1 minute' * number,
    CASE WHEN number % 50 > 0 THEN now() END
FROM generate_series(1, 20000) AS number;
INSERT INTO withdrawals (id, user_id, amount_nano, fee_nano, held_nano, address, state, opened_at)
SELECT {_id("number")}, 1 + number % 1000, 1000000000, 10000000, 1000000000, 'address', 'requested',
    now() - interval '1 minute' * number
FROM generate_series(1, 20000) AS number;
INSERT INTO gateway_requests (reference, op, account, body, names, state, attempts, opened_at, closed_at)
SELECT {_id("number")}, 'ton.pay', 'wallet', '{{}}', '{{}}',
    CASE WHEN number % 100 = 0 THEN 'unknown' ELSE 'done' END, 1,
    now() - interval '1 minute' * number, CASE WHEN number % 100 > 0 THEN now() END
FROM generate_series(1, 20000) AS number
"""
FLOORS = """
INSERT INTO floor_points (market, collection, model, price_nano, recorded_at)
SELECT 'souk', 'Collection ' || collection, '', 1000000000 + floor(1e9 * random())::bigint,
    now() - interval '10 minutes' * number
FROM generate_series(1, 4320) AS number, generate_series(0, 29) AS collection;
INSERT INTO floors (market, collection, model, price_nano, recorded_at)
SELECT market, collection, name, 1000000000, now() FROM traits, (VALUES ('souk'), ('other'), ('third')) AS m (market)
WHERE trait = 'model';
INSERT INTO floors (market, collection, model, price_nano, recorded_at)
SELECT 'souk', collection, '', 900000000, now() FROM traits WHERE trait = 'collection'
"""
TRAITS = """
INSERT INTO traits (trait, collection, name, count, permille, center_color, edge_color, pattern_color, text_color)
SELECT trait, collection, name, sum(items), min(permille), 1, 2, 3, 4 FROM (
    SELECT collection, model, pattern, backdrop, count(*) AS items, min(model_permille) AS permille
    FROM nfts GROUP BY 1, 2, 3, 4
) AS counted CROSS JOIN LATERAL (VALUES ('collection', collection), ('model', model), ('pattern', pattern),
    ('backdrop', backdrop)) AS t (trait, name)
GROUP BY 1, 2, 3
"""
PEOPLE = f"""
INSERT INTO users (id, language, memo, blocked, opened_at) SELECT id, 'en', 'memo-' || id, false, now()
FROM generate_series(1, {USERS} + 1) AS id;
INSERT INTO accounts (id, available_nano, held_nano) SELECT id, 0, 0 FROM generate_series(1, {USERS} + 1) AS id
"""
_STEPS = (
    *(PEOPLE, GIFTS, NFTS, AUCTIONS, BIDS, PRESALES_MADE, OFFERS, DEALS, DEAL_ITEMS, POSTINGS),
    *(TRADES, TRADE_ITEMS, PROPOSALS, PROPOSAL_ITEMS, CHANNELS, MONEY, TRAITS, FLOORS),
)


async def fill(settings: Settings) -> None:
    """Fill the empty installation: indexes are made at the end, and no trigger runs meanwhile."""
    async with connected(settings) as connection:
        await connection.execute("SET session_replication_role = replica; SELECT setseed(0.5)")
        await connection.execute(
            "SET synchronous_commit = off; SET maintenance_work_mem = '256MB'; SET work_mem = '64MB'"
        )
        indexes = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
            " AND indexname NOT IN (SELECT conname FROM pg_constraint)"
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['indexname']}")
        for step in _STEPS:
            await connection.execute(step)
        for index in indexes:
            await connection.execute(index["indexdef"])
        await connection.execute("VACUUM (ANALYZE)")
