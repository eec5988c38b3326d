"""The terms of the installation under load: its fees and limits, as `GET /v1/settings` tells everybody."""

from dataclasses import dataclass, fields
from typing import Self

from souk_client import Client

BRISK = {
    "SOUK_AUCTION_DURATION_MIN_SECONDS": "3",
    "SOUK_AUCTION_WINDOW_SECONDS": "1",
    "SOUK_AUCTION_EXTENSION_MAX_SECONDS": "2",
    "SOUK_PRESALE_GRACE_SECONDS": "1",
    "SOUK_CHANNEL_ACCOUNT_AGE_SECONDS": "0",
}
"""Settings under which auctions end, presales fail and channels are sold while one looks on. Under other terms stories
are told as well, but their ends come after the run."""


@dataclass(frozen=True)
class Terms:
    """What the stories reckon with; the defaults are the project's."""

    market_fee_bp: int = 100
    auction_fee_bp: int = 500
    channel_fee_bp: int = 100
    presale_fee_bp: int = 0
    presale_deposit_bp: int = 2_000
    offer_min_bp: int = 5_000
    auction_duration_min_seconds: int = 60
    auction_window_seconds: int = 300
    timer_grace_seconds: int = 2
    channel_account_age_seconds: int = 86_400
    withdraw_interval_seconds: int = 60
    withdraw_fee_nano: int = 10_000_000
    return_fee_nano: int = 100_000_000
    ton_network: str = "mainnet"

    @classmethod
    async def of(cls, client: Client) -> Self:
        said = await client.read("/v1/settings")
        return cls(**{field.name: said[field.name] for field in fields(cls) if field.name in said})
