"""Waiting for what must come to pass, never longer than it may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable

_LOOK_SECONDS = 0.02


async def eventually(holds: Callable[[], Awaitable[object]], seconds: float = 20, claim: str = "") -> None:
    """Look until it holds; fails when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, claim or "it did not come to pass"
        await asyncio.sleep(_LOOK_SECONDS)
