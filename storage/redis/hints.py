"""Hints: what a process tells Redis without anybody waiting for it.

What comes while one call is under way goes with the next. Redis may be away, slow or full: then what waits is thrown
away, for the sweeper finds every command in the journal anyway, and neither memory nor the log grows meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Generic, TypeVar
from uuid import UUID

from redis.exceptions import RedisError

from storage.redis.addresses import REDIS_SECONDS
from storage.redis.queue import Queue

logger = logging.getLogger(__name__)

Hint = tuple[int, UUID]
_Item = TypeVar("_Item")

WAITING_MAX = 20_000
"""More than a process handles in the seconds that one call may take."""
_CALL_MAX = 1_000
_TELL_SECONDS = 1.0


class Hints:
    """`enqueue`, `begin` and `finish` of a queue. `lost` counts what was thrown away."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._enqueued = _Line(queue.enqueue)
        self._begun = _Line(queue.begin)
        self._finished = _Line(self._tell_finished)

    @property
    def lost(self) -> int:
        return self._enqueued.lost + self._finished.lost

    def enqueue(self, commands: Collection[Hint]) -> None:
        """Commands, by partition and id, were accepted."""
        self._enqueued.add(commands)

    def begin(self, commands: Collection[Hint]) -> None:
        """Commands are under way, and take long."""
        self._begun.add(commands)

    def finish(self, commands: Collection[Hint], records: Mapping[UUID, str] | None = None) -> None:
        """Commands have their outcome; `records` of some, by id, are kept where results are."""
        known = records or {}
        self._finished.add([(partition, id_, known.get(id_)) for partition, id_ in commands])

    async def _tell_finished(self, finished: list[tuple[int, UUID, str | None]]) -> None:
        records = {id_: record for _, id_, record in finished if record is not None}
        await self._queue.finish(((partition, id_) for partition, id_, _ in finished), records)

    async def close(self) -> None:
        """Wait for what is under way, which is a matter of seconds."""
        await self._enqueued.close()
        await self._begun.close()
        await self._finished.close()


class _Line(Generic[_Item]):
    """Hints of one sort, told in the order in which they came."""

    def __init__(self, tell: Callable[[list[_Item]], Awaitable[None]]) -> None:
        self._tell = tell
        self._waiting: list[_Item] = []
        self._task: asyncio.Task[None] | None = None
        self._told_at = float("-inf")
        self.lost = 0

    def add(self, hints: Collection[_Item]) -> None:
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

    def _lose(self, telling: list[_Item], why: str) -> None:
        lost = len(telling) + len(self._waiting)
        self._waiting.clear()
        self.lost += lost
        now = asyncio.get_running_loop().time()
        if now - self._told_at > _TELL_SECONDS:
            self._told_at = now
            logger.warning("%d hints are lost: %s", lost, why)
