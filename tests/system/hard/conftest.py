"""After each, the audit holds."""

from collections.abc import AsyncIterator

import pytest

from tests.system.marketplace import Marketplace


@pytest.fixture(autouse=True)
async def sound(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    yield
    if "marketplace" in request.fixturenames:
        marketplace: Marketplace = request.getfixturevalue("marketplace")
        await marketplace.site.assert_sound()
