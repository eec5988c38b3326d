"""The tables, as migrations make them and reads use them. Documents and records of `commands` have a table of the same
name whose columns carry their fields; a test holds the two together."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.types import UserDefinedType

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

Moment = DateTime(timezone=True)
# Rows that are updated all the time find room for the new version on their own page.
HOT = {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.05}


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


def _opened_closed() -> tuple[Column[Any], Column[Any]]:
    return Column("opened_at", Moment, nullable=False), Column("closed_at", Moment)


# -- the journal

commands = Table(
    "commands",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("seq", BigInteger, Identity(), nullable=False),
    Column("kind", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("actor", BigInteger),
    Column("payload", JSON, nullable=False),
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
    Index("commands_timer_idx", "run_at", postgresql_where=text("status = 'scheduled'")),
    Index("commands_actor_idx", "actor", "id"),
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
    postgresql_with=HOT,
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("alive_until", Moment, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in ("batches", "commands", "round_trips")),
    postgresql_with=HOT,
)

# -- money

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
    *_opened_closed(),
    CheckConstraint("amount_nano > 0", name="amount"),
    CheckConstraint("state IN ('credited', 'unclaimed', 'assigned')", name="state"),
    CheckConstraint("(user_id IS NULL) = (state = 'unclaimed')", name="claimed"),
    Index("deposits_user_idx", "user_id", "opened_at", "id"),
)

# -- people and items

users = Table(
    "users",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("language", Text, nullable=False),
    Column("memo", Text, nullable=False, unique=True),
    Column("blocked", Boolean, nullable=False),
    Column("withdrawn_at", Moment),
    *_opened_closed(),
    CheckConstraint("length(language) BETWEEN 2 AND 8", name="language"),
)

gifts = Table(
    "gifts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("collection", Text, nullable=False),
    Column("num", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("pattern", Text, nullable=False),
    Column("backdrop", Text, nullable=False),
    *(Column(f"{trait}_permille", SmallInteger, nullable=False) for trait in ("model", "pattern", "backdrop")),
    *(Column(f"{part}_color", Integer, nullable=False) for part in ("center", "edge", "pattern", "text")),
    Column("slug", Text, nullable=False),
    Column("availability_total", Integer),
    CheckConstraint("num > 0", name="num"),
)

nfts = Table(
    "nfts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("gift_id", BigInteger, ForeignKey("gifts.id"), nullable=False, unique=True),
    Column("owner_id", BigInteger, ForeignKey("users.id")),
    Column("state", Text, nullable=False),
    Column("reserved_by", Uuid),
    Column("reserved_kind", Text),
    Column("price_nano", BigInteger),
    Column("fee_bp", SmallInteger),
    Column("message_ref", Text),
    *_opened_closed(),
    CheckConstraint("state IN ('held', 'listed', 'on_auction', 'in_bundle', 'withdrawing', 'external')", name="state"),
    CheckConstraint(
        "(price_nano IS NOT NULL) = (state = 'listed') AND (fee_bp IS NOT NULL) = (state = 'listed')", name="listed"
    ),
    CheckConstraint("(owner_id IS NULL) = (state = 'external')", name="external"),
    CheckConstraint(
        "(reserved_by IS NOT NULL) = (state IN ('on_auction', 'in_bundle', 'withdrawing'))"
        " AND (reserved_by IS NULL) = (reserved_kind IS NULL)",
        name="reserved",
    ),
    Index("nfts_owner_idx", "owner_id", "opened_at", "id"),
    Index("nfts_listed_price_idx", "price_nano", "id", postgresql_where=text("state = 'listed'")),
    postgresql_with=HOT,
)

intakes = Table(
    "intakes",
    metadata,
    Column("message_ref", Text, primary_key=True),
    Column("nft_id", BigInteger, nullable=False),
    Column("gift_id", BigInteger, nullable=False),
    Column("sender_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("command_id", Uuid, nullable=False),
    *_opened_closed(),
    Index("intakes_nft_idx", "nft_id", "opened_at"),
)

# -- what only ever grows

deals = Table(
    "deals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", Text, nullable=False),
    Column("seller_id", BigInteger, nullable=False),
    Column("buyer_id", BigInteger, nullable=False),
    Column("price_nano", BigInteger),
    Column("fee_bp", SmallInteger, nullable=False),
    Column("fee_nano", BigInteger, nullable=False),
    Column("seller_nano", BigInteger),
    Column("made_at", Moment, nullable=False),
    CheckConstraint("seller_id <> buyer_id", name="two_parties"),
    CheckConstraint("fee_nano >= 0", name="fee"),
    CheckConstraint("price_nano = fee_nano + seller_nano", name="price"),
    Index("deals_seller_idx", "seller_id", "made_at", "id"),
    Index("deals_buyer_idx", "buyer_id", "made_at", "id"),
)

deal_items = Table(
    "deal_items",
    metadata,
    Column("deal_id", Uuid, nullable=False),
    Column("nft_id", BigInteger),
    Column("gift_id", BigInteger, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("direction", Text, nullable=False),
    CheckConstraint("quantity >= 1", name="quantity"),
    CheckConstraint("direction IN ('to_buyer', 'to_seller')", name="direction"),
    UniqueConstraint("deal_id", "gift_id", "direction"),
    Index("deal_items_gift_idx", "gift_id"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(), nullable=False),
    # Sequence numbers become visible out of order: streams are read in the order (txid, id), below the oldest
    # transaction still under way.
    Column("txid", Xid8, nullable=False, server_default=func.pg_current_xact_id()),
    Column("command_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("topics", ARRAY(Text), nullable=False),
    Column("fields", JSON, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("txid", "id"),
)

# -- the outside

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
