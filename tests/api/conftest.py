"""The application that most tests of the API share."""

from collections.abc import AsyncIterator

import pytest

from tests.api.api import Api, running
from tests.installation import Installer


@pytest.fixture(scope="session")
async def api(installer: Installer) -> AsyncIterator[Api]:
    async with running(await installer.install()) as api:
        yield api
