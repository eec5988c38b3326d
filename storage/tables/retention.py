"""What is kept of the past, and how far the upkeep has come."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from storage.tables.base import HOT, Moment, metadata

# Finished commands that the journal holds no more: their columns, without what only a live one needs.
archived_commands = Table(
    "archived_commands",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("actor", BigInteger),
    Column("key_id", Text),
    Column("payload", JSON, nullable=False),
    Column("status", Text, nullable=False),
    Column("accepted_at", Moment),
    Column("run_at", Moment),
    Column("not_after", Moment),
    Column("finished_at", Moment, nullable=False),
    Column("result", JSON),
    Column("rejection", JSON),
    CheckConstraint("status IN ('succeeded', 'rejected', 'cancelled', 'expired')", name="status"),
    Index("archived_commands_actor_idx", "actor", "id"),
)

# One row for each walk through a table: the id up to which it has come. That of `deleted` is no walk's: commands up to
# it may have been deleted.
maintenance = Table(
    "maintenance",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", Uuid, nullable=False),
    postgresql_with=HOT,
)
