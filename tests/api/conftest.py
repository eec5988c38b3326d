"""The application that most tests of the API share."""

from collections.abc import AsyncIterator

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tests.api.api import Api, running
from tests.api.bazaar import Bazaar
from tests.installation import Installer


@pytest.fixture(scope="session")
async def api(installer: Installer) -> AsyncIterator[Api]:
    secret_key = SecretStr(Fernet.generate_key().decode())
    async with running(await installer.install(secret_key=secret_key)) as api:
        yield api


@pytest.fixture(scope="package")
async def bazaar(installer: Installer) -> AsyncIterator[Bazaar]:
    """For reading only."""
    async with running(await installer.install()) as api:
        bazaar = Bazaar(api)
        await bazaar.open()
        yield bazaar
