"""Ledger accounts and their postings; what came into the wallet and what left it."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    Uuid,
    text,
)

from storage.tables.base import HOLDING, HOT, Moment, metadata, opened_closed

accounts = Table(
    "accounts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("available_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    CheckConstraint("id < 0 OR (available_nano >= 0 AND held_nano >= 0)", name="user_not_negative"),
    CheckConstraint("id > 0 OR held_nano = 0", name="platform_holds_nothing"),
    postgresql_with=HOT,
)

postings = Table(
    "postings",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("command_id", Uuid, nullable=False),
    Column("debit_account", BigInteger, nullable=False),
    Column("debit_side", Text, nullable=False),
    Column("credit_account", BigInteger, nullable=False),
    Column("credit_side", Text, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("debit_balance_nano", BigInteger),
    Column("credit_balance_nano", BigInteger),
    Column("document_kind", Text),
    Column("document_id", Text),
    Column("at", Moment, nullable=False),
    CheckConstraint("amount_nano > 0", name="amount"),
    CheckConstraint("(debit_account, debit_side) <> (credit_account, credit_side)", name="two_sides"),
    CheckConstraint("debit_side IN ('available', 'held') AND credit_side IN ('available', 'held')", name="side"),
    Index("postings_debit_idx", "debit_account", "id", postgresql_where=text("debit_account > 0")),
    # Costs a purchase nothing: times grow as the table does, and a deal's postings are found by its time.
    Index("postings_at_idx", "at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}),
    Index("postings_document_idx", "document_id", postgresql_where=text("document_kind <> 'deal'")),
    Index("postings_credit_idx", "credit_account", "id", postgresql_where=text("credit_account > 0")),
)

deposits = Table(
    "deposits",
    metadata,
    Column("wallet", Text, primary_key=True),
    Column("logical_time", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", Text, primary_key=True),
    Column("id", Uuid, nullable=False, unique=True),
    Column("amount_nano", BigInteger, nullable=False),
    Column("memo", Text, nullable=False),
    Column("from_address", Text),
    Column("user_id", BigInteger, ForeignKey("users.id")),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    *opened_closed(),
    CheckConstraint("amount_nano > 0", name="amount"),
    CheckConstraint("state IN ('credited', 'unclaimed', 'assigned')", name="state"),
    CheckConstraint("(user_id IS NULL) = (state = 'unclaimed')", name="claimed"),
    Index("deposits_user_idx", "user_id", "opened_at", "id"),
    Index("deposits_state_idx", "state", "opened_at", "id"),
)


withdrawals = Table(
    "withdrawals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("fee_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("comment", Text),
    Column("state", Text, nullable=False),
    Column("tx_hash", Text),
    Column("logical_time", BigInteger),
    Column("network_fee_nano", BigInteger),
    Column("reason", Text),
    *opened_closed(),
    CheckConstraint("amount_nano > fee_nano AND fee_nano >= 0", name="amount"),
    CheckConstraint("state IN ('requested', 'confirmed', 'failed')", name="state"),
    CheckConstraint("held_nano = CASE state WHEN 'requested' THEN amount_nano ELSE 0 END", name="held"),
    Index("withdrawals_user_idx", "user_id", "opened_at", "id"),
    Index("withdrawals_held_idx", "user_id", postgresql_where=HOLDING),
)
