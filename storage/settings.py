"""Settings: environment variables SOUK_…, also read from `.env`. A wrong value stops the process at start with a
sentence that names the variable."""

from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from commands.terms import Terms


class SettingsError(Exception):
    """A setting is missing or wrong; the text is one sentence for each, naming the variable."""


class Settings(BaseSettings, Terms):
    """Every setting with its unit and its default; the marketplace's terms are settings too."""

    model_config = SettingsConfigDict(env_prefix="SOUK_", env_file=".env", extra="ignore", frozen=True)

    database_url: SecretStr
    redis_url: SecretStr
    partitions: Annotated[int, Field(ge=1, le=999)] = 64
    """How many groups of assets are drained side by side; fixed in the database at installation."""
    batch_max: Annotated[int, Field(ge=1, le=5_000)] = 1_000
    """Commands in one transaction: larger batches share a commit among more, and hold their locks longer."""
    lanes: Annotated[int, Field(ge=1, le=16)] = 2
    """Batches a worker process has under way at once: while one waits for PostgreSQL, another decides."""
    lease_seconds: Annotated[float, Field(ge=0.5, le=300)] = 5
    """How long a silent worker keeps its partitions."""
    backlog_max: Annotated[int, Field(ge=1)] = 100_000
    """Accepted commands that may wait for execution before submissions are refused with 503."""
    actor_unfinished_max: Annotated[int, Field(ge=1)] = 1_000
    """Unfinished commands of one actor before its submissions are refused with 429."""
    body_max_bytes: Annotated[int, Field(ge=1_024)] = 1_048_576
    submission_batch_max: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    wait_max_seconds: Annotated[float, Field(ge=0, le=300)] = 30

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            message = "must be a postgresql:// URL"
            raise ValueError(message)
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            message = "must be a redis://, rediss:// or unix:// URL"
            raise ValueError(message)
        return value


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process. Raises SettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        sentences = [
            _sentence(item["loc"], item["msg"]) for item in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("; ".join(sentences)) from None


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    """What is wrong, with the variable's name; a message about several settings names them as fields."""
    text = message.removeprefix("Value error, ")
    if place:
        return f"SOUK_{str(place[0]).upper()}: {text[0].lower()}{text[1:]}"
    return " ".join(f"SOUK_{word.upper()}" if word in Settings.model_fields else word for word in text.split())
