"""After each, the audit holds."""

from base64 import urlsafe_b64encode
from binascii import crc_hqx
from collections.abc import AsyncIterator

import pytest

from tests.system.marketplace import Marketplace


@pytest.fixture(autouse=True)
async def sound(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    yield
    if "marketplace" in request.fixturenames:
        marketplace: Marketplace = request.getfixturevalue("marketplace")
        await marketplace.site.assert_sound()


@pytest.fixture(scope="session")
def address() -> str:
    """A TON address that is not the platform's."""
    body = bytes([0x51, 0]) + bytes(range(32))
    return urlsafe_b64encode(body + crc_hqx(body, 0).to_bytes(2)).decode()
