"""Installations for tests: databases of their own on the session's servers, for processes or an app in this one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
from storage.postgres.connection import Connection, engine
from storage.postgres.schema import migrate
from storage.settings import Settings, load_settings

PASSWORD = "canary-of-the-database-password"
"""The embedded server asks for none, so any will do; it must never be seen in an answer or a log."""

REDIS_DATABASES = 1_000
"""One for each installation, as installations need: their partitions and locks have the same names."""


class Installer:
    """Makes installations on the two servers, quickly: each is a copy of one that was migrated."""

    def __init__(self, postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> None:
        self._postgres = postgres
        self._redis = redis
        self._count = 0
        self._templates: dict[int, str] = {}

    async def install(self, *, partitions: int = 4, **settings: Any) -> Settings:
        """The settings of a new installation."""
        if partitions not in self._templates:
            template = await self._create("template1")
            await prepare(self._settings(template, partitions=partitions))
            self._templates[partitions] = template
        return self._settings(await self._create(self._templates[partitions]), partitions=partitions, **settings)

    async def empty(self) -> Settings:
        """The settings of a database in which nothing is installed."""
        return self._settings(await self._create("template1"))

    async def copy(self, settings: Settings) -> Settings:
        """The settings of a copy of an installation that nobody is connected to."""
        source = settings.database_url.get_secret_value().partition("?")[0].rpartition("/")[2]
        return with_database(settings, database_url(self._postgres, await self._create(source)))

    def _settings(self, database: str, **settings: Any) -> Settings:
        redis_url = f"{self._redis.url}?db={self._count % REDIS_DATABASES}"
        return load_settings(
            database_url=SecretStr(database_url(self._postgres, database)), redis_url=SecretStr(redis_url), **settings
        )

    async def _create(self, template: str) -> str:
        self._count += 1
        name = f"souk_{self._count}"
        connection = await asyncpg.connect(self._postgres.url)
        try:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        finally:
            await connection.close()
        return name


def database_url(postgres: EmbeddedPostgres, database: str) -> str:
    return postgres.url.replace("postgres@", f"postgres:{PASSWORD}@").replace("/souk?", f"/{database}?")


def with_database(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(url)})


async def prepare(settings: Settings) -> None:
    """Migrate."""
    pool = engine(settings)
    try:
        await migrate(pool, settings)
    finally:
        await pool.dispose()


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables that give a process these settings."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {
        f"SOUK_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        yield connection
    finally:
        await connection.close()
