"""Real servers for every test that wants them, one of each per session, and installations on them."""

import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
from storage.journal.accept import Journal
from storage.postgres.connection import Connection, connect
from storage.settings import Settings
from tests.installation import REDIS_DATABASES, Installer


def pytest_collection_finish() -> None:
    """What was imported stays, and the rest is collected seldom: a tenth of the time went into that."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """A connection that a module forgot is reported in that module."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), databases=REDIS_DATABASES) as server:
        yield server


@pytest.fixture(scope="session")
def installer(postgres_server: EmbeddedPostgres, redis_server: EmbeddedRedis) -> Installer:
    return Installer(postgres_server, redis_server)


@pytest.fixture
async def settings(installer: Installer) -> Settings:
    """An installation of its own for each test."""
    return await installer.install()


@pytest.fixture
async def journal(settings: Settings) -> AsyncIterator[Journal]:
    journal = Journal(settings)
    yield journal
    await journal.close()


@pytest.fixture
async def lane(settings: Settings) -> AsyncIterator[Connection]:
    """A connection like a lane's."""
    connection = await connect(settings, "test", timeout_seconds=10, pinned_plans=True)
    yield connection
    await connection.close()
