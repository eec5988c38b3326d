"""The marketplace's terms: every limit and fee of the rules. Each is a setting of the same name (SOUK_…)."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class Terms(BaseModel):
    """Amounts in nanoTON, rates in basis points (10 000 = 100 %)."""

    price_min_nano: int = Field(TON // 100, ge=1)
    price_max_nano: int = Field(100_000 * TON, lt=2**53)
    deposit_min_nano: int = Field(TON // 100, ge=1)
    deposit_max_nano: int = Field(100_000 * TON, lt=2**53)
    withdraw_min_nano: int = Field(TON // 10, ge=1)
    withdraw_max_nano: int = Field(10_000 * TON, lt=2**53)
    withdraw_daily_max_nano: int = Field(20_000 * TON, lt=2**53)
    withdraw_interval_seconds: int = Field(60, ge=0)
    withdraw_fee_nano: int = Field(TON // 100, ge=0)
    return_fee_nano: int = Field(TON // 10, ge=0)

    market_fee_bp: int = Field(100, ge=0, le=9_999)
    auction_fee_bp: int = Field(500, ge=0, le=9_999)
    channel_fee_bp: int = Field(100, ge=0, le=9_999)
    trade_fee_bp: int = Field(200, ge=0, le=9_999)
    presale_fee_bp: int = Field(0, ge=0, le=9_999)
    presale_deposit_bp: int = Field(2_000, ge=0, le=9_999)
    presale_penalty_bp: int = Field(1_000, ge=0, le=9_999)

    offer_min_bp: int = Field(5_000, ge=0, le=10_000)
    offer_life_seconds: int = Field(86_400, ge=1)
    offers_per_item_max: int = Field(200, ge=1)
    auction_duration_min_seconds: int = Field(60, ge=1)
    auction_duration_max_seconds: int = Field(604_800, ge=1)
    auction_step_min_bp: int = Field(100, ge=1)
    auction_step_max_bp: int = Field(10_000, ge=1)
    auction_window_seconds: int = Field(300, ge=0)
    auction_extension_max_seconds: int = Field(3_600, ge=0)
    trade_items_max: int = Field(50, ge=1)
    trade_requirements_max: int = Field(20, ge=1)
    proposals_per_trade_max: int = Field(100, ge=1)
    trades_per_item_max: int = Field(20, ge=1)
    floor_fresh_seconds: int = Field(86_400, ge=1)
    presale_grace_seconds: int = Field(172_800, ge=1)
    channel_account_age_seconds: int = Field(86_400, ge=0)
    saga_give_up_seconds: int = Field(3_600, ge=1)
    timer_grace_seconds: int = Field(TIMER_GRACE_MIN_SECONDS, ge=TIMER_GRACE_MIN_SECONDS)

    integrations: tuple[Integration, ...] = ()
    """JSON: `[{"id": …, "title": …, "logo": …}]`."""

    ton_network: Literal["mainnet", "testnet"] = "mainnet"
    """Whose addresses withdrawals may go to."""
    wallet: Annotated[str, Field(min_length=1, max_length=128)] = "souk-wallet"
    """The address users send their deposits to; no withdrawal goes there."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        for name in ("price", "deposit", "withdraw"):
            if getattr(self, f"{name}_min_nano") > getattr(self, f"{name}_max_nano"):
                message = f"{name}_min_nano is larger than {name}_max_nano"
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
    return price_nano * fee_bp // 10_000
