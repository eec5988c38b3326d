"""People, gifts and the items in custody."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from storage.tables.base import HOLDING, HOT, Moment, metadata, opened_closed

LISTED = text("state = 'listed'")
_LISTING_KEYS = ("price_nano", "listed_at", "num", "model_permille")


def _seen_with(key: str) -> list[str]:
    """Rarity goes with price: rows of the wrong price are passed over in the index."""
    return [] if key == "price_nano" else ["price_nano"]


users = Table(
    "users",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("language", Text, nullable=False),
    Column("memo", Text, nullable=False, unique=True),
    Column("blocked", Boolean, nullable=False),
    Column("withdrawn_at", Moment),
    *opened_closed(),
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
    Column("listed_at", Moment),
    Column("hanging", Boolean, nullable=False),
    # Copied from the gift: what the market filters and sorts by.
    Column("collection", Text, nullable=False),
    Column("num", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("pattern", Text, nullable=False),
    Column("backdrop", Text, nullable=False),
    Column("model_permille", SmallInteger, nullable=False),
    *opened_closed(),
    CheckConstraint("state IN ('held', 'listed', 'on_auction', 'in_bundle', 'withdrawing', 'external')", name="state"),
    CheckConstraint(
        "(price_nano IS NOT NULL) = (state = 'listed') AND (fee_bp IS NOT NULL) = (state = 'listed')"
        " AND (listed_at IS NOT NULL) = (state = 'listed')",
        name="listed",
    ),
    CheckConstraint("(owner_id IS NULL) = (state = 'external')", name="external"),
    CheckConstraint(
        "(reserved_by IS NOT NULL) = (state IN ('on_auction', 'in_bundle', 'withdrawing'))"
        " AND (reserved_by IS NULL) = (reserved_kind IS NULL)",
        name="reserved",
    ),
    # What it includes are the keys of the other orders, so that thousands of items can be sorted unseen.
    Index("nfts_owned_idx", "owner_id", "opened_at", "id", postgresql_include=["num", "model_permille", "price_nano"]),
    # Buying writes to none of these: only what is listed is in them.
    *(
        Index(f"nfts_listed_{key}_idx", key, "id", postgresql_where=LISTED, postgresql_include=_seen_with(key))
        for key in _LISTING_KEYS
    ),
    *(
        Index(f"nfts_listed_{trait}_{key}_idx", trait, key, "id", postgresql_where=LISTED)
        for trait in ("collection", "model", "pattern", "backdrop")
        for key in _LISTING_KEYS
    ),
    Index(
        "nfts_listed_owner_idx",
        *("owner_id", "price_nano", "id"),
        postgresql_where=LISTED,
        postgresql_include=["opened_at", "num", "model_permille"],
    ),
    postgresql_with=HOT,
)

# How many items in custody have each collection, model, pattern and backdrop; kept by a trigger of nfts.
traits = Table(
    "traits",
    metadata,
    Column("trait", Text, primary_key=True),
    Column("collection", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("permille", SmallInteger),
    *(Column(f"{part}_color", Integer) for part in ("center", "edge", "pattern", "text")),
    CheckConstraint("trait IN ('collection', 'model', 'pattern', 'backdrop')", name="trait"),
    CheckConstraint("count >= 0", name="count"),
    Index(
        "traits_name_idx",
        *("trait", "name", "collection"),
        postgresql_include=["count", "permille", "center_color", "edge_color", "pattern_color", "text_color"],
    ),
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
    *opened_closed(),
    Index("intakes_nft_idx", "nft_id", "opened_at"),
)

returns = Table(
    "returns",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("nft_id", BigInteger, ForeignKey("nfts.id"), nullable=False),
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("fee_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    *opened_closed(),
    CheckConstraint("state IN ('requested', 'confirmed', 'failed')", name="state"),
    CheckConstraint("held_nano = CASE state WHEN 'requested' THEN fee_nano ELSE 0 END", name="held"),
    Index("returns_user_idx", "user_id", "opened_at", "id"),
    Index("returns_held_idx", "user_id", postgresql_where=HOLDING),
    Index("returns_open_nft_idx", "nft_id", unique=True, postgresql_where=text("closed_at IS NULL")),
)
