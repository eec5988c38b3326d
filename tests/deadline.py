"""Waiting for what must come to pass, never longer than it may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx

_LOOK_SECONDS = 0.02
_BUSY_SECONDS = 20.0


async def eventually(holds: Callable[[], Awaitable[object]], seconds: float = 20, claim: str = "") -> None:
    """Look until it holds; fails when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, claim or "it did not come to pass"
        await asyncio.sleep(_LOOK_SECONDS)


async def again_while_busy(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The answer, asked for again as clients do while it is 503: a busy machine may take longer than is accepted in."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        answer = await ask()
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            return answer
        await asyncio.sleep(float(answer.headers["retry-after"]) * _LOOK_SECONDS)
