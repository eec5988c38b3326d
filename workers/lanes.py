"""Read this first: the life of a batch.

A lane is one loop: take the ready partitions that no other lane has, run one batch over them, tell who waits, repeat.

    ready partitions ─▶ begin under their fences ─▶ claim ─▶ load ─▶ decide (pure) ─▶ write ─▶ COMMIT ─▶ finish

Doorbells and the sweeper make partitions ready; the journal says what there is to do in them. Whatever goes wrong, the
transaction is gone and the commands are still accepted, so the answer to bad weather is the same batch again. Only a
write that the database refuses, which is a bug of ours, is answered by going on command by command until the culprit is
found and set aside as failed.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

import asyncpg

from commands.decide import decide_all
from commands.outcome import Outcome, Status
from storage.database import Connection, Line, is_weather
from storage.settings import Settings
from storage.unit_of_work import Fenced, UnitOfWork

logger = logging.getLogger(__name__)

STATEMENT_SECONDS = 30.0
_BACKOFF_SECONDS = (0.05, 2.0)


class Batch(NamedTuple):
    """What one transaction did: the (partition, id) of the commands it finished, the partitions with more to do, its
    round trips, and the (partition, id) of commands that it accepted itself."""

    finished: list[tuple[int, UUID]]
    unfinished: set[int]
    round_trips: int
    follow_ups: list[tuple[int, UUID]]


async def run_batch(connection: Connection, settings: Settings, fences: Mapping[int, int], commands_max: int) -> Batch:
    """Execute the next commands of the partitions ({partition: fence}). Raises Fenced, or what the database raises."""
    limit_each = max(1, commands_max // len(fences))
    async with UnitOfWork(connection, settings) as work:
        await work.begin(fences)
        envelopes, book = await work.claim(list(fences), limit_each)
        if not envelopes:
            return Batch([], set(), work.round_trips, [])
        await work.load(book, envelopes)
        outcomes, postponed = decide_all(book, envelopes)
        await work.write(book, outcomes)
        await work.commit()
    _log_failures(outcomes)
    claimed = Counter(envelope.partition for envelope in envelopes)
    full = {partition for partition, count in claimed.items() if count == limit_each}
    finished = [(envelope.partition, envelope.id) for envelope in envelopes if envelope.id in outcomes]
    return Batch(finished, full | postponed, work.round_trips, work.follow_ups)


async def run_isolated(
    connection: Connection, settings: Settings, fences: Mapping[int, int], commands_max: int
) -> Batch:
    """The same commands, each in a transaction of its own: the one that the database refuses is set aside."""
    finished: list[tuple[int, UUID]] = []
    follow_ups: list[tuple[int, UUID]] = []
    round_trips = 0
    for partition, fence in fences.items():
        for _ in range(max(1, commands_max // len(fences))):
            try:
                batch = await run_batch(connection, settings, {partition: fence}, 1)
            except asyncpg.PostgresError as error:
                if is_weather(error):
                    raise
                batch = await _set_aside(connection, settings, {partition: fence}, error)
            round_trips += batch.round_trips
            if not batch.finished:
                break
            finished += batch.finished
            follow_ups += batch.follow_ups
    return Batch(finished, set(fences), round_trips, follow_ups)


async def _set_aside(
    connection: Connection, settings: Settings, fences: Mapping[int, int], error: asyncpg.PostgresError
) -> Batch:
    """The next command of the partition fails with the database's words."""
    async with UnitOfWork(connection, settings) as work:
        await work.begin(fences)
        envelopes, book = await work.claim(list(fences), 1)
        outcomes = {envelope.id: Outcome(Status.FAILED, error=repr(error)) for envelope in envelopes}
        if outcomes:
            await work.write(book, outcomes)
            await work.commit()
    _log_failures(outcomes)
    return Batch([(envelope.partition, envelope.id) for envelope in envelopes], set(), work.round_trips, [])


def _log_failures(outcomes: Mapping[UUID, Outcome]) -> None:
    for outcome in outcomes.values():
        if outcome.status is Status.FAILED:
            logger.error("a command is set aside as failed: %s", outcome.error)


class Lanes:
    """The lanes of one worker.

    `fences` is what it may drain, kept true by its leases; `finished` is told of what is done; `fenced` is
    set when a fence no longer holds; `totals` are batches, commands and round trips so far.
    """

    def __init__(self, settings: Settings, finished: Callable[[Batch], None]) -> None:
        self._settings = settings
        self._finished = finished
        self.fenced = asyncio.Event()
        self.fences: dict[int, int] = {}
        self.totals = (0, 0, 0)
        self._ready: dict[int, None] = {}  # in the order in which they became ready
        self._rung = asyncio.Event()
        self._stopping = False
        self.busy: set[int] = set()

    def ring(self, partitions: Iterable[int]) -> None:
        """There may be work in these partitions. Others' are passed over."""
        for partition in partitions:
            if partition in self.fences:
                self._ready.setdefault(partition)
        self._rung.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is ready and no batch is under way."""
        return not self.busy and not any(partition in self.fences for partition in self._ready)

    def stop(self) -> None:
        """Finish the batches in hand and take no more."""
        self._stopping = True
        self._rung.set()

    def _take(self) -> dict[int, int]:
        """Ready partitions for one batch, and their fences: at most a lane's share, so that the others find some."""
        share = -(-len(self.fences) // self._settings.lanes)
        free = [partition for partition in self._ready if partition in self.fences and partition not in self.busy]
        taken = {partition: self.fences[partition] for partition in free[:share]}
        for partition in taken:
            del self._ready[partition]
        self.busy |= taken.keys()
        return taken

    async def run_lane(self, number: int) -> None:
        """One lane, until stopped."""
        line = Line(self._settings, f"lane {number}", timeout_seconds=STATEMENT_SECONDS, pinned_plans=True)
        pause, pause_max = _BACKOFF_SECONDS
        refused = False
        while not self._stopping:
            fences = self._take()
            if not fences:
                self._rung.clear()
                await self._rung.wait()
                continue
            try:
                run = run_isolated if refused else run_batch
                batch = await run(await line.connected(), self._settings, fences, self._settings.batch_max)
                refused, pause = False, _BACKOFF_SECONDS[0]
                batches, commands, round_trips = self.totals
                self.totals = batches + 1, commands + len(batch.finished), round_trips + batch.round_trips
                self._finished(batch)
                again: Iterable[int] = batch.unfinished
            except Fenced:
                self.fenced.set()
                again = ()
            except Exception as error:
                again = fences
                if is_weather(error) or not refused:
                    logger.warning("a batch is repeated: %r", error)
                else:
                    logger.exception("a batch fails again and again")
                # Two partitions may have inserted the same user at once: one plain repeat tells that from a bug.
                refused = not is_weather(error)
                if not isinstance(error, asyncpg.PostgresError):
                    line.drop()
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
                pause = min(2 * pause, pause_max)
            finally:
                self.busy -= fences.keys()
            self.ring(again)
        await line.close()
