"""What only ever grows."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from storage.tables.base import Moment, Xid8, metadata

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
    Index("deals_seller_idx", "seller_id", "source", "made_at", "id"),
    Index("deals_buyer_idx", "buyer_id", "source", "made_at", "id"),
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
    # None: the event of no command.
    Column("command_id", Uuid),
    Column("name", Text, nullable=False),
    Column("topics", ARRAY(Text), nullable=False),
    Column("fields", JSON, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("txid", "id"),
)
