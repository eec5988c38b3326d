"""A site for each test: an installation of its own, found sound when the test is over."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.installation import Installer
from tests.system.site import Site, site_of

LEASE_SECONDS = 1.0
BATCH_MAX = 60  # small, so that a fault finds the load half done


@pytest.fixture
async def site(installer: Installer, tmp_path: Path) -> AsyncIterator[Site]:
    settings = await installer.install(partitions=8, lease_seconds=LEASE_SECONDS, batch_max=BATCH_MAX)
    async with site_of(settings, tmp_path / "logs") as site:
        yield site
