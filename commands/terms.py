"""The marketplace's terms: every limit and fee of the rules. Each is a setting of the same name (SOUK_…)."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

BP_MAX = 10_000
"""Basis points in 100 %."""
AMOUNT_MAX = 2**53 - 1
"""The largest integer that every JSON reader reads as it is written."""
PRICE_MAX = (2**63 - 1) // BP_MAX
"""Times any rate, it still fits the 64 bits in which PostgreSQL multiplies the two."""
SECONDS_MAX = 10 * 365 * 86_400
"""Ten years: what may be added to any moment of a command, in Python, in PostgreSQL and in 32 bits."""
OPEN_MAX = 10_000
"""Documents that may depend on one; all of them are loaded to be counted."""
LIST_MAX = 1_000
"""Entries of a list in a command. The fees on so many items, on the highest floors, add up to less than 2^63."""
TON = 1_000_000_000
"""nanoTON in one TON."""
TIMER_GRACE_MIN_SECONDS = 2
"""More than accepting a command may take, so that one that is in time comes before the timer of its deadline."""


class Integration(BaseModel):
    """Another market, whose floors are known here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_-]+$")
    title: str = Field(min_length=1, max_length=128)
    logo: str = Field(min_length=1, max_length=2048)


_BOUNDS = (
    *((f"{what}_min_nano", f"{what}_max_nano") for what in ("price", "deposit", "withdraw")),
    ("auction_duration_min_seconds", "auction_duration_max_seconds"),
    ("auction_step_min_bp", "auction_step_max_bp"),
)


class Terms(BaseModel):
    """Amounts in nanoTON, rates in basis points (10 000 = 100 %)."""

    price_min_nano: int = Field(TON // 100, ge=1)
    price_max_nano: int = Field(100_000 * TON, le=PRICE_MAX)
    deposit_min_nano: int = Field(TON // 100, ge=1)
    deposit_max_nano: int = Field(100_000 * TON, le=AMOUNT_MAX)
    withdraw_min_nano: int = Field(TON // 10, ge=1)
    withdraw_max_nano: int = Field(10_000 * TON, le=AMOUNT_MAX)
    withdraw_daily_max_nano: int = Field(20_000 * TON, ge=0, le=AMOUNT_MAX)
    withdraw_interval_seconds: int = Field(60, ge=0, le=SECONDS_MAX)
    withdraw_fee_nano: int = Field(TON // 100, ge=0)
    return_fee_nano: int = Field(TON // 10, ge=0, le=AMOUNT_MAX)

    market_fee_bp: int = Field(100, ge=0, lt=BP_MAX)
    auction_fee_bp: int = Field(500, ge=0, lt=BP_MAX)
    channel_fee_bp: int = Field(100, ge=0, lt=BP_MAX)
    trade_fee_bp: int = Field(200, ge=0, lt=BP_MAX)
    presale_fee_bp: int = Field(0, ge=0, lt=BP_MAX)
    presale_deposit_bp: int = Field(2_000, ge=0, lt=BP_MAX)
    presale_penalty_bp: int = Field(1_000, ge=0, lt=BP_MAX)

    offer_min_bp: int = Field(5_000, ge=0, le=BP_MAX)
    offer_life_seconds: int = Field(86_400, ge=1, le=SECONDS_MAX)
    offers_per_item_max: int = Field(200, ge=1, le=OPEN_MAX)
    auction_duration_min_seconds: int = Field(60, ge=1, le=SECONDS_MAX)
    auction_duration_max_seconds: int = Field(604_800, ge=1, le=SECONDS_MAX)
    auction_step_min_bp: int = Field(100, ge=1, le=BP_MAX)
    auction_step_max_bp: int = Field(10_000, ge=1, le=BP_MAX)
    auction_window_seconds: int = Field(300, ge=0, le=SECONDS_MAX)
    auction_extension_max_seconds: int = Field(3_600, ge=0, le=SECONDS_MAX)
    trade_items_max: int = Field(50, ge=1, le=LIST_MAX)
    trade_requirements_max: int = Field(20, ge=1, le=LIST_MAX)
    proposals_per_trade_max: int = Field(100, ge=1, le=OPEN_MAX)
    trades_per_item_max: int = Field(20, ge=1, le=OPEN_MAX)
    floor_fresh_seconds: int = Field(86_400, ge=1, le=SECONDS_MAX)
    presale_grace_seconds: int = Field(172_800, ge=1, le=SECONDS_MAX)
    channel_account_age_seconds: int = Field(86_400, ge=0, le=SECONDS_MAX)
    saga_give_up_seconds: int = Field(3_600, ge=1, le=SECONDS_MAX)
    timer_grace_seconds: int = Field(TIMER_GRACE_MIN_SECONDS, ge=TIMER_GRACE_MIN_SECONDS, le=SECONDS_MAX)

    integrations: tuple[Integration, ...] = ()
    """JSON: `[{"id": …, "title": …, "logo": …}]`."""

    ton_network: Literal["mainnet", "testnet"] = "mainnet"
    """Whose addresses withdrawals may go to."""
    wallet: Annotated[str, Field(min_length=1, max_length=128)] = "souk-wallet"
    """The address users send their deposits to; no withdrawal goes there."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        for least, most in _BOUNDS:
            if getattr(self, least) > getattr(self, most):
                message = f"{least} is larger than {most}"
                raise ValueError(message)
        if self.withdraw_fee_nano >= self.withdraw_min_nano:
            message = "withdraw_fee_nano takes all of withdraw_min_nano"
            raise ValueError(message)
        if self.presale_penalty_bp > self.presale_deposit_bp:
            message = "presale_penalty_bp is larger than presale_deposit_bp"
            raise ValueError(message)
        return self


def fee_nano(price_nano: int, fee_bp: int) -> int:
    """The fee on a price: one floor division on the full product."""
    return price_nano * fee_bp // BP_MAX
