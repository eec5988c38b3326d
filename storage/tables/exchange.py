"""What hangs on items or reserves them: offers, auctions, presales, trades."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from storage.tables.base import HOLDING, HOT, Moment, copied_traits, metadata, opened_closed

OPEN = text("closed_at IS NULL")
PUBLIC = text("closed_at IS NULL AND receiver_id IS NULL")

offers = Table(
    "offers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("nft_id", BigInteger, ForeignKey("nfts.id"), nullable=False),
    # The item's owner while the offer is open: a change of owner closes it.
    Column("owner_id", BigInteger, nullable=False),
    Column("author_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("price_nano", BigInteger, nullable=False),
    Column("counter_nano", BigInteger),
    Column("fee_bp", SmallInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("expires_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    *opened_closed(),
    CheckConstraint("state IN ('open', 'accepted', 'withdrawn', 'refused', 'expired', 'closed')", name="state"),
    CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="open"),
    CheckConstraint("held_nano = CASE state WHEN 'open' THEN price_nano ELSE 0 END", name="held"),
    CheckConstraint("owner_id <> author_id", name="two_parties"),
    Index("offers_open_idx", "nft_id", "author_id", unique=True, postgresql_where=OPEN),
    Index("offers_held_idx", "author_id", postgresql_where=HOLDING),
    Index("offers_author_idx", "author_id", "state", "updated_at", "id"),
    Index("offers_owner_idx", "owner_id", "state", "updated_at", "id"),
    postgresql_with=HOT,
)

auctions = Table(
    "auctions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("nft_id", BigInteger, ForeignKey("nfts.id"), nullable=False),
    Column("seller_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("start_nano", BigInteger, nullable=False),
    # The leading bid, or the start price when there is none.
    Column("current_nano", BigInteger, nullable=False),
    Column("bid_count", Integer, nullable=False),
    Column("step_bp", SmallInteger, nullable=False),
    Column("fee_bp", SmallInteger, nullable=False),
    Column("ends_at", Moment, nullable=False),
    Column("planned_ends_at", Moment, nullable=False),
    Column("leader_bid_id", Uuid),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    *opened_closed(),
    *copied_traits(),
    CheckConstraint("state IN ('active', 'cancelled', 'sold', 'unsold')", name="state"),
    CheckConstraint("(state = 'active') = (closed_at IS NULL)", name="open"),
    CheckConstraint("ends_at >= planned_ends_at", name="ends"),
    Index("auctions_open_nft_idx", "nft_id", unique=True, postgresql_where=OPEN),
    Index("auctions_seller_idx", "seller_id", "opened_at", "id"),
    Index("auctions_open_price_idx", "current_nano", "id", postgresql_where=OPEN),
    Index("auctions_open_ends_idx", "ends_at", "id", postgresql_where=OPEN),
    Index("auctions_open_opened_idx", "opened_at", "id", postgresql_where=OPEN),
    Index("auctions_open_num_idx", "num", "id", postgresql_where=OPEN),
    Index("auctions_open_permille_idx", "model_permille", "id", postgresql_where=OPEN),
    *(
        Index(f"auctions_open_{trait}_idx", trait, "current_nano", "id", postgresql_where=OPEN)
        for trait in ("collection", "model", "pattern", "backdrop")
    ),
    postgresql_with=HOT,
)

bids = Table(
    "bids",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("auction_id", Uuid, ForeignKey("auctions.id"), nullable=False),
    Column("bidder_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    *opened_closed(),
    CheckConstraint("state IN ('leading', 'outbid', 'raised', 'won')", name="state"),
    CheckConstraint("(state = 'leading') = (closed_at IS NULL)", name="open"),
    CheckConstraint("held_nano = CASE state WHEN 'leading' THEN amount_nano ELSE 0 END", name="held"),
    Index("bids_leading_idx", "auction_id", unique=True, postgresql_where=OPEN),
    Index("bids_auction_idx", "auction_id", "amount_nano", "id"),
    Index("bids_bidder_idx", "bidder_id", "auction_id"),
    Index("bids_held_idx", "bidder_id", postgresql_where=HOLDING),
    postgresql_with=HOT,
)

presales = Table(
    "presales",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("gift_id", BigInteger, ForeignKey("gifts.id"), nullable=False),
    Column("seller_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("price_nano", BigInteger),
    Column("fee_bp", SmallInteger),
    Column("deposit_bp", SmallInteger),
    Column("penalty_bp", SmallInteger),
    Column("deposit_held_nano", BigInteger, nullable=False),
    Column("buyer_id", BigInteger, ForeignKey("users.id")),
    Column("buyer_held_nano", BigInteger, nullable=False),
    Column("transferable_at", Moment, nullable=False),
    Column("deadline_at", Moment, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    *opened_closed(),
    *copied_traits(),
    CheckConstraint(
        "state IN ('registered', 'listed', 'sold', 'delivered', 'failed', 'lapsed', 'deleted')", name="state"
    ),
    CheckConstraint("(state IN ('registered', 'listed', 'sold')) = (closed_at IS NULL)", name="open"),
    CheckConstraint("buyer_held_nano = CASE state WHEN 'sold' THEN price_nano ELSE 0 END", name="buyer_held"),
    CheckConstraint(
        "deposit_held_nano = CASE WHEN state IN ('listed', 'sold') THEN price_nano * deposit_bp / 10000 ELSE 0 END",
        name="deposit_held",
    ),
    CheckConstraint("buyer_id <> seller_id", name="two_parties"),
    Index("presales_open_gift_idx", "gift_id", unique=True, postgresql_where=OPEN),
    Index("presales_seller_idx", "seller_id", "opened_at", "id"),
    Index("presales_buyer_idx", "buyer_id", "opened_at", "id"),
    Index("presales_deposit_held_idx", "seller_id", postgresql_where=text("deposit_held_nano > 0")),
    Index("presales_buyer_held_idx", "buyer_id", postgresql_where=text("buyer_held_nano > 0")),
    Index("presales_listed_price_idx", "price_nano", "id", postgresql_where=text("state = 'listed'")),
    *(
        Index(f"presales_listed_{key}_idx", key, "id", postgresql_where=text("state = 'listed'"))
        for key in ("opened_at", "num", "model_permille")
    ),
    *(
        Index(f"presales_listed_{trait}_idx", trait, "price_nano", "id", postgresql_where=text("state = 'listed'"))
        for trait in ("collection", "model", "pattern", "backdrop")
    ),
)

trades = Table(
    "trades",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("receiver_id", BigInteger, ForeignKey("users.id")),
    Column("requirements", JSON, nullable=False),
    # What the requirements ask for, by a trigger.
    Column("wants_collections", ARRAY(Text)),
    Column("wants_backdrops", ARRAY(Text)),
    Column("fee_bp", SmallInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    *opened_closed(),
    CheckConstraint("state IN ('open', 'accepted', 'deleted', 'closed')", name="state"),
    CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="open"),
    CheckConstraint("owner_id <> receiver_id", name="two_parties"),
    Index("trades_owner_idx", "owner_id", "opened_at", "id"),
    Index("trades_receiver_idx", "receiver_id", "opened_at", "id"),
    Index("trades_public_idx", "opened_at", "id", postgresql_where=PUBLIC),
    *(
        Index(f"trades_{wants}_idx", wants, postgresql_using="gin", postgresql_where=PUBLIC)
        for wants in ("wants_collections", "wants_backdrops")
    ),
)

# An item of a trade or proposal is open as long as that is: so an item finds what hangs on it.
trade_items = Table(
    "trade_items",
    metadata,
    Column("trade_id", Uuid, ForeignKey("trades.id"), primary_key=True),
    Column("nft_id", BigInteger, ForeignKey("nfts.id"), primary_key=True, autoincrement=False),
    *opened_closed(),
    *copied_traits(),
    Index("trade_items_open_nft_idx", "nft_id", postgresql_where=OPEN),
    *(
        Index(f"trade_items_open_{trait}_idx", trait, "trade_id", postgresql_where=OPEN)
        for trait in ("collection", "model", "pattern", "backdrop", "num")
    ),
)

proposals = Table(
    "proposals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("trade_id", Uuid, ForeignKey("trades.id"), nullable=False),
    # The trade's owner.
    Column("owner_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("author_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    *opened_closed(),
    CheckConstraint("state IN ('open', 'accepted', 'withdrawn', 'declined', 'closed')", name="state"),
    CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="open"),
    CheckConstraint("owner_id <> author_id", name="two_parties"),
    Index("proposals_open_idx", "trade_id", "author_id", unique=True, postgresql_where=OPEN),
    Index("proposals_trade_idx", "trade_id", "opened_at", "id"),
    Index("proposals_owner_idx", "owner_id", "state", "opened_at", "id"),
    Index("proposals_author_idx", "author_id", "state", "opened_at", "id"),
)

proposal_items = Table(
    "proposal_items",
    metadata,
    Column("proposal_id", Uuid, ForeignKey("proposals.id"), primary_key=True),
    Column("nft_id", BigInteger, ForeignKey("nfts.id"), primary_key=True, autoincrement=False),
    *opened_closed(),
    Index("proposal_items_open_nft_idx", "nft_id", postgresql_where=OPEN),
)

floors = Table(
    "floors",
    metadata,
    Column("market", Text, primary_key=True),
    Column("collection", Text, primary_key=True),
    # '' for the whole collection.
    Column("model", Text, primary_key=True),
    Column("price_nano", BigInteger, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Index("floors_collection_idx", "collection", "model"),
)

HOUR = "date_bin('01:00:00'::interval, recorded_at, '1970-01-01 00:00:00+00'::timestamptz)"

floor_points = Table(
    "floor_points",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("market", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("price_nano", BigInteger, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    # The lowest of an hour is the first of its entries.
    Index("floor_points_chart_idx", "collection", "model", text(HOUR), "price_nano"),
)
