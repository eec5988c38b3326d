"""The whole marketplace."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COPIED: dict[str, sa.types.TypeEngine[Any]] = {
    "collection": sa.Text(),
    "num": sa.Integer(),
    "model": sa.Text(),
    "pattern": sa.Text(),
    "backdrop": sa.Text(),
    "model_permille": sa.SmallInteger(),
}


# What the market counts. Items enter custody by being inserted or by coming back from outside, and leave it by going
# there; buying and pricing them touches nothing here.
_TRAITS = """
SELECT t.trait, t.collection, t.name, t.permille,
    CASE t.trait WHEN 'backdrop' THEN gifts.center_color END AS center_color,
    CASE t.trait WHEN 'backdrop' THEN gifts.edge_color END AS edge_color,
    CASE t.trait WHEN 'backdrop' THEN gifts.pattern_color END AS pattern_color,
    CASE t.trait WHEN 'backdrop' THEN gifts.text_color END AS text_color
FROM {items} AS item JOIN gifts ON gifts.id = item.gift_id CROSS JOIN LATERAL (VALUES
    ('collection', item.collection, item.collection, NULL::smallint),
    ('model', item.collection, item.model, gifts.model_permille),
    ('pattern', item.collection, item.pattern, gifts.pattern_permille),
    ('backdrop', item.collection, item.backdrop, gifts.backdrop_permille)
) AS t (trait, collection, name, permille)
WHERE item.state <> 'external'
"""
# In one order, so that batches that receive the same gifts do not wait for each other in a circle.
_COUNT = """
INSERT INTO traits AS counted
    (trait, collection, name, count, permille, center_color, edge_color, pattern_color, text_color)
SELECT trait, collection, name, count(*), min(permille),
    min(center_color), min(edge_color), min(pattern_color), min(text_color)
FROM ({traits}) AS found GROUP BY trait, collection, name ORDER BY trait, collection, name
ON CONFLICT (trait, collection, name) DO UPDATE SET count = counted.count + excluded.count,
    permille = excluded.permille, center_color = excluded.center_color, edge_color = excluded.edge_color,
    pattern_color = excluded.pattern_color, text_color = excluded.text_color
"""
_PROJECTIONS = (
    _COUNT.format(traits=_TRAITS.format(items="nfts")),
    f"""
CREATE FUNCTION count_traits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {_COUNT.format(traits=_TRAITS.format(items="received"))};
    RETURN NULL;
END $$
""",
    f"""
CREATE FUNCTION count_traits_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'external' THEN
        UPDATE traits SET count = count - 1
        WHERE collection = OLD.collection AND (trait, name) IN (('collection', OLD.collection), ('model', OLD.model),
            ('pattern', OLD.pattern), ('backdrop', OLD.backdrop));
    ELSE
        {_COUNT.format(traits=_TRAITS.format(items="(SELECT NEW.*)"))};
    END IF;
    RETURN NULL;
END $$
""",  # noqa: S608 - constants
    """
CREATE TRIGGER count_traits AFTER INSERT ON nfts REFERENCING NEW TABLE AS received
FOR EACH STATEMENT EXECUTE FUNCTION count_traits()
""",
    """
CREATE TRIGGER count_traits_again AFTER UPDATE OF state ON nfts FOR EACH ROW
WHEN ((OLD.state = 'external') IS DISTINCT FROM (NEW.state = 'external')) EXECUTE FUNCTION count_traits_again()
""",
    """
CREATE FUNCTION spread_channel_gifts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM channel_gifts WHERE channel_id = NEW.id;
    INSERT INTO channel_gifts (channel_id, gift_id, quantity, collection, num, model, pattern, backdrop, model_permille)
    SELECT NEW.id, held.id, held.quantity, collection, num, model, pattern, backdrop, model_permille
    FROM (
        SELECT (gift ->> 'gift_id')::bigint AS id, sum((gift ->> 'quantity')::integer) AS quantity
        FROM json_array_elements(NEW.gifts) AS gift GROUP BY 1
    ) AS held LEFT JOIN gifts USING (id);
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER spread_channel_gifts AFTER INSERT OR UPDATE OF gifts ON channels
FOR EACH ROW EXECUTE FUNCTION spread_channel_gifts()
""",
    # The item is in custody already, but the gift of a presale may come with the same statement.
    """
CREATE FUNCTION copy_traits_of_nft() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT collection, num, model, pattern, backdrop, model_permille
    INTO NEW.collection, NEW.num, NEW.model, NEW.pattern, NEW.backdrop, NEW.model_permille
    FROM nfts WHERE id = NEW.nft_id;
    RETURN NEW;
END $$
""",
    """
CREATE TRIGGER copy_traits BEFORE INSERT ON auctions FOR EACH ROW EXECUTE FUNCTION copy_traits_of_nft()
""",
    """
CREATE TRIGGER copy_traits BEFORE INSERT ON trade_items FOR EACH ROW EXECUTE FUNCTION copy_traits_of_nft()
""",
    """
CREATE FUNCTION copy_wants() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT array_agg(DISTINCT wanted ->> 'collection'), array_agg(DISTINCT wanted ->> 'backdrop')
    INTO NEW.wants_collections, NEW.wants_backdrops FROM json_array_elements(NEW.requirements) AS wanted;
    RETURN NEW;
END $$
""",
    """
CREATE TRIGGER copy_wants BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION copy_wants()
""",
    """
CREATE FUNCTION copy_traits_of_gift() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE presales SET collection = gifts.collection, num = gifts.num, model = gifts.model, pattern = gifts.pattern,
        backdrop = gifts.backdrop, model_permille = gifts.model_permille
    FROM gifts WHERE gifts.id = NEW.gift_id AND presales.id = NEW.id;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER copy_traits AFTER INSERT ON presales FOR EACH ROW EXECUTE FUNCTION copy_traits_of_gift()
""",
    """
CREATE VIEW holds AS
SELECT 'offer' AS document_kind, id::text AS document_id, author_id AS user_id, held_nano AS amount_nano
FROM offers WHERE held_nano > 0
UNION ALL SELECT 'bid', id::text, bidder_id, held_nano FROM bids WHERE held_nano > 0
UNION ALL SELECT 'presale', id::text, seller_id, deposit_held_nano FROM presales WHERE deposit_held_nano > 0
UNION ALL SELECT 'presale', id::text, buyer_id, buyer_held_nano FROM presales WHERE buyer_held_nano > 0
UNION ALL SELECT 'withdrawal', id::text, user_id, held_nano FROM withdrawals WHERE held_nano > 0
UNION ALL SELECT 'return', id::text, user_id, held_nano FROM returns WHERE held_nano > 0
UNION ALL SELECT 'channel_purchase', id::text, buyer_id, held_nano FROM channel_purchases WHERE held_nano > 0
""",
)
_UNDONE = (
    "DROP VIEW holds",
    "DROP TRIGGER copy_traits ON presales",
    "DROP FUNCTION copy_traits_of_gift",
    "DROP TRIGGER copy_wants ON trades",
    "DROP FUNCTION copy_wants",
    "DROP TRIGGER copy_traits ON trade_items",
    "DROP TRIGGER copy_traits ON auctions",
    "DROP FUNCTION copy_traits_of_nft",
    "DROP TRIGGER spread_channel_gifts ON channels",
    "DROP FUNCTION spread_channel_gifts",
    "DROP TRIGGER count_traits_again ON nfts",
    "DROP TRIGGER count_traits ON nfts",
    "DROP FUNCTION count_traits_again",
    "DROP FUNCTION count_traits",
)


def upgrade() -> None:
    op.create_table(
        "floor_points",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("price_nano", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("floor_points_pkey")),
    )
    op.create_index(
        "floor_points_chart_idx",
        "floor_points",
        [
            "collection",
            "model",
            sa.literal_column("date_bin('01:00:00'::interval, recorded_at, '1970-01-01 00:00:00+00'::timestamptz)"),
            "price_nano",
        ],
        unique=False,
    )
    op.create_table(
        "floors",
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("price_nano", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("market", "collection", "model", name=op.f("floors_pkey")),
    )
    op.create_index("floors_collection_idx", "floors", ["collection", "model"], unique=False)
    op.create_table(
        "gateway_log",
        sa.Column("reference", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("milliseconds", sa.Integer(), nullable=True),
        sa.CheckConstraint("call IN ('perform', 'lookup')", name=op.f("gateway_log_call_check")),
        sa.CheckConstraint(
            "outcome IN ('done', 'refused', 'unknown', 'never_seen')", name=op.f("gateway_log_outcome_check")
        ),
        sa.PrimaryKeyConstraint("reference", "number", name=op.f("gateway_log_pkey")),
    )
    op.create_table(
        "gateway_requests",
        sa.Column("reference", sa.Uuid(), nullable=False),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("answers", sa.Text(), nullable=True),
        sa.Column("names", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lookups", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('done', 'refused', 'cancelled')) = (closed_at IS NOT NULL)",
            name=op.f("gateway_requests_open_check"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'sent', 'unknown', 'never_seen', 'done', 'refused', 'cancelled')",
            name=op.f("gateway_requests_state_check"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("gateway_requests_attempts_check")),
        sa.PrimaryKeyConstraint("reference", name=op.f("gateway_requests_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_index(
        "gateway_requests_due_idx",
        "gateway_requests",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("gateway_requests_state_idx", "gateway_requests", ["state", "opened_at", "reference"], unique=False)
    op.create_table(
        "sandbox_effects",
        sa.Column("reference", sa.Uuid(), nullable=False),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("answer", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("calls", sa.Integer(), server_default="1", nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("outcome IN ('done', 'refused')", name=op.f("sandbox_effects_outcome_check")),
        sa.PrimaryKeyConstraint("reference", name=op.f("sandbox_effects_pkey")),
    )
    op.create_table(
        "sandbox_faults",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("op", sa.Text(), server_default="*", nullable=False),
        sa.Column("fault", sa.Text(), nullable=False),
        sa.Column("remaining", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.CheckConstraint(
            "fault IN ('slow', 'refuse', 'lose_request', 'lose_answer', 'duplicate', 'down')",
            name=op.f("sandbox_faults_fault_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("sandbox_faults_pkey")),
    )
    op.create_table(
        "traits",
        sa.Column("trait", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("permille", sa.SmallInteger(), nullable=True),
        sa.Column("center_color", sa.Integer(), nullable=True),
        sa.Column("edge_color", sa.Integer(), nullable=True),
        sa.Column("pattern_color", sa.Integer(), nullable=True),
        sa.Column("text_color", sa.Integer(), nullable=True),
        sa.CheckConstraint("trait IN ('collection', 'model', 'pattern', 'backdrop')", name=op.f("traits_trait_check")),
        sa.CheckConstraint("count >= 0", name=op.f("traits_count_check")),
        sa.PrimaryKeyConstraint("trait", "collection", "name", name=op.f("traits_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_index(
        "traits_name_idx",
        "traits",
        ["trait", "name", "collection"],
        unique=False,
        postgresql_include=["count", "permille", "center_color", "edge_color", "pattern_color", "text_color"],
    )
    op.create_table(
        "presales",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("gift_id", sa.BigInteger(), nullable=False),
        sa.Column("seller_id", sa.BigInteger(), nullable=False),
        sa.Column("price_nano", sa.BigInteger(), nullable=True),
        sa.Column("fee_bp", sa.SmallInteger(), nullable=True),
        sa.Column("deposit_bp", sa.SmallInteger(), nullable=True),
        sa.Column("penalty_bp", sa.SmallInteger(), nullable=True),
        sa.Column("deposit_held_nano", sa.BigInteger(), nullable=False),
        sa.Column("buyer_id", sa.BigInteger(), nullable=True),
        sa.Column("buyer_held_nano", sa.BigInteger(), nullable=False),
        sa.Column("transferable_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("collection", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("pattern", sa.Text(), nullable=True),
        sa.Column("backdrop", sa.Text(), nullable=True),
        sa.Column("num", sa.Integer(), nullable=True),
        sa.Column("model_permille", sa.SmallInteger(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('registered', 'listed', 'sold')) = (closed_at IS NULL)", name=op.f("presales_open_check")
        ),
        sa.CheckConstraint(
            "buyer_held_nano = CASE state WHEN 'sold' THEN price_nano ELSE 0 END",
            name=op.f("presales_buyer_held_check"),
        ),
        sa.CheckConstraint(
            "deposit_held_nano = CASE WHEN state IN ('listed', 'sold') THEN price_nano * deposit_bp / 10000 ELSE 0 END",
            name=op.f("presales_deposit_held_check"),
        ),
        sa.CheckConstraint(
            "state IN ('registered', 'listed', 'sold', 'delivered', 'failed', 'lapsed', 'deleted')",
            name=op.f("presales_state_check"),
        ),
        sa.CheckConstraint("buyer_id <> seller_id", name=op.f("presales_two_parties_check")),
        sa.ForeignKeyConstraint(["buyer_id"], ["users.id"], name=op.f("presales_buyer_id_fkey")),
        sa.ForeignKeyConstraint(["gift_id"], ["gifts.id"], name=op.f("presales_gift_id_fkey")),
        sa.ForeignKeyConstraint(["seller_id"], ["users.id"], name=op.f("presales_seller_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("presales_pkey")),
    )
    op.create_index(
        "presales_buyer_held_idx",
        "presales",
        ["buyer_id"],
        unique=False,
        postgresql_where=sa.text("buyer_held_nano > 0"),
    )
    op.create_index("presales_buyer_idx", "presales", ["buyer_id", "opened_at", "id"], unique=False)
    op.create_index(
        "presales_deposit_held_idx",
        "presales",
        ["seller_id"],
        unique=False,
        postgresql_where=sa.text("deposit_held_nano > 0"),
    )
    op.create_index(
        "presales_listed_backdrop_idx",
        "presales",
        ["backdrop", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "presales_listed_collection_idx",
        "presales",
        ["collection", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "presales_listed_model_idx",
        "presales",
        ["model", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "presales_listed_model_permille_idx",
        "presales",
        ["model_permille", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "presales_listed_num_idx", "presales", ["num", "id"], unique=False, postgresql_where=sa.text("state = 'listed'")
    )
    op.create_index(
        "presales_listed_opened_at_idx",
        "presales",
        ["opened_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "presales_listed_pattern_idx",
        "presales",
        ["pattern", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "presales_listed_price_idx",
        "presales",
        ["price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "presales_open_gift_idx", "presales", ["gift_id"], unique=True, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_index("presales_seller_idx", "presales", ["seller_id", "opened_at", "id"], unique=False)
    op.create_table(
        "telegram_accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("telegram_id", sa.BigInteger(), nullable=True),
        sa.Column("stars", sa.BigInteger(), nullable=False),
        sa.Column("premium", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("connected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("approve_id", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('disconnected', 'failed')) = (closed_at IS NOT NULL)", name=op.f("telegram_accounts_open_check")
        ),
        sa.CheckConstraint(
            "state IN ('requested', 'code_sent', 'signing_in', 'connected', 'disconnected', 'failed')",
            name=op.f("telegram_accounts_state_check"),
        ),
        sa.CheckConstraint("stars >= 0", name=op.f("telegram_accounts_stars_check")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("telegram_accounts_user_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("telegram_accounts_pkey")),
    )
    op.create_index(
        "telegram_accounts_name_idx",
        "telegram_accounts",
        ["user_id", "name"],
        unique=True,
        postgresql_where=sa.text("state = 'connected'"),
    )
    op.create_index(
        "telegram_accounts_open_phone_idx",
        "telegram_accounts",
        ["phone"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "telegram_accounts_open_telegram_idx",
        "telegram_accounts",
        ["telegram_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "telegram_accounts_phone_idx",
        "telegram_accounts",
        ["phone"],
        unique=True,
        postgresql_where=sa.text("state = 'connected'"),
    )
    op.create_index(
        "telegram_accounts_telegram_idx",
        "telegram_accounts",
        ["telegram_id"],
        unique=True,
        postgresql_where=sa.text("state = 'connected'"),
    )
    op.create_index("telegram_accounts_user_idx", "telegram_accounts", ["user_id", "opened_at", "id"], unique=False)
    op.create_table(
        "trades",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("receiver_id", sa.BigInteger(), nullable=True),
        sa.Column("requirements", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("wants_collections", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("wants_backdrops", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("fee_bp", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f("trades_open_check")),
        sa.CheckConstraint("state IN ('open', 'accepted', 'deleted', 'closed')", name=op.f("trades_state_check")),
        sa.CheckConstraint("owner_id <> receiver_id", name=op.f("trades_two_parties_check")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("trades_owner_id_fkey")),
        sa.ForeignKeyConstraint(["receiver_id"], ["users.id"], name=op.f("trades_receiver_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("trades_pkey")),
    )
    op.create_index("trades_owner_idx", "trades", ["owner_id", "opened_at", "id"], unique=False)
    op.create_index(
        "trades_public_idx",
        "trades",
        ["opened_at", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL AND receiver_id IS NULL"),
    )
    op.create_index("trades_receiver_idx", "trades", ["receiver_id", "opened_at", "id"], unique=False)
    op.create_index(
        "trades_wants_backdrops_idx",
        "trades",
        ["wants_backdrops"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("closed_at IS NULL AND receiver_id IS NULL"),
    )
    op.create_index(
        "trades_wants_collections_idx",
        "trades",
        ["wants_collections"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("closed_at IS NULL AND receiver_id IS NULL"),
    )
    op.create_table(
        "withdrawals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("fee_nano", sa.BigInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tx_hash", sa.Text(), nullable=True),
        sa.Column("logical_time", sa.BigInteger(), nullable=True),
        sa.Column("network_fee_nano", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "held_nano = CASE state WHEN 'requested' THEN amount_nano ELSE 0 END", name=op.f("withdrawals_held_check")
        ),
        sa.CheckConstraint("state IN ('requested', 'confirmed', 'failed')", name=op.f("withdrawals_state_check")),
        sa.CheckConstraint("amount_nano > fee_nano AND fee_nano >= 0", name=op.f("withdrawals_amount_check")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("withdrawals_user_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("withdrawals_pkey")),
    )
    op.create_index(
        "withdrawals_held_idx", "withdrawals", ["user_id"], unique=False, postgresql_where=sa.text("held_nano > 0")
    )
    op.create_index("withdrawals_user_idx", "withdrawals", ["user_id", "opened_at", "id"], unique=False)
    op.create_table(
        "account_channels",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["telegram_accounts.id"], name=op.f("account_channels_account_id_fkey")
        ),
        sa.PrimaryKeyConstraint("account_id", "channel_id", name=op.f("account_channels_pkey")),
    )
    op.create_table(
        "account_gifts",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("gift_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("message_ref", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["telegram_accounts.id"], name=op.f("account_gifts_account_id_fkey")),
        sa.ForeignKeyConstraint(["gift_id"], ["gifts.id"], name=op.f("account_gifts_gift_id_fkey")),
        sa.PrimaryKeyConstraint("account_id", "gift_id", name=op.f("account_gifts_pkey")),
    )
    op.create_table(
        "auctions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("nft_id", sa.BigInteger(), nullable=False),
        sa.Column("seller_id", sa.BigInteger(), nullable=False),
        sa.Column("start_nano", sa.BigInteger(), nullable=False),
        sa.Column("current_nano", sa.BigInteger(), nullable=False),
        sa.Column("bid_count", sa.Integer(), nullable=False),
        sa.Column("step_bp", sa.SmallInteger(), nullable=False),
        sa.Column("fee_bp", sa.SmallInteger(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("planned_ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leader_bid_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("collection", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("pattern", sa.Text(), nullable=True),
        sa.Column("backdrop", sa.Text(), nullable=True),
        sa.Column("num", sa.Integer(), nullable=True),
        sa.Column("model_permille", sa.SmallInteger(), nullable=True),
        sa.CheckConstraint("(state = 'active') = (closed_at IS NULL)", name=op.f("auctions_open_check")),
        sa.CheckConstraint("state IN ('active', 'cancelled', 'sold', 'unsold')", name=op.f("auctions_state_check")),
        sa.CheckConstraint("ends_at >= planned_ends_at", name=op.f("auctions_ends_check")),
        sa.ForeignKeyConstraint(["nft_id"], ["nfts.id"], name=op.f("auctions_nft_id_fkey")),
        sa.ForeignKeyConstraint(["seller_id"], ["users.id"], name=op.f("auctions_seller_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("auctions_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_index(
        "auctions_open_backdrop_idx",
        "auctions",
        ["backdrop", "current_nano", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "auctions_open_collection_idx",
        "auctions",
        ["collection", "current_nano", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "auctions_open_ends_idx",
        "auctions",
        ["ends_at", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "auctions_open_model_idx",
        "auctions",
        ["model", "current_nano", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "auctions_open_nft_idx", "auctions", ["nft_id"], unique=True, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_index(
        "auctions_open_num_idx", "auctions", ["num", "id"], unique=False, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_index(
        "auctions_open_opened_idx",
        "auctions",
        ["opened_at", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "auctions_open_pattern_idx",
        "auctions",
        ["pattern", "current_nano", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "auctions_open_permille_idx",
        "auctions",
        ["model_permille", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "auctions_open_price_idx",
        "auctions",
        ["current_nano", "id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("auctions_seller_idx", "auctions", ["seller_id", "opened_at", "id"], unique=False)
    op.create_table(
        "channels",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("check_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("gifts", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("gifts_hash", sa.Text(), nullable=True),
        sa.Column("price_nano", sa.BigInteger(), nullable=True),
        sa.Column("fee_bp", sa.SmallInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reserved_by", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(price_nano IS NOT NULL) = (state IN ('listed', 'selling')) AND (fee_bp IS NOT NULL) = (state IN ('listed', 'selling'))",
            name=op.f("channels_priced_check"),
        ),
        sa.CheckConstraint("(reserved_by IS NOT NULL) = (state = 'selling')", name=op.f("channels_reserved_check")),
        sa.CheckConstraint(
            "(state IN ('sold', 'deleted')) = (closed_at IS NOT NULL)", name=op.f("channels_open_check")
        ),
        sa.CheckConstraint(
            "state IN ('checking', 'unlisted', 'listed', 'selling', 'sold', 'refused', 'deleted')",
            name=op.f("channels_state_check"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["telegram_accounts.id"], name=op.f("channels_account_id_fkey")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("channels_owner_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("channels_pkey")),
    )
    op.create_index("channels_account_idx", "channels", ["account_id"], unique=False)
    op.create_index(
        "channels_listed_opened_idx",
        "channels",
        ["opened_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "channels_listed_price_idx",
        "channels",
        ["price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index("channels_owner_idx", "channels", ["owner_id", "opened_at", "id"], unique=False)
    op.create_table(
        "offers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("nft_id", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=False),
        sa.Column("price_nano", sa.BigInteger(), nullable=False),
        sa.Column("counter_nano", sa.BigInteger(), nullable=True),
        sa.Column("fee_bp", sa.SmallInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f("offers_open_check")),
        sa.CheckConstraint(
            "held_nano = CASE state WHEN 'open' THEN price_nano ELSE 0 END", name=op.f("offers_held_check")
        ),
        sa.CheckConstraint(
            "state IN ('open', 'accepted', 'withdrawn', 'refused', 'expired', 'closed')",
            name=op.f("offers_state_check"),
        ),
        sa.CheckConstraint("owner_id <> author_id", name=op.f("offers_two_parties_check")),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name=op.f("offers_author_id_fkey")),
        sa.ForeignKeyConstraint(["nft_id"], ["nfts.id"], name=op.f("offers_nft_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("offers_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_index("offers_author_idx", "offers", ["author_id", "state", "updated_at", "id"], unique=False)
    op.create_index("offers_held_idx", "offers", ["author_id"], unique=False, postgresql_where=sa.text("held_nano > 0"))
    op.create_index(
        "offers_open_idx", "offers", ["nft_id", "author_id"], unique=True, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_index("offers_owner_idx", "offers", ["owner_id", "state", "updated_at", "id"], unique=False)
    op.create_table(
        "proposals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("trade_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f("proposals_open_check")),
        sa.CheckConstraint(
            "state IN ('open', 'accepted', 'withdrawn', 'declined', 'closed')", name=op.f("proposals_state_check")
        ),
        sa.CheckConstraint("owner_id <> author_id", name=op.f("proposals_two_parties_check")),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name=op.f("proposals_author_id_fkey")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("proposals_owner_id_fkey")),
        sa.ForeignKeyConstraint(["trade_id"], ["trades.id"], name=op.f("proposals_trade_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("proposals_pkey")),
    )
    op.create_index("proposals_author_idx", "proposals", ["author_id", "state", "opened_at", "id"], unique=False)
    op.create_index(
        "proposals_open_idx",
        "proposals",
        ["trade_id", "author_id"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("proposals_owner_idx", "proposals", ["owner_id", "state", "opened_at", "id"], unique=False)
    op.create_index("proposals_trade_idx", "proposals", ["trade_id", "opened_at", "id"], unique=False)
    op.create_table(
        "returns",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("nft_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("fee_nano", sa.BigInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "held_nano = CASE state WHEN 'requested' THEN fee_nano ELSE 0 END", name=op.f("returns_held_check")
        ),
        sa.CheckConstraint("state IN ('requested', 'confirmed', 'failed')", name=op.f("returns_state_check")),
        sa.ForeignKeyConstraint(["nft_id"], ["nfts.id"], name=op.f("returns_nft_id_fkey")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("returns_user_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("returns_pkey")),
    )
    op.create_index("returns_held_idx", "returns", ["user_id"], unique=False, postgresql_where=sa.text("held_nano > 0"))
    op.create_index(
        "returns_open_nft_idx", "returns", ["nft_id"], unique=True, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_index("returns_user_idx", "returns", ["user_id", "opened_at", "id"], unique=False)
    op.create_table(
        "trade_items",
        sa.Column("trade_id", sa.Uuid(), nullable=False),
        sa.Column("nft_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("collection", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("pattern", sa.Text(), nullable=True),
        sa.Column("backdrop", sa.Text(), nullable=True),
        sa.Column("num", sa.Integer(), nullable=True),
        sa.Column("model_permille", sa.SmallInteger(), nullable=True),
        sa.ForeignKeyConstraint(["nft_id"], ["nfts.id"], name=op.f("trade_items_nft_id_fkey")),
        sa.ForeignKeyConstraint(["trade_id"], ["trades.id"], name=op.f("trade_items_trade_id_fkey")),
        sa.PrimaryKeyConstraint("trade_id", "nft_id", name=op.f("trade_items_pkey")),
    )
    op.create_index(
        "trade_items_open_backdrop_idx",
        "trade_items",
        ["backdrop", "trade_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "trade_items_open_collection_idx",
        "trade_items",
        ["collection", "trade_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "trade_items_open_model_idx",
        "trade_items",
        ["model", "trade_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "trade_items_open_nft_idx",
        "trade_items",
        ["nft_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "trade_items_open_num_idx",
        "trade_items",
        ["num", "trade_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "trade_items_open_pattern_idx",
        "trade_items",
        ["pattern", "trade_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "bids",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("auction_id", sa.Uuid(), nullable=False),
        sa.Column("bidder_id", sa.BigInteger(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'leading') = (closed_at IS NULL)", name=op.f("bids_open_check")),
        sa.CheckConstraint(
            "held_nano = CASE state WHEN 'leading' THEN amount_nano ELSE 0 END", name=op.f("bids_held_check")
        ),
        sa.CheckConstraint("state IN ('leading', 'outbid', 'raised', 'won')", name=op.f("bids_state_check")),
        sa.ForeignKeyConstraint(["auction_id"], ["auctions.id"], name=op.f("bids_auction_id_fkey")),
        sa.ForeignKeyConstraint(["bidder_id"], ["users.id"], name=op.f("bids_bidder_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("bids_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_index("bids_auction_idx", "bids", ["auction_id", "amount_nano", "id"], unique=False)
    op.create_index("bids_bidder_idx", "bids", ["bidder_id", "auction_id"], unique=False)
    op.create_index("bids_held_idx", "bids", ["bidder_id"], unique=False, postgresql_where=sa.text("held_nano > 0"))
    op.create_index(
        "bids_leading_idx", "bids", ["auction_id"], unique=True, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_table(
        "channel_gifts",
        sa.Column("channel_id", sa.BigInteger(), nullable=False),
        sa.Column("gift_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("pattern", sa.Text(), nullable=True),
        sa.Column("backdrop", sa.Text(), nullable=True),
        sa.Column("num", sa.Integer(), nullable=True),
        sa.Column("model_permille", sa.SmallInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["channel_id"], ["channels.id"], name=op.f("channel_gifts_channel_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("channel_id", "gift_id", name=op.f("channel_gifts_pkey")),
    )
    op.create_index("channel_gifts_backdrop_idx", "channel_gifts", ["backdrop", "channel_id"], unique=False)
    op.create_index("channel_gifts_collection_idx", "channel_gifts", ["collection", "channel_id"], unique=False)
    op.create_index("channel_gifts_model_idx", "channel_gifts", ["model", "channel_id"], unique=False)
    op.create_index("channel_gifts_num_idx", "channel_gifts", ["num", "channel_id"], unique=False)
    op.create_index("channel_gifts_pattern_idx", "channel_gifts", ["pattern", "channel_id"], unique=False)
    op.create_table(
        "channel_purchases",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.BigInteger(), nullable=False),
        sa.Column("buyer_id", sa.BigInteger(), nullable=False),
        sa.Column("seller_id", sa.BigInteger(), nullable=False),
        sa.Column("receiver_id", sa.BigInteger(), nullable=False),
        sa.Column("price_nano", sa.BigInteger(), nullable=False),
        sa.Column("fee_bp", sa.SmallInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "held_nano = CASE state WHEN 'requested' THEN price_nano ELSE 0 END",
            name=op.f("channel_purchases_held_check"),
        ),
        sa.CheckConstraint("state IN ('requested', 'confirmed', 'failed')", name=op.f("channel_purchases_state_check")),
        sa.CheckConstraint("buyer_id <> seller_id", name=op.f("channel_purchases_two_parties_check")),
        sa.ForeignKeyConstraint(["buyer_id"], ["users.id"], name=op.f("channel_purchases_buyer_id_fkey")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("channel_purchases_channel_id_fkey")),
        sa.ForeignKeyConstraint(["seller_id"], ["users.id"], name=op.f("channel_purchases_seller_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("channel_purchases_pkey")),
    )
    op.create_index("channel_purchases_buyer_idx", "channel_purchases", ["buyer_id", "opened_at", "id"], unique=False)
    op.create_index(
        "channel_purchases_held_idx",
        "channel_purchases",
        ["buyer_id"],
        unique=False,
        postgresql_where=sa.text("held_nano > 0"),
    )
    op.create_index(
        "channel_purchases_open_idx",
        "channel_purchases",
        ["channel_id"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("channel_purchases_seller_idx", "channel_purchases", ["seller_id", "opened_at", "id"], unique=False)
    op.create_table(
        "proposal_items",
        sa.Column("proposal_id", sa.Uuid(), nullable=False),
        sa.Column("nft_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["nft_id"], ["nfts.id"], name=op.f("proposal_items_nft_id_fkey")),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("proposal_items_proposal_id_fkey")),
        sa.PrimaryKeyConstraint("proposal_id", "nft_id", name=op.f("proposal_items_pkey")),
    )
    op.create_index(
        "proposal_items_open_nft_idx",
        "proposal_items",
        ["nft_id"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.add_column("commands", sa.Column("secrets", sa.LargeBinary(), nullable=True))
    op.create_index(
        "commands_secrets_idx", "commands", ["id"], unique=False, postgresql_where=sa.text("secrets IS NOT NULL")
    )
    op.drop_index(op.f("deals_buyer_idx"), table_name="deals")
    op.create_index("deals_buyer_idx", "deals", ["buyer_id", "source", "made_at", "id"], unique=False)
    op.drop_index(op.f("deals_seller_idx"), table_name="deals")
    op.create_index("deals_seller_idx", "deals", ["seller_id", "source", "made_at", "id"], unique=False)
    op.create_index("deposits_state_idx", "deposits", ["state", "opened_at", "id"], unique=False)
    # Items in custody already take the market's columns from their gifts.
    op.add_column("nfts", sa.Column("listed_at", sa.DateTime(timezone=True)))
    op.add_column("nfts", sa.Column("hanging", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.alter_column("nfts", "hanging", server_default=None)
    for name, kind in _COPIED.items():
        op.add_column("nfts", sa.Column(name, kind))
    copied = ", ".join(f"{name} = gifts.{name}" for name in _COPIED)
    op.execute(f"UPDATE nfts SET {copied} FROM gifts WHERE gifts.id = nfts.gift_id")  # noqa: S608 - constant
    op.execute("UPDATE nfts SET listed_at = opened_at WHERE state = 'listed'")
    for name in _COPIED:
        op.alter_column("nfts", name, nullable=False)
    op.drop_constraint(op.f("nfts_listed_check"), "nfts")
    op.create_check_constraint(
        op.f("nfts_listed_check"),
        "nfts",
        "(price_nano IS NOT NULL) = (state = 'listed') AND (fee_bp IS NOT NULL) = (state = 'listed')"
        " AND (listed_at IS NOT NULL) = (state = 'listed')",
    )
    op.drop_index(op.f("nfts_listed_price_idx"), table_name="nfts", postgresql_where="(state = 'listed'::text)")
    op.drop_index(op.f("nfts_owner_idx"), table_name="nfts")
    op.create_index(
        "nfts_listed_backdrop_listed_at_idx",
        "nfts",
        ["backdrop", "listed_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_backdrop_model_permille_idx",
        "nfts",
        ["backdrop", "model_permille", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_backdrop_num_idx",
        "nfts",
        ["backdrop", "num", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_backdrop_price_nano_idx",
        "nfts",
        ["backdrop", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_collection_listed_at_idx",
        "nfts",
        ["collection", "listed_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_collection_model_permille_idx",
        "nfts",
        ["collection", "model_permille", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_collection_num_idx",
        "nfts",
        ["collection", "num", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_collection_price_nano_idx",
        "nfts",
        ["collection", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_listed_at_idx",
        "nfts",
        ["listed_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
        postgresql_include=["price_nano"],
    )
    op.create_index(
        "nfts_listed_model_listed_at_idx",
        "nfts",
        ["model", "listed_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_model_model_permille_idx",
        "nfts",
        ["model", "model_permille", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_model_num_idx",
        "nfts",
        ["model", "num", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_model_permille_idx",
        "nfts",
        ["model_permille", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
        postgresql_include=["price_nano"],
    )
    op.create_index(
        "nfts_listed_model_price_nano_idx",
        "nfts",
        ["model", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_num_idx",
        "nfts",
        ["num", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
        postgresql_include=["price_nano"],
    )
    op.create_index(
        "nfts_listed_owner_idx",
        "nfts",
        ["owner_id", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
        postgresql_include=["opened_at", "num", "model_permille"],
    )
    op.create_index(
        "nfts_listed_pattern_listed_at_idx",
        "nfts",
        ["pattern", "listed_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_pattern_model_permille_idx",
        "nfts",
        ["pattern", "model_permille", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_pattern_num_idx",
        "nfts",
        ["pattern", "num", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_pattern_price_nano_idx",
        "nfts",
        ["pattern", "price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index(
        "nfts_listed_price_nano_idx",
        "nfts",
        ["price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
        postgresql_include=[],
    )
    op.create_index(
        "nfts_owned_idx",
        "nfts",
        ["owner_id", "opened_at", "id"],
        unique=False,
        postgresql_include=["num", "model_permille", "price_nano"],
    )
    op.add_column("partitions", sa.Column("deaths", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("partitions", sa.Column("trying", sa.Uuid(), nullable=True))
    op.add_column("partitions", sa.Column("deaths_before", sa.SmallInteger(), server_default="0", nullable=False))
    op.create_index(
        "postings_at_idx",
        "postings",
        ["at"],
        unique=False,
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )
    op.create_index(
        "postings_document_idx",
        "postings",
        ["document_id"],
        unique=False,
        postgresql_where=sa.text("document_kind <> 'deal'"),
    )
    for statement in _PROJECTIONS:
        op.execute(statement)
