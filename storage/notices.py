"""Notices: publishes that say "look". They may be lost, so whoever listens looks by itself from time to time, and more
often while `connected` is false."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from redis.asyncio.client import PubSub, Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.5
_IDLE_SECONDS = 5.0


class Listener:
    """One subscription of a process: calls `heard(channel, message)` for each notice, whatever Redis goes through."""

    def __init__(self, redis: Redis, heard: Callable[[str, str], None]) -> None:
        self._redis = redis
        self._heard = heard
        self._channels: set[str] = set()
        self._pubsub: PubSub | None = None
        self.connected = False

    async def listen_to(self, channels: Iterable[str]) -> None:
        """Listen to exactly these channels from now on."""
        wanted = set(channels)
        added, dropped = wanted - self._channels, self._channels - wanted
        self._channels = wanted
        if self._pubsub is None:
            return
        with suppress(RedisError, OSError):  # `run` notices too, and subscribes anew
            if added:
                await self._pubsub.subscribe(*added)
            if dropped:
                await self._pubsub.unsubscribe(*dropped)

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
        pubsub = self._redis.pubsub()
        try:
            if not self._channels:
                return
            await pubsub.subscribe(*self._channels)
            self._pubsub = pubsub
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=False, timeout=_IDLE_SECONDS)
                if message is None:
                    await pubsub.ping()
                elif message["type"] == "message":
                    self._heard(message["channel"].decode(), message["data"].decode())
                else:
                    self.connected = True
        finally:
            self._pubsub = None
            with suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
