"""Settings: environment variables SOUK_…, also read from `.env`. A wrong value stops the process at start with a
sentence that names the variable."""

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from commands.terms import SECONDS_MAX, Terms
from storage.redis.addresses import locate

_WHSEC = r"whsec_([A-Za-z0-9+/]{4}){8,}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"


ENV_FILE = ".env"
_PREFIX = "SOUK_"
_OTHERS = {
    *("SOUK_URL", "SOUK_API_KEY"),  # of the command line and of clients
    *("SOUK_DATABASE_PASSWORD", "SOUK_REDIS_PASSWORD", "SOUK_PORT"),  # of the compose file
}
_OF_TESTS = "SOUK_TEST_"
_ASSIGNED = re.compile(r"^[ \t]*(?:export[ \t]+)?(\w+)[ \t]*=", re.MULTILINE)


class SettingsError(Exception):
    """A setting is missing or wrong; the text is one sentence for each, naming the variable."""


class Settings(BaseSettings, Terms):
    """Every setting with its unit and its default; the marketplace's terms are settings too."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_file=ENV_FILE, extra="ignore", frozen=True)

    database_url: SecretStr
    redis_url: SecretStr
    read_database_url: SecretStr | None = None
    """A streaming replica that answers reads, though never for receipts; while it is away, the primary does."""
    pgbouncer: bool = False
    """Whether PostgreSQL is reached through PgBouncer in transaction mode."""
    partitions: Annotated[int, Field(ge=1, le=999)] = 64
    """How many groups of assets are drained side by side; fixed in the database at installation."""
    batch_max: Annotated[int, Field(ge=1, le=5_000)] = 1_000
    """Commands in one transaction: larger batches share a commit among more, and hold their locks longer."""
    lanes: Annotated[int, Field(ge=1, le=16)] = 2
    """Batches a worker process has under way at once: while one waits for PostgreSQL, another decides."""
    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 3
    """How long a silent worker keeps its partitions while Redis is away; its locks in Redis last two fifths as long."""
    backlog_max: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100_000
    """Accepted commands that may wait for execution before submissions are refused with 503."""
    actor_unfinished_max: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """Unfinished commands of one actor before its submissions are refused with 429."""
    body_max_bytes: Annotated[int, Field(ge=1_024, le=67_108_864)] = 1_048_576
    submission_batch_max: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    wait_max_seconds: Annotated[float, Field(ge=0, le=300)] = 30
    idempotency_days: Annotated[int, Field(ge=1, le=36_500)] = 30
    """How long an idempotency key stands for the command that it was first sent with."""
    keep_commands_days: Annotated[int | None, Field(ge=1, le=36_500)] = None
    """How long the journal keeps finished commands, and the log of calls to the outside; for ever when not set."""
    archive_commands: bool = True
    """Whether commands that are kept no longer go to `archived_commands`, where their receipts are still found, or are
    deleted."""
    streams_max: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Streams, WebSockets among them, that one credential may have open at each API process."""
    arq_results_seconds: Annotated[int | None, Field(ge=1, le=86_400)] = None
    """How long Redis keeps the results of jobs for arq's own clients; not at all when not set."""
    gateway_url: str | None = None
    """The operator's bridge to Telegram and the TON network; without one the sandbox answers."""
    gateway_secret: SecretStr | None = None
    """What requests to the bridge are signed with: `whsec_` and base64."""
    gateway_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10
    """How long a call of the gateway is waited for before its answer counts as unknown."""
    gateway_valid_seconds: Annotated[float, Field(gt=0, le=3_600)] = 60
    """How long after it was sent the bridge may still begin to perform a request."""
    gateway_attempts_max: Annotated[int, Field(ge=1, le=100)] = 12
    """Attempts at a request that was never seen, within `saga_give_up_seconds`."""
    gateway_backoff_seconds: Annotated[float, Field(gt=0, le=60)] = 1
    """Before the second attempt or lookup; doubled for each further one."""
    gateway_backoff_max_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600
    secret_key: SecretStr | None = None
    """What login codes, passwords and secrets of webhooks are stored under: 32 bytes in URL-safe base64. Without one
    they are refused."""
    webhook_private: bool = False
    """Whether webhooks may lead to private addresses, and over plain HTTP: to receivers in a network of one's own."""
    webhook_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 15
    webhook_backoff_seconds: Annotated[list[Annotated[float, Field(gt=0, le=SECONDS_MAX)]], Field(min_length=1)] = [
        *(5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
    ]
    """The pauses after each failure of a delivery; the last is repeated."""
    webhook_give_up_seconds: Annotated[float, Field(gt=0, le=SECONDS_MAX)] = 259_200
    """After how long a delivery that fails is given up, and its endpoint disabled."""

    @property
    def lock_seconds(self) -> float:
        """How long a worker's locks last that it does not renew."""
        return 0.4 * self.lease_seconds

    @field_validator("database_url", "read_database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            message = "must be a postgresql:// URL"
            raise ValueError(message)
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        locate(value.get_secret_value())
        return value

    @field_validator(
        *("read_database_url", "gateway_url", "gateway_secret", "secret_key", "keep_commands_days"),
        "arq_results_seconds",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("gateway_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and (not value.startswith(("http://", "https://")) or "@" in value):
            message = "must be an http:// or https:// URL without credentials"
            raise ValueError(message)
        return value

    @field_validator("gateway_secret")
    @classmethod
    def _whsec(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(_WHSEC, value.get_secret_value()):
            message = "must be whsec_ and at least 24 bytes in base64"
            raise ValueError(message)
        return value

    @field_validator("secret_key")
    @classmethod
    def _32_bytes(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_-]{43}=", value.get_secret_value()):
            message = "must be 32 bytes in URL-safe base64"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _a_bridge_has_a_secret(self) -> Self:
        if self.gateway_url is not None and self.gateway_secret is None:
            message = "gateway_url needs gateway_secret"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _a_key_has_its_command(self) -> Self:
        if self.keep_commands_days is not None and self.keep_commands_days < self.idempotency_days:
            message = "keep_commands_days must not be less than idempotency_days"
            raise ValueError(message)
        return self


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process. Raises SettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        sentences = [
            _sentence(item["loc"], item["msg"]) for item in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("; ".join(sentences)) from None
    except UnreadableError as error:  # a list that is not JSON; the field's name is the first thing in quotes
        _, name, *_ = str(error).split('"')
        raise SettingsError(f"SOUK_{name.upper()}: must be JSON") from None


def told_of_unknown_variables() -> str | None:
    """Returns a sentence that names the variables, of the environment and of `.env`, that look like settings and are
    none, or None when there is none. It shows no value."""
    unknown = list(_unknown_variables())
    return f"ignored, since there is no such setting: {', '.join(unknown)}" if unknown else None


def _unknown_variables() -> Iterator[str]:
    """Each with the setting that may be meant."""
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields} | _OTHERS
    file = Path(ENV_FILE)
    in_file = _ASSIGNED.findall(file.read_text(encoding="utf-8")) if file.is_file() else []
    for name in sorted({*os.environ, *in_file}):
        variable = name.upper()
        if not variable.startswith(_PREFIX) or variable.startswith(_OF_TESTS) or variable in known:
            continue
        meant = get_close_matches(
            variable.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in known], 1, 0.8
        )
        yield f"{name} (is {_PREFIX}{meant[0]} meant?)" if meant else name


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    """What is wrong, with the variable's name; a message about several settings names them as fields."""
    text = message.removeprefix("Value error, ")
    if place:
        return f"SOUK_{str(place[0]).upper()}: {text[0].lower()}{text[1:]}"
    return " ".join(f"SOUK_{word.upper()}" if word in Settings.model_fields else word for word in text.split())
