"""What waits for the outside world: gateway requests, Telegram accounts, channels."""

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON

from storage.tables.base import HOLDING, HOT, Moment, copied_traits, metadata, opened_closed

OPEN = text("closed_at IS NULL")
PENDING = text("state = 'pending'")

gateway_requests = Table(
    "gateway_requests",
    metadata,
    Column("reference", Uuid, primary_key=True),
    # The order in which the requests of one outside account go out.
    Column("seq", BigInteger, Identity(), nullable=False),
    Column("op", Text, nullable=False),
    # Whom it concerns: who acts, and the channel that is acted on. Calls for either are made one at a time.
    Column("account", Text, nullable=False),
    Column("channel", Text),
    Column("body", JSON, nullable=False),
    # The kind of the command that its answer becomes is this and _confirm or _fail; null when nothing waits for it.
    Column("answers", Text),
    # What names the waiting document in that command.
    Column("names", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lookups", Integer, nullable=False, server_default="0"),
    Column("attempted_at", Moment),
    Column("answer", JSON),
    # When couriers look at it next, by the database's clock: this bounds attempts, and leaves a call time to be heard.
    Column("due_at", Moment, nullable=False, server_default=func.now()),
    *opened_closed(),
    CheckConstraint(
        "state IN ('pending', 'sent', 'unknown', 'never_seen', 'done', 'refused', 'cancelled')", name="state"
    ),
    CheckConstraint("(state IN ('done', 'refused', 'cancelled')) = (closed_at IS NOT NULL)", name="open"),
    CheckConstraint("attempts >= 0", name="attempts"),
    Index("gateway_requests_due_idx", "due_at", postgresql_where=OPEN),
    Index("gateway_requests_account_idx", "account", "due_at", "seq", postgresql_where=OPEN),
    Index("gateway_requests_account_line_idx", "account", "seq", postgresql_where=PENDING),
    Index("gateway_requests_channel_line_idx", "channel", "seq", postgresql_where=PENDING),
    Index("gateway_requests_state_idx", "state", "opened_at", "reference"),
    postgresql_with=HOT,
)

# One row for each attempt and lookup, written before the call; without an outcome nobody lived to hear it.
gateway_log = Table(
    "gateway_log",
    metadata,
    Column("reference", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("op", Text, nullable=False),
    Column("call", Text, nullable=False),
    # Drawn as the call is claimed: of two calls for one outside account, the later has the larger.
    Column("fencing_token", BigInteger, Identity(), nullable=False),
    Column("at", Moment, nullable=False),
    Column("outcome", Text),
    Column("reason", Text),
    Column("milliseconds", Integer),
    CheckConstraint("call IN ('perform', 'lookup')", name="call"),
    CheckConstraint("outcome IN ('done', 'refused', 'unknown', 'never_seen')", name="outcome"),
)

telegram_accounts = Table(
    "telegram_accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("phone", Text, nullable=False),
    Column("name", Text),
    Column("telegram_id", BigInteger),
    Column("stars", BigInteger, nullable=False),
    Column("premium", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("connected_at", Moment),
    Column("approve_id", Uuid),
    Column("reason", Text),
    *opened_closed(),
    CheckConstraint(
        "state IN ('requested', 'code_sent', 'signing_in', 'connected', 'disconnected', 'failed')", name="state"
    ),
    CheckConstraint("(state IN ('disconnected', 'failed')) = (closed_at IS NOT NULL)", name="open"),
    CheckConstraint("stars >= 0", name="stars"),
    Index("telegram_accounts_phone_idx", "phone", unique=True, postgresql_where=text("state = 'connected'")),
    Index("telegram_accounts_telegram_idx", "telegram_id", unique=True, postgresql_where=text("state = 'connected'")),
    Index("telegram_accounts_name_idx", "user_id", "name", unique=True, postgresql_where=text("state = 'connected'")),
    Index("telegram_accounts_open_phone_idx", "phone", postgresql_where=OPEN),
    Index("telegram_accounts_open_telegram_idx", "telegram_id", postgresql_where=OPEN),
    Index("telegram_accounts_user_idx", "user_id", "opened_at", "id"),
)

account_gifts = Table(
    "account_gifts",
    metadata,
    Column("account_id", Uuid, ForeignKey("telegram_accounts.id"), primary_key=True),
    Column("gift_id", BigInteger, ForeignKey("gifts.id"), primary_key=True, autoincrement=False),
    Column("message_ref", Text, nullable=False),
)

account_channels = Table(
    "account_channels",
    metadata,
    Column("account_id", Uuid, ForeignKey("telegram_accounts.id"), primary_key=True),
    Column("channel_id", BigInteger, primary_key=True, autoincrement=False),
    Column("title", Text, nullable=False),
    Column("username", Text),
)

channels = Table(
    "channels",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("account_id", Uuid, ForeignKey("telegram_accounts.id"), nullable=False),
    Column("check_id", Uuid, nullable=False),
    Column("title", Text),
    Column("username", Text),
    # [{"gift_id", "quantity"}], as inspected.
    Column("gifts", JSON, nullable=False),
    Column("gifts_hash", Text),
    Column("price_nano", BigInteger),
    Column("fee_bp", SmallInteger),
    Column("state", Text, nullable=False),
    Column("reserved_by", Uuid),
    Column("reason", Text),
    *opened_closed(),
    CheckConstraint(
        "state IN ('checking', 'unlisted', 'listed', 'selling', 'sold', 'refused', 'deleted')", name="state"
    ),
    CheckConstraint("(state IN ('sold', 'deleted')) = (closed_at IS NOT NULL)", name="open"),
    CheckConstraint(
        "(price_nano IS NOT NULL) = (state IN ('listed', 'selling'))"
        " AND (fee_bp IS NOT NULL) = (state IN ('listed', 'selling'))",
        name="priced",
    ),
    CheckConstraint("(reserved_by IS NOT NULL) = (state = 'selling')", name="reserved"),
    Index("channels_owner_idx", "owner_id", "opened_at", "id"),
    Index("channels_account_idx", "account_id"),
    Index("channels_listed_price_idx", "price_nano", "id", postgresql_where=text("state = 'listed'")),
    Index("channels_listed_opened_idx", "opened_at", "id", postgresql_where=text("state = 'listed'")),
)

# The gifts of `channels.gifts`, for finding channels by them; kept by a trigger of channels.
channel_gifts = Table(
    "channel_gifts",
    metadata,
    Column("channel_id", BigInteger, ForeignKey("channels.id", ondelete="CASCADE"), primary_key=True),
    Column("gift_id", BigInteger, primary_key=True, autoincrement=False),
    Column("quantity", Integer, nullable=False),
    *copied_traits(),
    *(
        Index(f"channel_gifts_{trait}_idx", trait, "channel_id")
        for trait in ("collection", "model", "pattern", "backdrop", "num")
    ),
)

channel_purchases = Table(
    "channel_purchases",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("channel_id", BigInteger, ForeignKey("channels.id"), nullable=False),
    Column("buyer_id", BigInteger, ForeignKey("users.id"), nullable=False),
    Column("seller_id", BigInteger, ForeignKey("users.id"), nullable=False),
    # A user of Telegram, not necessarily one of ours.
    Column("receiver_id", BigInteger, nullable=False),
    Column("price_nano", BigInteger, nullable=False),
    Column("fee_bp", SmallInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    *opened_closed(),
    CheckConstraint("state IN ('requested', 'confirmed', 'failed')", name="state"),
    CheckConstraint("held_nano = CASE state WHEN 'requested' THEN price_nano ELSE 0 END", name="held"),
    CheckConstraint("buyer_id <> seller_id", name="two_parties"),
    Index("channel_purchases_open_idx", "channel_id", unique=True, postgresql_where=OPEN),
    Index("channel_purchases_held_idx", "buyer_id", postgresql_where=HOLDING),
    Index("channel_purchases_buyer_idx", "buyer_id", "opened_at", "id"),
    Index("channel_purchases_seller_idx", "seller_id", "opened_at", "id"),
)
