"""Leases: which worker drains which partitions.

A lease lasts as long as its worker is alive, which it says once a tick; the partition's fence, bumped when it is taken,
is what keeps a worker that was asleep past its lease from writing. Every worker computes the same fair shares from the
list of those alive, hands back what exceeds its own and takes what is free.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

from commands.outcome import Status
from storage.database import Connection, Line, is_weather
from storage.settings import Settings
from workers.lanes import Lanes

logger = logging.getLogger(__name__)

_STATEMENT_SECONDS = 5.0
_LEAVE_SECONDS = 3.0
_TICKS_A_LEASE = 5

_BEAT = """
INSERT INTO workers (id, alive_until, batches, commands, round_trips, succeeded, rejected, failed, expired)
VALUES ($1, clock_timestamp() + $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until, batches = excluded.batches,
    commands = excluded.commands, round_trips = excluded.round_trips, succeeded = excluded.succeeded,
    rejected = excluded.rejected, failed = excluded.failed, expired = excluded.expired
"""
_ENDINGS = (Status.SUCCEEDED, Status.REJECTED, Status.FAILED, Status.EXPIRED)
_ALIVE = "SELECT id FROM workers WHERE alive_until > clock_timestamp() ORDER BY id"
_BURY = "DELETE FROM workers WHERE alive_until < clock_timestamp() - interval '1 minute'"
_OWNED = "SELECT id, fence, deaths FROM partitions WHERE owner = $1"
_TAKE = """
UPDATE partitions SET owner = $1, fence = fence + 1, deaths = deaths + (owner IS NOT NULL)::integer
WHERE id IN (
    SELECT id FROM partitions
    WHERE owner IS NULL
        OR NOT EXISTS (SELECT 1 FROM workers WHERE workers.id = owner AND alive_until > clock_timestamp())
    ORDER BY id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
)
"""
_HAND_BACK = "UPDATE partitions SET owner = NULL WHERE owner = $1 AND id = ANY($2::smallint[])"
_LEAVE = "DELETE FROM workers WHERE id = $1"


class Leases:
    """Keeps the `fences` of the lanes true, and rings for the partitions that come."""

    def __init__(
        self,
        settings: Settings,
        worker_id: str,
        lanes: Lanes,
    ) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._lanes = lanes
        self._line = Line(settings, "leases", timeout_seconds=_STATEMENT_SECONDS)
        self.fences = lanes.fences

    async def run(self) -> None:
        """Keep the leases until cancelled."""
        tick_seconds = self._settings.lease_seconds / _TICKS_A_LEASE
        while True:
            try:
                await self._tick()
            except Exception as error:
                if not is_weather(error):
                    raise
                logger.warning("leases are not renewed: %r", error)
                self._line.doubt(error)
            self._lanes.fenced.clear()
            with suppress(TimeoutError):  # a lane that met another fence, or let go, is a reason to look at once
                async with asyncio.timeout(tick_seconds):
                    await self._lanes.fenced.wait()

    async def leave(self) -> None:
        """Hand everything back at once, so that others need not wait for the lease to run out."""
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                connection = await self._line.connected()
                self.fences.clear()
                await connection.execute("UPDATE partitions SET owner = NULL WHERE owner = $1", self._worker_id)
                await connection.execute(_LEAVE, self._worker_id)
            await self._line.close()
        except Exception as error:
            if not is_weather(error):
                raise
            logger.warning("leases are left to run out: %r", error)
            self._line.drop()

    async def _tick(self) -> None:
        connection = await self._line.connected()
        # A tick shorter than it is: others look once a tick, and have what was ours when it is over.
        lease = timedelta(seconds=self._settings.lease_seconds * (1 - 1 / _TICKS_A_LEASE))
        endings = [self._lanes.endings[status] for status in _ENDINGS]
        await connection.execute(_BEAT, self._worker_id, lease, *self._lanes.totals, *endings)
        alive = [row[0] for row in await connection.fetch(_ALIVE)]
        share = fair_share(self._settings.partitions, alive, self._worker_id)
        owned = await self._owned(connection)
        if len(owned) > share:
            await self._hand_back(connection, owned, len(owned) - share)
        elif len(owned) < share:
            await connection.execute(_TAKE, self._worker_id, share - len(owned))
            owned = await self._owned(connection)
        await connection.execute(_BURY)
        self._adopt(owned)

    async def _owned(self, connection: Connection) -> dict[int, int]:
        rows = await connection.fetch(_OWNED, self._worker_id)
        for row in rows:
            if row["deaths"] and self.fences.get(row["id"]) != row["fence"]:  # it comes, and somebody died with it
                self._lanes.deaths[row["id"]] = row["deaths"]
        return {row["id"]: row["fence"] for row in rows}

    async def _hand_back(self, connection: Connection, owned: dict[int, int], count: int) -> None:
        """Partitions with no batch under way go first. The others get no further batch and follow when theirs has
        ended: a worker that always has work would never hand back else."""
        busy = self._lanes.busy
        extra = sorted(owned, key=lambda partition: (partition in busy, partition in self.fences, -partition))[:count]
        for partition in extra:
            del owned[partition]
            self.fences.pop(partition, None)
        idle = [partition for partition in extra if partition not in busy]
        await connection.execute(_HAND_BACK, self._worker_id, idle)

    def _adopt(self, owned: dict[int, int]) -> None:
        came = [partition for partition, fence in owned.items() if self.fences.get(partition) != fence]
        if came or len(owned) != len(self.fences):
            self.fences.clear()
            self.fences.update(owned)
            self._lanes.forget_others()
            self._lanes.ring(came)


def fair_share(partitions: int, alive: list[str], worker_id: str) -> int:
    """How many partitions a worker should have: the same sum for all who see the same list of the living."""
    if worker_id not in alive:  # it slept past its lease a moment ago: the others may have counted without it
        return 0
    share, rest = divmod(partitions, len(alive))
    return share + (alive.index(worker_id) < rest)
