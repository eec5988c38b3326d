"""A site for each test, an installation of its own; a marketplace and a stack that many share.

All are found sound at the end.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tests.installation import Installer
from tests.system.command_line import on, run
from tests.system.marketplace import Marketplace, open_marketplace
from tests.system.site import Site, site_of
from tests.system.upstack import SMALL, Up

__all__ = ["on", "run"]

LEASE_SECONDS = 1.5
IMPATIENT: dict[str, Any] = {
    "gateway_timeout_seconds": 1.0,
    "gateway_backoff_seconds": 0.1,
    "gateway_backoff_max_seconds": 0.2,
    "secret_key": SecretStr(Fernet.generate_key().decode()),
}
"""Couriers who look again soon."""
BATCH_MAX = 60  # small, so that a fault finds the load half done


@pytest.fixture
async def site(installer: Installer, tmp_path: Path) -> AsyncIterator[Site]:
    settings = await installer.install(partitions=8, lease_seconds=LEASE_SECONDS, batch_max=BATCH_MAX)
    async with site_of(settings, tmp_path / "logs") as site:
        yield site


@pytest.fixture(scope="session")
async def marketplace(installer: Installer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Marketplace]:
    """One for all, with two workers."""
    settings = await installer.install(partitions=8, lease_seconds=LEASE_SECONDS, **IMPATIENT)
    async with open_marketplace(settings, tmp_path_factory.mktemp("marketplace") / "logs", 2) as marketplace:
        yield marketplace


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("stack") / "data", *SMALL) as stack:
        yield stack
        audited = stack.souk("audit")
        assert audited.returncode == 0, audited.stdout
        log = stack.log.read_text()
        assert "Traceback" not in log
        assert stack.key not in log
