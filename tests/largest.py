"""The largest value of every setting that is a number: what is accepted has to work, all of it at once."""

from typing import Any

_AMOUNT = 2**53 - 1
_PRICE = 922_337_203_685_477
_TEN_YEARS = 315_360_000

LARGEST: dict[str, Any] = {
    "price_min_nano": _PRICE,
    "price_max_nano": _PRICE,
    **{f"{what}_{bound}_nano": _AMOUNT for what in ("deposit", "withdraw") for bound in ("min", "max")},
    "withdraw_daily_max_nano": _AMOUNT,
    "withdraw_fee_nano": _AMOUNT - 1,
    "return_fee_nano": _AMOUNT,
    **{f"{what}_fee_bp": 9_999 for what in ("market", "auction", "channel", "trade", "presale")},
    "presale_deposit_bp": 9_999,
    "presale_penalty_bp": 9_999,
    "offer_min_bp": 10_000,
    "auction_step_min_bp": 10_000,
    "auction_step_max_bp": 10_000,
    **{
        f"{what}_per_{parent}_max": 10_000
        for what, parent in (("offers", "item"), ("proposals", "trade"), ("trades", "item"))
    },
    "trade_items_max": 1_000,
    "trade_requirements_max": 1_000,
    **{
        f"{name}_seconds": _TEN_YEARS
        for name in (
            *("withdraw_interval", "offer_life", "auction_duration_min", "auction_duration_max", "auction_window"),
            *("auction_extension_max", "floor_fresh", "presale_grace", "channel_account_age", "saga_give_up"),
            "timer_grace",
        )
    },
    "partitions": 999,
    "batch_max": 5_000,
    "lanes": 16,
    "lease_seconds": 300.0,
    "backlog_max": 1_000_000_000,
    "actor_unfinished_max": 1_000_000,
    "body_max_bytes": 67_108_864,
    "submission_batch_max": 10_000,
    "wait_max_seconds": 300.0,
    "idempotency_days": 36_500,
    "arq_results_seconds": 86_400,
    "keep_commands_days": 36_500,
    "streams_max": 10_000,
    "gateway_timeout_seconds": 300.0,
    "gateway_valid_seconds": 3_600.0,
    "gateway_attempts_max": 100,
    "gateway_backoff_seconds": 60.0,
    "gateway_backoff_max_seconds": 86_400.0,
    "webhook_timeout_seconds": 300.0,
    "webhook_give_up_seconds": float(_TEN_YEARS),
}
