"""Webhooks: endpoints, and what is to be delivered to each."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from storage.tables.base import HOT, Moment, metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Whose it is: a user's, or else a key's.
    Column("user_id", BigInteger),
    Column("key_id", Text),
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("topics", ARRAY(Text), nullable=False),
    Column("concurrency", SmallInteger, nullable=False),
    # Sealed; the old one signs too until its time has come.
    Column("secret", LargeBinary, nullable=False),
    Column("old_secret", LargeBinary),
    Column("old_secret_until", Moment),
    # Its position in the feed: what comes up to here has its deliveries.
    Column("after_txid", BigInteger, nullable=False),
    Column("after_id", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("disabled_at", Moment),
    Column("disabled_reason", Text),
    CheckConstraint("(user_id IS NULL) <> (key_id IS NULL)", name="owned"),
    CheckConstraint("concurrency >= 1", name="concurrency"),
    CheckConstraint("(old_secret IS NULL) = (old_secret_until IS NULL)", name="old_secret"),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
    Index("webhooks_user_idx", "user_id", "id", postgresql_where=text("user_id IS NOT NULL")),
    Index("webhooks_key_idx", "key_id", "id", postgresql_where=text("key_id IS NOT NULL")),
    postgresql_with=HOT,
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("webhook_id", Uuid, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    # The order of an endpoint's deliveries.
    Column("seq", BigInteger, Identity(), nullable=False),
    # The event's place in the feed; a test is of none.
    Column("event_txid", BigInteger),
    Column("event_id", BigInteger),
    Column("name", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    # Asked for by somebody: tried once, beside the order.
    Column("by_hand", Boolean, nullable=False, server_default=false()),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Since the first attempt, or since the endpoint was last enabled.
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("failing_since", Moment),
    Column("created_at", Moment, nullable=False, server_default=func.clock_timestamp()),
    Column("attempted_at", Moment),
    # When it is to be tried, or while it is tried, when whoever tries it counts as dead.
    Column("due_at", Moment, nullable=False, server_default=func.clock_timestamp()),
    Column("finished_at", Moment),
    # What came of the last attempt.
    Column("status", SmallInteger),
    Column("error", Text),
    CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
    CheckConstraint("(finished_at IS NULL) = (state = 'pending')", name="finished"),
    UniqueConstraint("webhook_id", "event_txid", "event_id"),
    Index("deliveries_log_idx", "webhook_id", "seq"),
    Index("deliveries_order_idx", "webhook_id", "seq", postgresql_where=text("state = 'pending' AND NOT by_hand")),
    Index("deliveries_by_hand_idx", "due_at", postgresql_where=text("state = 'pending' AND by_hand")),
    Index("deliveries_finished_idx", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.05},
)
