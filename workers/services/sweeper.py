"""The sweeper: makes the hints in Redis true again, and finds work without them.

Hints may be lost, doubled or forged. Once a turn the sweeper rings for every owned partition that has accepted commands
in the journal or jobs in its queue, enqueues anew the commands whose hint is missing, and discards jobs that stand for
no waiting command. While Redis is away it turns faster: the journal alone carries the work. Redis gets no more of a
turn than the pause between two: a slow one is no reason to look at the journal later.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from uuid import UUID

from asyncpg import Record
from redis.exceptions import RedisError

from storage.postgres.connection import Connection, Line, is_weather
from storage.redis.queue import Queue, job_id
from storage.settings import Settings

logger = logging.getLogger(__name__)

TURN_SECONDS = 1.0
TURN_SECONDS_WITHOUT_NOTICES = 0.05
_OLD_SECONDS = 2.0
_EACH = 100
_STATEMENT_SECONDS = 10.0

# The oldest waiting commands of each partition; `old` ones should have been executed by now.
_WAITING = """
SELECT c.partition, c.id, c.accepted_at < clock_timestamp() - make_interval(secs => $3) AS old
FROM unnest($1::smallint[]) AS owned(partition)
CROSS JOIN LATERAL (
    SELECT * FROM commands WHERE commands.partition = owned.partition AND status = 'accepted' ORDER BY seq LIMIT $2
) AS c
"""
_STILL_WAITING = "SELECT id FROM commands WHERE id = ANY($1::uuid[]) AND status IN ('accepted', 'scheduled')"


class Sweeper:
    """Sweeps the partitions that `owned` gives; `ring` is told which have work."""

    def __init__(
        self,
        settings: Settings,
        queue: Queue,
        owned: Callable[[], Collection[int]],
        ring: Callable[[Collection[int]], None],
        notices_work: Callable[[], bool],
    ) -> None:
        self._queue = queue
        self._owned = owned
        self._ring = ring
        self._notices_work = notices_work
        self._line = Line(settings, "sweeper", timeout_seconds=_STATEMENT_SECONDS, pinned_plans=True)

    async def run(self) -> None:
        """Sweep until cancelled."""
        try:
            await self._sweep()
        finally:
            await self._line.close()

    async def _sweep(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            notices_work = self._notices_work()
            next_at = clock() + (TURN_SECONDS if notices_work else TURN_SECONDS_WITHOUT_NOTICES)
            try:
                owned, waiting = await self._look()
                if notices_work:
                    await self._mend_until(next_at, owned, waiting)
            except Exception as error:
                if not is_weather(error):
                    raise
                logger.warning("the journal is not swept: %r", error)
                self._line.doubt(error)
                next_at = clock() + TURN_SECONDS
            await asyncio.sleep(next_at - clock())

    async def turn(self) -> None:
        """One look at the journal and the queues."""
        await self._mend(*await self._look())

    async def _look(self) -> tuple[list[int], list[Record]]:
        """Ring for what waits; the owned partitions, and the oldest commands that wait in each."""
        owned = list(self._owned())
        connection = await self._line.connected()
        waiting = await connection.fetch(_WAITING, owned, _EACH, _OLD_SECONDS)
        self._ring({row["partition"] for row in waiting})
        return owned, waiting

    async def _mend_until(self, end: float, owned: list[int], waiting: list[Record]) -> None:
        ending = asyncio.timeout_at(end)
        try:
            async with ending:
                await self._mend(owned, waiting)
        except RedisError as error:
            logger.warning("hints are not swept: %s", error)
        except TimeoutError:
            if not ending.expired():
                raise
            logger.warning("hints are not swept: Redis is slow")

    async def _mend(self, owned: list[int], waiting: list[Record]) -> None:
        queued = await self._queue.peek(owned, _EACH)
        self._ring(queued.keys())
        await self._queue.enqueue(
            (row["partition"], row["id"])
            for row in waiting
            if row["old"] and job_id(row["partition"], row["id"]) not in queued.get(row["partition"], ())
        )
        await self._discard_stale(await self._line.connected(), queued)

    async def _discard_stale(self, connection: Connection, queued: dict[int, list[str]]) -> None:
        """Jobs whose command is final, or is none at all."""
        ids = {job: _command_id(job) for jobs in queued.values() for job in jobs}
        rows = await connection.fetch(_STILL_WAITING, [id_ for id_ in ids.values() if id_ is not None])
        waiting = {row["id"] for row in rows}
        for partition, jobs in queued.items():
            stale = [job for job in jobs if ids[job] not in waiting]
            if stale:
                await self._queue.discard(partition, stale)


def _command_id(job: str) -> UUID | None:
    """The command a job stands for, or None for a job that is none of ours."""
    try:
        return UUID(job.rpartition(":")[2])
    except ValueError:
        return None
