"""An installation of its own for each test, its journal, and a connection like a lane's."""

from collections.abc import AsyncIterator

import pytest

from storage.database import Connection, connect
from storage.journal import Journal
from storage.settings import Settings
from tests.installation import Installer


@pytest.fixture
async def settings(installer: Installer) -> Settings:
    return await installer.install()


@pytest.fixture
async def journal(settings: Settings) -> AsyncIterator[Journal]:
    journal = Journal(settings)
    yield journal
    await journal.close()


@pytest.fixture
async def lane(settings: Settings) -> AsyncIterator[Connection]:
    connection = await connect(settings, "test", timeout_seconds=10, pinned_plans=True)
    yield connection
    await connection.close()
