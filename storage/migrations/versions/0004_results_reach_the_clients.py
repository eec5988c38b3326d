"""Results reach the clients."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("commands", sa.Column("key_id", sa.Text()))
    op.add_column("commands", sa.Column("notify", sa.Boolean(), nullable=False, server_default=sa.false()))
    _webhooks()
    _sessions()
    _retention()


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.BigInteger()),
        sa.Column("key_id", sa.Text()),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("topics", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("concurrency", sa.SmallInteger(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret", sa.LargeBinary()),
        sa.Column("old_secret_until", sa.DateTime(timezone=True)),
        sa.Column("after_txid", sa.BigInteger(), nullable=False),
        sa.Column("after_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.Column("disabled_reason", sa.Text()),
        sa.CheckConstraint("(user_id IS NULL) <> (key_id IS NULL)", name=op.f("webhooks_owned_check")),
        sa.CheckConstraint("concurrency >= 1", name=op.f("webhooks_concurrency_check")),
        sa.CheckConstraint("(old_secret IS NULL) = (old_secret_until IS NULL)", name=op.f("webhooks_old_secret_check")),
        sa.CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name=op.f("webhooks_disabled_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("webhooks_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    for owner in ("user", "key"):
        where = sa.text(f"{owner}_id IS NOT NULL")
        op.create_index(f"webhooks_{owner}_idx", "webhooks", [f"{owner}_id", "id"], postgresql_where=where)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("event_txid", sa.BigInteger()),
        sa.Column("event_id", sa.BigInteger()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, server_default="pending"),
        sa.Column("by_hand", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failing_since", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("attempted_at", sa.DateTime(timezone=True)),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("status", sa.SmallInteger()),
        sa.Column("error", sa.Text()),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed')", name=op.f("deliveries_state_check")),
        sa.CheckConstraint("(finished_at IS NULL) = (state = 'pending')", name=op.f("deliveries_finished_check")),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("deliveries_webhook_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("deliveries_pkey")),
        sa.UniqueConstraint(
            "webhook_id", "event_txid", "event_id", name=op.f("deliveries_webhook_id_event_txid_event_id_key")
        ),
        postgresql_with={"autovacuum_vacuum_scale_factor": 0.05},
    )
    op.create_index("deliveries_log_idx", "deliveries", ["webhook_id", "seq"])
    for name, columns, condition in (
        ("order", ["webhook_id", "seq"], "state = 'pending' AND NOT by_hand"),
        ("by_hand", ["due_at"], "state = 'pending' AND by_hand"),
        ("finished", ["finished_at"], "finished_at IS NOT NULL"),
    ):
        op.create_index(f"deliveries_{name}_idx", "deliveries", columns, postgresql_where=sa.text(condition))
    op.alter_column("events", "command_id", nullable=True)


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("sessions_key_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash", name=op.f("sessions_pkey")),
    )
    op.create_index("sessions_key_idx", "sessions", ["key_id", "expires_at"])
    op.create_index("sessions_expiry_idx", "sessions", ["expires_at"])


def _retention() -> None:
    op.create_table(
        "archived_commands",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), nullable=False),
        sa.Column("actor", sa.BigInteger()),
        sa.Column("key_id", sa.Text()),
        sa.Column("payload", postgresql.JSON(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True)),
        sa.Column("run_at", sa.DateTime(timezone=True)),
        sa.Column("not_after", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", postgresql.JSON()),
        sa.Column("rejection", postgresql.JSON()),
        sa.CheckConstraint(
            "status IN ('succeeded', 'rejected', 'cancelled', 'expired')", name=op.f("archived_commands_status_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("archived_commands_pkey")),
    )
    op.create_table(
        "maintenance",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("maintenance_pkey")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05},
    )
    op.execute(
        "INSERT INTO maintenance (name, position) SELECT name, '00000000-0000-0000-0000-000000000000'"
        " FROM unnest(ARRAY['keys', 'commands', 'deleted', 'gateway_log']) AS name"
    )
