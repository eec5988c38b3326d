"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from storage.tables.base import Xid8

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("available_nano", sa.BigInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "id < 0 OR (available_nano >= 0 AND held_nano >= 0)", name=op.f("accounts_user_not_negative_check")
        ),
        sa.CheckConstraint("id > 0 OR held_nano = 0", name=op.f("accounts_platform_holds_nothing_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("accounts_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_table(
        "api_keys",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(role = 'user') = (user_id IS NOT NULL)", name=op.f("api_keys_bound_check")),
        sa.CheckConstraint("role IN ('operator', 'feed', 'service', 'user')", name=op.f("api_keys_role_check")),
        sa.PrimaryKeyConstraint("hash", name=op.f("api_keys_pkey")),
        sa.UniqueConstraint("id", name=op.f("api_keys_id_key")),
    )
    op.create_table(
        "commands",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), nullable=False),
        sa.Column("actor", sa.BigInteger(), nullable=True),
        sa.Column("payload", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("rejection", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('succeeded', 'rejected', 'failed', 'cancelled', 'expired'))",
            name=op.f("commands_finished_check"),
        ),
        sa.CheckConstraint(
            "status IN ('scheduled', 'accepted', 'succeeded', 'rejected', 'failed', 'cancelled', 'expired')",
            name=op.f("commands_status_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("commands_pkey")),
        postgresql_with={"autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_index("commands_actor_idx", "commands", ["actor", "id"], unique=False)
    op.create_index(
        "commands_claim_idx",
        "commands",
        ["partition", "seq"],
        unique=False,
        postgresql_where=sa.text("status = 'accepted'"),
    )
    op.create_index(
        "commands_idempotency_idx",
        "commands",
        [sa.literal_column("coalesce(actor, 0)"), "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "commands_timer_idx", "commands", ["run_at"], unique=False, postgresql_where=sa.text("status = 'scheduled'")
    )
    op.create_table(
        "deal_items",
        sa.Column("deal_id", sa.Uuid(), nullable=False),
        sa.Column("nft_id", sa.BigInteger(), nullable=True),
        sa.Column("gift_id", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.CheckConstraint("direction IN ('to_buyer', 'to_seller')", name=op.f("deal_items_direction_check")),
        sa.CheckConstraint("quantity >= 1", name=op.f("deal_items_quantity_check")),
        sa.UniqueConstraint("deal_id", "gift_id", "direction", name=op.f("deal_items_deal_id_gift_id_direction_key")),
    )
    op.create_index("deal_items_gift_idx", "deal_items", ["gift_id"], unique=False)
    op.create_table(
        "deals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("seller_id", sa.BigInteger(), nullable=False),
        sa.Column("buyer_id", sa.BigInteger(), nullable=False),
        sa.Column("price_nano", sa.BigInteger(), nullable=True),
        sa.Column("fee_bp", sa.SmallInteger(), nullable=False),
        sa.Column("fee_nano", sa.BigInteger(), nullable=False),
        sa.Column("seller_nano", sa.BigInteger(), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("fee_nano >= 0", name=op.f("deals_fee_check")),
        sa.CheckConstraint("price_nano = fee_nano + seller_nano", name=op.f("deals_price_check")),
        sa.CheckConstraint("seller_id <> buyer_id", name=op.f("deals_two_parties_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("deals_pkey")),
    )
    op.create_index("deals_buyer_idx", "deals", ["buyer_id", "made_at", "id"], unique=False)
    op.create_index("deals_seller_idx", "deals", ["seller_id", "made_at", "id"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("txid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column("command_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("topics", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("fields", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("txid", "id", name=op.f("events_pkey")),
    )
    op.create_table(
        "gifts",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("num", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("backdrop", sa.Text(), nullable=False),
        sa.Column("model_permille", sa.SmallInteger(), nullable=False),
        sa.Column("pattern_permille", sa.SmallInteger(), nullable=False),
        sa.Column("backdrop_permille", sa.SmallInteger(), nullable=False),
        sa.Column("center_color", sa.Integer(), nullable=False),
        sa.Column("edge_color", sa.Integer(), nullable=False),
        sa.Column("pattern_color", sa.Integer(), nullable=False),
        sa.Column("text_color", sa.Integer(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("availability_total", sa.Integer(), nullable=True),
        sa.CheckConstraint("num > 0", name=op.f("gifts_num_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("gifts_pkey")),
    )
    op.create_table(
        "partitions",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("partitions_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_table(
        "postings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("command_id", sa.Uuid(), nullable=False),
        sa.Column("debit_account", sa.BigInteger(), nullable=False),
        sa.Column("debit_side", sa.Text(), nullable=False),
        sa.Column("credit_account", sa.BigInteger(), nullable=False),
        sa.Column("credit_side", sa.Text(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("debit_balance_nano", sa.BigInteger(), nullable=True),
        sa.Column("credit_balance_nano", sa.BigInteger(), nullable=True),
        sa.Column("document_kind", sa.Text(), nullable=True),
        sa.Column("document_id", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "debit_side IN ('available', 'held') AND credit_side IN ('available', 'held')",
            name=op.f("postings_side_check"),
        ),
        sa.CheckConstraint(
            "(debit_account, debit_side) <> (credit_account, credit_side)", name=op.f("postings_two_sides_check")
        ),
        sa.CheckConstraint("amount_nano > 0", name=op.f("postings_amount_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("postings_pkey")),
    )
    op.create_index(
        "postings_credit_idx",
        "postings",
        ["credit_account", "id"],
        unique=False,
        postgresql_where=sa.text("credit_account > 0"),
    )
    op.create_index(
        "postings_debit_idx",
        "postings",
        ["debit_account", "id"],
        unique=False,
        postgresql_where=sa.text("debit_account > 0"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("memo", sa.Text(), nullable=False),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("length(language) BETWEEN 2 AND 8", name=op.f("users_language_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("users_pkey")),
        sa.UniqueConstraint("memo", name=op.f("users_memo_key")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("alive_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("batches", sa.BigInteger(), nullable=False),
        sa.Column("commands", sa.BigInteger(), nullable=False),
        sa.Column("round_trips", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("workers_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_table(
        "deposits",
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("logical_time", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("memo", sa.Text(), nullable=False),
        sa.Column("from_address", sa.Text(), nullable=True),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(user_id IS NULL) = (state = 'unclaimed')", name=op.f("deposits_claimed_check")),
        sa.CheckConstraint("state IN ('credited', 'unclaimed', 'assigned')", name=op.f("deposits_state_check")),
        sa.CheckConstraint("amount_nano > 0", name=op.f("deposits_amount_check")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("deposits_user_id_fkey")),
        sa.PrimaryKeyConstraint("wallet", "logical_time", "hash", name=op.f("deposits_pkey")),
        sa.UniqueConstraint("id", name=op.f("deposits_id_key")),
    )
    op.create_index("deposits_user_idx", "deposits", ["user_id", "opened_at", "id"], unique=False)
    op.create_table(
        "intakes",
        sa.Column("message_ref", sa.Text(), nullable=False),
        sa.Column("nft_id", sa.BigInteger(), nullable=False),
        sa.Column("gift_id", sa.BigInteger(), nullable=False),
        sa.Column("sender_id", sa.BigInteger(), nullable=False),
        sa.Column("command_id", sa.Uuid(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["sender_id"], ["users.id"], name=op.f("intakes_sender_id_fkey")),
        sa.PrimaryKeyConstraint("message_ref", name=op.f("intakes_pkey")),
    )
    op.create_index("intakes_nft_idx", "intakes", ["nft_id", "opened_at"], unique=False)
    op.create_table(
        "nfts",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("gift_id", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reserved_by", sa.Uuid(), nullable=True),
        sa.Column("reserved_kind", sa.Text(), nullable=True),
        sa.Column("price_nano", sa.BigInteger(), nullable=True),
        sa.Column("fee_bp", sa.SmallInteger(), nullable=True),
        sa.Column("message_ref", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(owner_id IS NULL) = (state = 'external')", name=op.f("nfts_external_check")),
        sa.CheckConstraint(
            "(price_nano IS NOT NULL) = (state = 'listed') AND (fee_bp IS NOT NULL) = (state = 'listed')",
            name=op.f("nfts_listed_check"),
        ),
        sa.CheckConstraint(
            "(reserved_by IS NOT NULL) = (state IN ('on_auction', 'in_bundle', 'withdrawing')) AND (reserved_by IS NULL) = (reserved_kind IS NULL)",
            name=op.f("nfts_reserved_check"),
        ),
        sa.CheckConstraint(
            "state IN ('held', 'listed', 'on_auction', 'in_bundle', 'withdrawing', 'external')",
            name=op.f("nfts_state_check"),
        ),
        sa.ForeignKeyConstraint(["gift_id"], ["gifts.id"], name=op.f("nfts_gift_id_fkey")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("nfts_owner_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("nfts_pkey")),
        sa.UniqueConstraint("gift_id", name=op.f("nfts_gift_id_key")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_index(
        "nfts_listed_price_idx",
        "nfts",
        ["price_nano", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'listed'"),
    )
    op.create_index("nfts_owner_idx", "nfts", ["owner_id", "opened_at", "id"], unique=False)

    # The platform's accounts: fees, deposits, withdrawals, expense, unclaimed.
    op.execute("INSERT INTO accounts (id, available_nano, held_nano) SELECT -n, 0, 0 FROM generate_series(1, 5) AS n")
