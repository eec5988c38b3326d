"""The outside world of the embedded stack and the tests: what the sandbox gateway did, and what is to go wrong."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Float, Identity, Integer, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSON

from storage.tables.base import HOT, Moment, metadata

# One row for each reference: what came of it the first time is what every repeat is told.
sandbox_effects = Table(
    "sandbox_effects",
    metadata,
    Column("reference", Uuid, primary_key=True),
    Column("op", Text, nullable=False),
    # Without secrets.
    Column("body", JSON, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("answer", JSON, nullable=False),
    # Of the call that had the effect.
    Column("fencing_token", BigInteger, nullable=False),
    Column("calls", Integer, nullable=False, server_default="1"),
    Column("at", Moment, nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("outcome IN ('done', 'refused')", name="outcome"),
)

# The largest fencing token that was seen of each outside account.
sandbox_tokens = Table(
    "sandbox_tokens",
    metadata,
    Column("account", Text, primary_key=True),
    Column("fencing_token", BigInteger, nullable=False),
    postgresql_with=HOT,
)

sandbox_faults = Table(
    "sandbox_faults",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    # '*' is every operation.
    Column("op", Text, nullable=False, server_default="*"),
    Column("fault", Text, nullable=False),
    # How many calls it still strikes; null is all.
    Column("remaining", Integer),
    Column("reason", Text),
    Column("seconds", Float),
    CheckConstraint("fault IN ('slow', 'refuse', 'lose_request', 'lose_answer', 'duplicate', 'down')", name="fault"),
)
