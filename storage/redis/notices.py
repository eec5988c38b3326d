"""Notices: publishes that say "look". They may be lost, so whoever listens looks by itself from time to time, and more
often while `connected` is false."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from redis.asyncio.client import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.5
_IDLE_SECONDS = 1.0
_SILENT_SECONDS = 3.0
"""A server that hangs keeps its connections: who hears neither notices nor the answer to a ping asks another."""


class Listener:
    """One subscription of a process: calls `heard(message)` for each notice, whatever Redis goes through."""

    def __init__(self, redis: Redis, channel: str, heard: Callable[[str], None]) -> None:
        self._redis = redis
        self._channel = channel
        self._heard = heard
        self.connected = False

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if self.connected:
                    logger.warning("notices stopped: %s", error)
                self.connected = False
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        clock = asyncio.get_running_loop().time
        pubsub = self._redis.pubsub()
        try:
            await pubsub.subscribe(self._channel)
            heard_at = clock()
            while True:
                message = await pubsub.get_message(timeout=_IDLE_SECONDS)
                if message is None:
                    if clock() - heard_at > _SILENT_SECONDS:
                        raise TimeoutError("the server is silent")
                    await pubsub.ping()
                    continue
                heard_at = clock()
                if message["type"] == "message":
                    self._heard(message["data"].decode(errors="replace"))
                else:
                    self.connected = True
        finally:
            with suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
