"""The journal, the partitions, the workers and the API keys."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from storage.tables.base import HOT, Moment, metadata

commands = Table(
    "commands",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("seq", BigInteger, Identity(), nullable=False),
    Column("kind", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("actor", BigInteger),
    # Whose credential submitted it; null for what Souk wrote itself.
    Column("key_id", Text),
    # Whether that credential is told of its end by an event.
    Column("notify", Boolean, nullable=False, server_default=false()),
    Column("payload", JSON, nullable=False),
    # The payload's secret fields, sealed; erased when nothing waits for them any more.
    Column("secrets", LargeBinary),
    Column("status", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("accepted_at", Moment),
    Column("run_at", Moment),
    Column("not_after", Moment),
    Column("finished_at", Moment),
    Column("result", JSON),
    Column("rejection", JSON),
    Column("error", Text),
    CheckConstraint(
        "status IN ('scheduled', 'accepted', 'succeeded', 'rejected', 'failed', 'cancelled', 'expired')", name="status"
    ),
    CheckConstraint(
        "(finished_at IS NOT NULL) = (status IN ('succeeded', 'rejected', 'failed', 'cancelled', 'expired'))",
        name="finished",
    ),
    Index("commands_claim_idx", "partition", "seq", postgresql_where=text("status = 'accepted'")),
    Index("commands_timer_idx", "run_at", "seq", postgresql_where=text("status = 'scheduled'")),
    Index("commands_actor_idx", "actor", "id"),
    Index("commands_secrets_idx", "id", postgresql_where=text("secrets IS NOT NULL")),
    Index(
        "commands_idempotency_idx",
        text("coalesce(actor, 0)"),
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.05},
)

partitions = Table(
    "partitions",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("owner", Text),
    # Workers that died or lost the lease with it since it was last empty; the command that is tried alone, and the
    # workers that did so while they tried it.
    Column("deaths", SmallInteger, nullable=False, server_default="0"),
    Column("trying", Uuid),
    Column("tried_by", ARRAY(Text), nullable=False, server_default="{}"),
    postgresql_with=HOT,
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("alive_until", Moment, nullable=False),
    # Whether its locks in Redis tell it who is gone, or the signs of life here.
    Column("by_locks", Boolean, nullable=False, server_default=false()),
    *(Column(name, BigInteger, nullable=False) for name in ("batches", "commands", "round_trips")),
    # How its commands ended.
    *(
        Column(name, BigInteger, nullable=False, server_default="0")
        for name in ("succeeded", "rejected", "failed", "expired")
    ),
    postgresql_with=HOT,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("user_id", BigInteger),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("revoked_at", Moment),
    CheckConstraint("role IN ('operator', 'feed', 'service', 'user')", name="role"),
    CheckConstraint("(role = 'user') = (user_id IS NOT NULL)", name="bound"),
)

# A browser's stand-in for a key, for a while: it ends with its key.
sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("key_id", Text, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index("sessions_key_idx", "key_id", "expires_at"),
    Index("sessions_expiry_idx", "expires_at"),
)
