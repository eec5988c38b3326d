"""Hints: what a process tells Redis without anybody waiting for it.

What comes while one call is under way goes with the next. Redis may be away, slow or full: then what waits is thrown
away, for the sweeper finds every command in the journal anyway, and neither memory nor the log grows meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from uuid import UUID

from redis.exceptions import RedisError

from storage.queue import Queue
from storage.redis import REDIS_SECONDS

logger = logging.getLogger(__name__)

Hint = tuple[int, UUID]

WAITING_MAX = 20_000
"""More than a process handles in the seconds that one call may take."""
_CALL_MAX = 1_000
_TELL_SECONDS = 1.0


class Hints:
    """`enqueue` and `finish` of a queue. `lost` counts what was thrown away."""

    def __init__(self, queue: Queue) -> None:
        self._enqueued = _Line(queue.enqueue)
        self._finished = _Line(queue.finish)

    @property
    def lost(self) -> int:
        return self._enqueued.lost + self._finished.lost

    def enqueue(self, commands: Collection[Hint]) -> None:
        """Commands, by partition and id, were accepted."""
        self._enqueued.add(commands)

    def finish(self, commands: Collection[Hint]) -> None:
        """Commands have their outcome."""
        self._finished.add(commands)

    async def close(self) -> None:
        """Wait for what is under way, which is a matter of seconds."""
        await self._enqueued.close()
        await self._finished.close()


class _Line:
    """Hints of one sort, told in the order in which they came."""

    def __init__(self, tell: Callable[[list[Hint]], Awaitable[None]]) -> None:
        self._tell = tell
        self._waiting: list[Hint] = []
        self._task: asyncio.Task[None] | None = None
        self._told_at = float("-inf")
        self.lost = 0

    def add(self, hints: Collection[Hint]) -> None:
        if not hints:
            return
        self._waiting += hints
        if len(self._waiting) > WAITING_MAX:
            self._lose([], "too many wait")
        elif self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                telling, self._waiting = self._waiting[:_CALL_MAX], self._waiting[_CALL_MAX:]
                try:
                    async with asyncio.timeout(REDIS_SECONDS):
                        await self._tell(telling)
                except (RedisError, OSError, TimeoutError) as error:
                    self._lose(telling, str(error) or "Redis is slow")
        finally:
            self._task = None

    def _lose(self, telling: list[Hint], why: str) -> None:
        lost = len(telling) + len(self._waiting)
        self._waiting.clear()
        self.lost += lost
        now = asyncio.get_running_loop().time()
        if now - self._told_at > _TELL_SECONDS:
            self._told_at = now
            logger.warning("%d hints are lost: %s", lost, why)
