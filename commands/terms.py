"""The marketplace's terms: every limit and fee of the rules. Each is a setting of the same name (SOUK_…)."""

from typing import Self

from pydantic import BaseModel, Field, model_validator

TON = 1_000_000_000
"""nanoTON in one TON."""


class Terms(BaseModel):
    """Amounts in nanoTON, rates in basis points (10 000 = 100 %)."""

    price_min_nano: int = Field(TON // 100, ge=1)
    price_max_nano: int = Field(100_000 * TON, lt=2**53)
    deposit_min_nano: int = Field(TON // 100, ge=1)
    deposit_max_nano: int = Field(100_000 * TON, lt=2**53)
    market_fee_bp: int = Field(100, ge=0, le=9_999)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        for name in ("price", "deposit"):
            if getattr(self, f"{name}_min_nano") > getattr(self, f"{name}_max_nano"):
                message = f"{name}_min_nano is larger than {name}_max_nano"
                raise ValueError(message)
        return self


def fee_nano(price_nano: int, fee_bp: int) -> int:
    """The fee on a price: one floor division on the full product."""
    return price_nano * fee_bp // 10_000
