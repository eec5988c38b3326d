"""The marketplace that is audited."""

import pytest

from storage.settings import Settings
from tests.installation import Installer
from tests.system.audit.bazaar import Names, build
from tests.system.conftest import IMPATIENT


@pytest.fixture(scope="package")
async def market(installer: Installer) -> tuple[Settings, Names]:
    settings = await installer.install(**IMPATIENT)
    return settings, await build(settings)
