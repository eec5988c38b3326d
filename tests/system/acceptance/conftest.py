"""The person who acts in every scenario; and after each, the audit holds."""

from collections.abc import AsyncIterator

import pytest

from tests.system.marketplace import Marketplace


@pytest.fixture(autouse=True)
async def sound(marketplace: Marketplace) -> AsyncIterator[None]:
    yield
    await marketplace.site.assert_sound()


@pytest.fixture
async def me(marketplace: Marketplace) -> int:
    """A user with 10 TON."""
    return await marketplace.person()


@pytest.fixture
async def other(marketplace: Marketplace) -> int:
    """Another user with 10 TON."""
    return await marketplace.person()


@pytest.fixture
async def poor(marketplace: Marketplace) -> int:
    """A user without money."""
    return await marketplace.person(0)
