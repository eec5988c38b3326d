"""Settings: wrong ones are named, secrets are not shown."""

import math
from pathlib import Path

import pytest

from commands.terms import Terms
from storage.settings import Settings, SettingsError, load_settings, told_of_unknown_variables
from tests.largest import LARGEST

URLS = {"SOUK_DATABASE_URL": "postgresql://souk:canary@db/souk", "SOUK_REDIS_URL": "redis://:canary@redis"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    for name, value in URLS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SOUK_DATABASE_URL", "mysql://db/souk"),
        ("SOUK_READ_DATABASE_URL", "http://canary@replica"),
        ("SOUK_PGBOUNCER", "perhaps"),
        ("SOUK_REDIS_URL", "http://redis"),
        ("SOUK_REDIS_URL", "redis+sentinel://:canary@a:1,b:2"),
        ("SOUK_REDIS_URL", "redis+cluster://:canary@a:b"),
        ("SOUK_PARTITIONS", "0"),
        ("SOUK_PARTITIONS", "many"),
        ("SOUK_BATCH_MAX", "0"),
        ("SOUK_LEASE_SECONDS", "-1"),
        ("SOUK_MARKET_FEE_BP", "10000"),
        ("SOUK_MARKET_FEE_BP", "1.5"),
        ("SOUK_PRICE_MAX_NANO", str(2**53)),
        ("SOUK_GATEWAY_URL", "ftp://bridge"),
        ("SOUK_GATEWAY_URL", "https://souk:canary@bridge"),
        ("SOUK_GATEWAY_URL", "https://bridge"),
        ("SOUK_GATEWAY_SECRET", "canary"),
        ("SOUK_GATEWAY_SECRET", "whsec_" + "A" * 33),
        ("SOUK_SECRET_KEY", "canary"),
        ("SOUK_IDEMPOTENCY_DAYS", "0"),
        ("SOUK_KEEP_COMMANDS_DAYS", "0"),
        ("SOUK_KEEP_COMMANDS_DAYS", "29"),
        ("SOUK_ARCHIVE_COMMANDS", "perhaps"),
        ("SOUK_ARQ_RESULTS_SECONDS", "0"),
        ("SOUK_ARQ_RESULTS_SECONDS", "86401"),
        ("SOUK_INTEGRATIONS", "{"),
        ("SOUK_INTEGRATIONS", '[{"id": "tonnel"}]'),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as raised:
        load_settings()
    assert "canary" not in str(raised.value)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a compose file passes on what nobody has set."""
    optional = ("read_database_url", "gateway_url", "gateway_secret", "secret_key", "keep_commands_days")
    for name in (*optional, "arq_results_seconds"):
        monkeypatch.setenv(f"SOUK_{name.upper()}", "")
        assert getattr(load_settings(), name) is None


def test_a_missing_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOUK_DATABASE_URL")
    with pytest.raises(SettingsError, match="SOUK_DATABASE_URL"):
        load_settings()


def test_bounds_the_wrong_way_round_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUK_PRICE_MIN_NANO", "1000")
    monkeypatch.setenv("SOUK_PRICE_MAX_NANO", "999")
    with pytest.raises(SettingsError, match="SOUK_PRICE_MIN_NANO is larger than SOUK_PRICE_MAX_NANO"):
        load_settings()


@pytest.mark.parametrize(
    ("least", "most"),
    [("AUCTION_DURATION_MIN_SECONDS", "AUCTION_DURATION_MAX_SECONDS"), ("AUCTION_STEP_MIN_BP", "AUCTION_STEP_MAX_BP")],
)
def test_every_pair_of_bounds_is_held_to_its_order(monkeypatch: pytest.MonkeyPatch, least: str, most: str) -> None:
    monkeypatch.setenv(f"SOUK_{least}", "101")
    monkeypatch.setenv(f"SOUK_{most}", "100")
    with pytest.raises(SettingsError, match=f"SOUK_{least} is larger than SOUK_{most}"):
        load_settings()


@pytest.mark.parametrize(("name", "largest"), LARGEST.items())
def test_the_largest_value_is_accepted_and_the_next_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, largest: float
) -> None:
    companion = dict(pairs()).get(name)
    if companion:
        monkeypatch.setenv(f"SOUK_{companion.upper()}", str(LARGEST[companion]))
    if name == "withdraw_fee_nano":
        monkeypatch.setenv("SOUK_WITHDRAW_MAX_NANO", str(LARGEST["withdraw_max_nano"]))
    monkeypatch.setenv(f"SOUK_{name.upper()}", str(largest))
    assert getattr(load_settings(), name) == largest
    beyond = largest + 1 if isinstance(largest, int) else math.nextafter(largest, math.inf)
    for value in (beyond, 10**30):
        monkeypatch.setenv(f"SOUK_{name.upper()}", str(value))
        with pytest.raises(SettingsError, match=f"SOUK_{name.upper()}"):
            load_settings()


def pairs() -> list[tuple[str, str]]:
    """Settings of which the first may not exceed the second."""
    names = Settings.model_fields
    bounds = [(name, name.replace("_min_", "_max_")) for name in names if "_min_" in name]
    others = [("presale_penalty_bp", "presale_deposit_bp"), ("withdraw_fee_nano", "withdraw_min_nano")]
    return [(least, most) for least, most in (*bounds, *others) if most in names]


def test_every_number_has_a_largest_value() -> None:
    numbers = {name for name, field in Settings.model_fields.items() if field.annotation in (int, float, int | None)}
    assert numbers == LARGEST.keys()


def test_variables_that_are_no_settings_are_named_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told_of_unknown_variables() is None
    monkeypatch.setenv("SOUK_URL", "http://127.0.0.1:8000")
    monkeypatch.setenv("SOUK_API_KEY", "canary")
    monkeypatch.setenv("SOUK_TEST_OF_SOMEBODY", "1")
    monkeypatch.setenv("souk_lanes", "3")
    assert told_of_unknown_variables() is None
    monkeypatch.setenv("SOUK_SECRET_KEYS", "canary")
    Path(".env").write_text(
        "# SOUK_COMMENTED=1\nSOUK_LANES=4\nexport SOUK_LEASE_SECOND=canary\n SOUK_PURPLE = canary\nPURPLE=1\n"
    )
    told = told_of_unknown_variables()
    assert told == (
        "ignored, since there is no such setting: SOUK_LEASE_SECOND (is SOUK_LEASE_SECONDS meant?), SOUK_PURPLE, "
        "SOUK_SECRET_KEYS (is SOUK_SECRET_KEY meant?)"
    )


def test_no_secret_is_shown() -> None:
    settings = load_settings()
    assert "canary" not in repr(settings) + str(settings)
    assert "canary" not in str(settings.model_dump())


def test_the_terms_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_settings(), Terms)
    monkeypatch.setenv("SOUK_MARKET_FEE_BP", "250")
    assert load_settings().market_fee_bp == 250
    assert set(Terms.model_fields) < set(Settings.model_fields)
