"""Leases: which worker drains which partitions.

A lease is the lock `partition:<n>` in Redis, and in PostgreSQL the partition's owner and fence. The lock says soon who
is gone; the fence, which grows when a lease is taken and is compared by every batch, says who may write. So whatever
Redis forgets or gives twice costs a hand-over, never a write. Every worker also holds the lock `worker:<id>` and is
alive in PostgreSQL for as long as it says so there: two signs of life, of which one counts.

| Redis                                 | a worker is gone when its | a lease is taken by its        |
|---------------------------------------|---------------------------|--------------------------------|
| has known the locks for a lock's life | lock `worker:<id>` ended  | lock, then owner and fence     |
| was just emptied, or is another       | sign in PostgreSQL ended  | lock, then owner and fence     |
| does not answer                       | sign in PostgreSQL ended  | owner and fence alone          |

Who holds goes on in all three. A worker whose row says that it does not live by its locks, because Redis does not let
it, is judged by its sign in PostgreSQL alone, whatever the others see of Redis. Every worker computes the same fair
shares from the list of those alive, hands back what exceeds its own and takes what is free; whoever frees or joins
tells the others by a notice.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta

from asyncpg import Record

from commands.outcome import Status
from storage.postgres.connection import Connection, Line, is_weather
from storage.redis.locks import Held, Locks, LockTimeout, LockUnavailable, Seen
from storage.settings import Settings
from workers.lanes import Lanes

logger = logging.getLogger(__name__)

_STATEMENT_SECONDS = 5.0
_LEAVE_SECONDS = 3.0
_TICKS_A_LEASE = 10
_SOON_SECONDS = 0.05
"""Until the next tick when a partition could not be taken because a batch was still under way in it."""
_AFTER_SECONDS = 0.01
"""How long after the end of a worker's lock it is looked for."""
_BURY_SECONDS = 60.0

_WORKER, _PARTITION = "worker:", "partition:"

_BEAT = """
INSERT INTO workers (id, alive_until, by_locks, batches, commands, round_trips, succeeded, rejected, failed, expired)
VALUES ($1, clock_timestamp() + $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until, by_locks = excluded.by_locks,
    batches = excluded.batches, commands = excluded.commands, round_trips = excluded.round_trips,
    succeeded = excluded.succeeded, rejected = excluded.rejected, failed = excluded.failed, expired = excluded.expired
"""
_ENDINGS = (Status.SUCCEEDED, Status.REJECTED, Status.FAILED, Status.EXPIRED)
_WORKERS = "SELECT id, alive_until > clock_timestamp() AS alive, by_locks FROM workers ORDER BY id"
_BURY = "DELETE FROM workers WHERE alive_until < clock_timestamp() - interval '1 minute'"
_OWNED = "SELECT id, fence, deaths FROM partitions WHERE owner = $1"
_FREE = "SELECT id FROM partitions WHERE owner IS NULL OR owner <> ALL($1::text[]) ORDER BY id"
# A partition with a batch under way is passed over: its row is locked until the batch has ended.
_TAKE = """
UPDATE partitions SET owner = $1, fence = fence + 1, deaths = deaths + (owner IS NOT NULL)::integer,
    tried_by = CASE WHEN trying IS NULL OR owner IS NULL THEN tried_by ELSE tried_by || owner END
WHERE id IN (
    SELECT id FROM partitions
    WHERE id = ANY($2::smallint[]) AND (owner IS NULL OR owner <> ALL($3::text[]))
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING id
"""
_HAND_BACK = "UPDATE partitions SET owner = NULL WHERE owner = $1 AND id = ANY($2::smallint[])"
_HAND_ALL_BACK = "UPDATE partitions SET owner = NULL WHERE owner = $1"
_LEAVE = "DELETE FROM workers WHERE id = $1"
_BORROW = """
UPDATE partitions SET owner = NULL, fence = fence + 1
WHERE id = $1 AND NOT EXISTS (SELECT FROM workers WHERE workers.id = owner AND alive_until > clock_timestamp())
RETURNING fence
"""
_BORROW_SECONDS = 0.05


def partition_lock(partition: int) -> str:
    """The key of a partition's lock."""
    return f"{_PARTITION}{partition}"


class Leases:
    """Keeps the `fences` of the lanes true, and rings for the partitions that come."""

    def __init__(self, settings: Settings, worker_id: str, lanes: Lanes, locks: Locks) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._lanes = lanes
        self._locks = locks
        self._line = Line(settings, "leases", timeout_seconds=_STATEMENT_SECONDS)
        self._held: dict[int, Held] = {}
        self._sign: Held | None = None
        self._mode = _Mode(settings.lock_seconds)
        self._beat_at: float | None = None
        self._judges_at = float("-inf")
        self._buried_at = float("-inf")
        self._next_seconds = 0.0
        self._tick_seconds = settings.lease_seconds / _TICKS_A_LEASE
        self.fences = lanes.fences
        locks.watch(self._on_keys)

    @property
    def by_locks(self) -> bool:
        """Whether the locks in Redis decide who is gone, and not the signs of life in PostgreSQL."""
        return self._mode.by_locks

    async def run(self) -> None:
        """Keeps the leases until cancelled."""
        while True:
            self._lanes.fenced.clear()
            self._next_seconds = self._tick_seconds
            try:
                await self._tick()
            except Exception as error:
                if not is_weather(error):
                    raise
                logger.warning("leases are not renewed: %r", error)
                self._line.doubt(error)
            with suppress(TimeoutError):  # a lane that met another fence, or let go, is a reason to look at once
                async with asyncio.timeout(self._next_seconds):
                    await self._lanes.fenced.wait()

    async def leave(self) -> None:
        """Hands everything back at once, so that others need not wait for the leases to run out."""
        self.fences.clear()
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                connection = await self._line.connected()
                await connection.execute(_HAND_ALL_BACK, self._worker_id)
                await connection.execute(_LEAVE, self._worker_id)
            await self._line.close()
        except Exception as error:
            if not is_weather(error):
                raise
            logger.warning("leases are left to run out: %r", error)
            self._line.drop()
        for held in [*self._held.values(), *filter(None, (self._sign,))]:
            self._locks.free(self, held)
        self._held, self._sign = {}, None

    def _on_keys(self, keys: Sequence[str]) -> None:
        """Looks at once when a lease was freed or lost, or when a worker has come or gone."""
        if any(key.startswith((_PARTITION, _WORKER)) for key in keys):
            self._lanes.fenced.set()

    async def _tick(self) -> None:
        connection = await self._line.connected()
        # Three ticks shorter than it is: others look once a tick, and drain what was ours before it is over.
        lease = timedelta(seconds=self._settings.lease_seconds * (1 - 3 / _TICKS_A_LEASE))
        endings = [self._lanes.endings[status] for status in _ENDINGS]
        await connection.execute(_BEAT, self._worker_id, lease, self.by_locks, *self._lanes.totals, *endings)
        self._judge()
        workers = await connection.fetch(_WORKERS)
        owned = await self._owned(connection)
        others = [row["id"] for row in workers if row["id"] != self._worker_id]
        seen, contested = await self._keep_locks(others, owned)
        living = self._living(workers, seen)
        share = fair_share(self._settings.partitions, living, self._worker_id)
        chosen: list[int] = []
        if contested or len(owned) > share:
            await self._hand_back(connection, owned, contested, share)
        elif len(owned) < share:
            chosen = await self._take(connection, living, share - len(owned))
            owned = await self._owned(connection)
        self._adopt(owned, chosen)
        if time.monotonic() > self._buried_at + _BURY_SECONDS:
            await connection.execute(_BURY)
            self._buried_at = time.monotonic()

    def _judge(self) -> None:
        """A worker that could not beat for a while cannot tell who is gone from who could not either: it gives the
        others a lease to show themselves."""
        now = time.monotonic()
        if self._beat_at is not None and now - self._beat_at > self._settings.lease_seconds / 2:
            self._judges_at = now + self._settings.lease_seconds
        self._beat_at = now

    def _living(self, workers: Sequence[Record], seen: Seen | None) -> list[str]:
        """The ids of the workers that are not gone, this one among them, in order."""
        self._mode.update(seen)
        judges = time.monotonic() >= self._judges_at
        living = {self._worker_id}
        for worker_id, alive, by_locks in workers:
            left = None if seen is None else seen.left_seconds.get(f"{_WORKER}{worker_id}")
            if self.by_locks and by_locks and left is None:
                continue
            if alive or not judges:
                living.add(worker_id)
                if self.by_locks and left is not None:
                    self._next_seconds = min(self._next_seconds, left + _AFTER_SECONDS)
        return sorted(living)

    # -- locks

    async def _keep_locks(self, others: Sequence[str], owned: Collection[int]) -> tuple[Seen | None, set[int]]:
        """Takes what is missing of our own locks, and looks at the signs of life of the others. Returns what was seen,
        None when Redis does not answer, and the owned partitions whose lock somebody else holds."""
        joins = self._sign is None
        missing = [number for number in owned if number not in self._held or self._held[number].lost]
        try:
            if self._sign is None or self._sign.lost:
                key = f"{_WORKER}{self._worker_id}"
                self._sign = (await self._take_locks([key])).get(key)
                if joins and self._sign is not None:
                    self._locks.tell(key)
            await self._lock(missing)
            seen = await self._locks.look([f"{_WORKER}{other}" for other in others])
        except LockUnavailable:
            return None, set()
        return seen, {number for number in missing if number not in self._held}

    async def _take_locks(self, keys: Sequence[str]) -> dict[str, Held]:
        return await self._locks.take_free(keys, self, self._settings.lock_seconds)

    async def _lock(self, partitions: Collection[int]) -> None:
        """Takes the locks of those partitions that nobody holds. Raises LockUnavailable."""
        for number in partitions:
            self._unlock(number)
        if partitions:
            taken = await self._take_locks([partition_lock(number) for number in partitions])
            self._held |= {number: taken[key] for number in partitions if (key := partition_lock(number)) in taken}

    def _unlock(self, partition: int) -> None:
        held = self._held.pop(partition, None)
        if held is not None:
            self._locks.free(self, held)

    # -- owners and fences

    async def _owned(self, connection: Connection) -> dict[int, int]:
        rows = await connection.fetch(_OWNED, self._worker_id)
        for row in rows:
            if row["deaths"] and self.fences.get(row["id"]) != row["fence"]:  # it comes, and somebody died with it
                self._lanes.deaths[row["id"]] = row["deaths"]
        return {row["id"]: row["fence"] for row in rows}

    async def _take(self, connection: Connection, living: Sequence[str], count: int) -> list[int]:
        """Takes up to `count` partitions that belong to nobody who lives: their locks, where Redis answers, then owner
        and fence. Returns those that were chosen, some of which may have to be tried again."""
        free = [row["id"] for row in await connection.fetch(_FREE, living)]
        chosen = await self._choose(free, count)
        if chosen:
            rows = await connection.fetch(_TAKE, self._worker_id, chosen, living)
            if len(rows) < len(chosen):
                self._next_seconds = _SOON_SECONDS
        return chosen

    async def _choose(self, free: list[int], count: int) -> list[int]:
        """Partitions to take, whose locks are ours if Redis answers. Every worker begins at another place, so that
        those who look at the same moment seldom ask for the same."""
        place = zlib.crc32(self._worker_id.encode()) % len(free) if free else 0
        rest = free[place:] + free[:place]
        chosen = [number for number in rest if number in self._held and not self._held[number].lost][:count]
        rest = [number for number in rest if number not in chosen]
        while rest and len(chosen) < count:
            asked, rest = rest[: count - len(chosen)], rest[count - len(chosen) :]
            try:
                await self._lock(asked)
            except LockUnavailable:
                return chosen + asked
            chosen += [number for number in asked if number in self._held]
        return chosen

    async def _hand_back(self, connection: Connection, owned: dict[int, int], contested: set[int], share: int) -> None:
        """Hands back the contested partitions and what exceeds the share, the locks last. One with a batch under way
        gets no further batch and follows when it has ended: a worker that always has work would never hand back else.
        Those with no batch under way go first."""
        busy = self._lanes.busy
        mine = sorted(owned.keys() - contested, key=lambda number: (number in busy, number in self.fences, -number))
        leaving = [*contested, *mine[: max(0, len(mine) - share)]]
        for number in leaving:
            del owned[number]
            self.fences.pop(number, None)
        idle = [number for number in leaving if number not in busy]
        if idle:
            await connection.execute(_HAND_BACK, self._worker_id, idle)

    def _adopt(self, owned: dict[int, int], chosen: Collection[int]) -> None:
        """Drains what is owned from now on, and frees the locks of all else but what is to be tried again."""
        for number in [number for number in self._held if number not in owned and number not in chosen]:
            if number not in self._lanes.busy:
                self._unlock(number)
        came = [partition for partition, fence in owned.items() if self.fences.get(partition) != fence]
        if came or len(owned) != len(self.fences):
            self.fences.clear()
            self.fences.update(owned)
            self._lanes.forget_others()
            self._lanes.ring(came)


@asynccontextmanager
async def borrowed(connection: Connection, locks: Locks, settings: Settings, partition: int) -> AsyncIterator[int]:
    """Drains one partition for a moment, by the rules of leases, without being a worker with a share. Gives its new
    fence. Raises LockTimeout while a worker drains it."""
    async with AsyncExitStack() as held:
        hold = locks.hold(partition_lock(partition), lease_seconds=settings.lock_seconds, wait_seconds=_BORROW_SECONDS)
        with suppress(LockUnavailable):
            await held.enter_async_context(hold)
        fence = await connection.fetchval(_BORROW, partition)
        if fence is None:
            raise LockTimeout(partition_lock(partition))
        yield fence


class _Mode:
    """Which sign of life counts, and the lines of the log that say so when it changes."""

    def __init__(self, lock_seconds: float) -> None:
        self._lock_seconds = lock_seconds
        self._since = time.monotonic()
        self._told: bool | None = None
        self.by_locks = False

    def update(self, seen: Seen | None) -> None:
        self.by_locks = seen is not None and seen.known_seconds >= self._lock_seconds
        beginning = self._told is None and time.monotonic() < self._since + 3 * self._lock_seconds
        if self.by_locks == self._told or (beginning and not self.by_locks):
            return
        if not self.by_locks:
            why = "does not answer" if seen is None else "has just begun to know the locks"
            logger.warning("leases live by PostgreSQL: Redis %s", why)
        elif self._told is not None:
            logger.warning("leases live by their locks in Redis again")
        self._told = self.by_locks


def fair_share(partitions: int, living: Sequence[str], worker_id: str) -> int:
    """How many partitions a worker should have: the same sum for all who see the same list of the living, in order."""
    share, rest = divmod(partitions, len(living))
    return share + (living.index(worker_id) < rest)
