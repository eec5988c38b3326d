"""Real servers for every test that wants them, one of each per session."""

from collections.abc import Iterator

import pytest

from storage.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.installation import Installer


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def installer(postgres_server: EmbeddedPostgres, redis_server: EmbeddedRedis) -> Installer:
    return Installer(postgres_server, redis_server)
