"""A batch: one transaction over the next commands of some partitions, and what to do when that cannot be had.

`run_batch` is the way of all of them. `run_isolated` finds the command whose write the database refuses, which is a bug
of ours. `run_suspect` drains a partition whose worker died, in case it was one of its commands that killed it.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg

from commands.book import Book
from commands.command import Envelope
from commands.decide import decide_all
from commands.outcome import Outcome, Status
from storage.journal.unit_of_work import Fenced, UnitOfWork
from storage.postgres.connection import Connection, is_weather
from storage.redis.queue import result_record
from storage.settings import Settings

logger = logging.getLogger(__name__)

SUSPECT_STEP = 64
"""Commands of a suspect partition in one turn."""
ALONE_AFTER_DEATHS = 2
DEATHS_MAX = 3
"""Workers that may die of one command."""
LOSSES_MAX = 50
"""Workers that may lose the lease while they try one command, though they live on: it takes longer than a lease."""
_REFUSALS_MAX = 3

_NEXT = "SELECT id FROM commands WHERE partition = $1 AND status = 'accepted' ORDER BY seq LIMIT 1"
_TRY = """
UPDATE partitions SET trying = $3, tried_by = CASE WHEN trying = $3 THEN tried_by ELSE '{}' END
WHERE id = $1 AND fence = $2 RETURNING cardinality(tried_by)
"""
_DIED = """
SELECT count(*) FROM partitions, unnest(tried_by) AS former(id)
WHERE partitions.id = $1
    AND NOT EXISTS (SELECT FROM workers WHERE workers.id = former.id AND alive_until > clock_timestamp())
"""
_CLEAR = "UPDATE partitions SET deaths = 0, trying = NULL, tried_by = '{}' WHERE id = $1 AND fence = $2"


class Batch(NamedTuple):
    """What one transaction did: the (partition, id) of the commands it finished, the partitions with more to do, its
    round trips, the (partition, id) of commands that it accepted itself, how many commands ended in which way, and
    where results are kept arq's records of them."""

    finished: list[tuple[int, UUID]]
    unfinished: set[int]
    round_trips: int
    follow_ups: list[tuple[int, UUID]]
    endings: Counter[Status] = Counter()  # noqa: RUF012 - never changed in place
    records: Mapping[UUID, str] = {}


class Hand:
    """What a lane has in hand: the (partition, id) of the commands claimed last, and since when."""

    def __init__(self) -> None:
        self.commands: list[tuple[int, UUID]] = []
        self.tries = 1
        self.since = 0.0

    def take(self, envelopes: Sequence[Envelope]) -> None:
        self.commands = [(envelope.partition, envelope.id) for envelope in envelopes]
        self.since = time.monotonic()

    def put_back(self) -> int:
        """They are to be tried again; how many they are."""
        self.tries += 1
        count = len(self.commands)
        self.commands = []
        return count

    def empty(self) -> None:
        """They are done, or somebody else's."""
        self.tries = 1
        self.commands = []


async def run_batch(
    connection: Connection,
    settings: Settings,
    fences: Mapping[int, int],
    commands_max: int,
    only: UUID | None = None,
    hand: Hand | None = None,
) -> Batch:
    """Execute the next commands of the partitions ({partition: fence}); with `only`, nothing when another one is next.
    `hand` takes what is claimed. Raises Fenced, or what the database raises."""
    hand = hand or Hand()
    limit_each = max(1, commands_max // len(fences))
    async with UnitOfWork(connection, settings) as work:
        await work.begin(fences)
        envelopes, book = await work.claim(list(fences), limit_each)
        if not envelopes or only not in (None, envelopes[0].id):
            return Batch([], set(), work.round_trips, [])
        hand.take(envelopes)
        await work.load(book, envelopes)
        outcomes, postponed = decide_all(book, envelopes)
        await work.write(book, outcomes)
        await work.commit()
    _log_failures(outcomes)
    claimed = Counter(envelope.partition for envelope in envelopes)
    full = {partition for partition, count in claimed.items() if count == limit_each}
    finished = [(envelope.partition, envelope.id) for envelope in envelopes if envelope.id in outcomes]
    records = _records(settings, envelopes, outcomes, book, hand)
    return Batch(finished, full | postponed, work.round_trips, work.follow_ups, _endings(outcomes), records)


async def run_isolated(
    connection: Connection, settings: Settings, fences: Mapping[int, int], commands_max: int, hand: Hand | None = None
) -> Batch:
    """The same commands, each in a transaction of its own: the one that the database refuses is set aside."""
    finished: list[tuple[int, UUID]] = []
    follow_ups: list[tuple[int, UUID]] = []
    endings: Counter[Status] = Counter()
    records: dict[UUID, str] = {}
    round_trips = 0
    for partition, fence in fences.items():
        for _ in range(max(1, commands_max // len(fences))):
            command_id = await connection.fetchval(_NEXT, partition)
            if command_id is None:
                break
            batch = await _run_alone(connection, settings, {partition: fence}, command_id, hand or Hand())
            round_trips += batch.round_trips + 1
            if not batch.finished:
                break
            finished += batch.finished
            follow_ups += batch.follow_ups
            endings += batch.endings
            records |= batch.records
    return Batch(finished, set(fences), round_trips, follow_ups, endings, records)


async def _run_alone(
    connection: Connection, settings: Settings, fences: Mapping[int, int], command_id: UUID, hand: Hand
) -> Batch:
    """The next command of a partition, which is this one unless it was cancelled meanwhile; it is set aside when the
    database refuses it again and again. Once is no proof: another lane may have inserted the same user in this moment.
    """
    error: asyncpg.PostgresError | None = None
    for _ in range(_REFUSALS_MAX):
        try:
            return await run_batch(connection, settings, fences, 1, command_id, hand)
        except asyncpg.PostgresError as refusal:
            if is_weather(refusal):
                raise
            error = refusal
    return await _set_aside(connection, settings, fences, command_id, repr(error), hand)


async def run_suspect(
    connection: Connection, settings: Settings, partition: int, fence: int, deaths: int, hand: Hand | None = None
) -> tuple[Batch, bool]:
    """The next few commands of a partition with which workers died, and whether it is empty, so suspect no more.

    After one death, which says little, in a small batch. After more, each alone and with a note of which it is: the
    command that is being tried when the third worker dies is set aside as failed, and the partition goes on.
    """
    fences = {partition: fence}
    hand = hand or Hand()
    if deaths < ALONE_AFTER_DEATHS:
        batch = await run_batch(connection, settings, fences, SUSPECT_STEP, hand=hand)
        return batch, partition not in batch.unfinished
    finished: list[tuple[int, UUID]] = []
    follow_ups: list[tuple[int, UUID]] = []
    endings: Counter[Status] = Counter()
    records: dict[UUID, str] = {}
    round_trips = 0
    for _ in range(SUSPECT_STEP):
        command_id = await connection.fetchval(_NEXT, partition)
        if command_id is None:
            return Batch(finished, set(), round_trips, follow_ups, endings, records), True
        lost = await connection.fetchval(_TRY, partition, fence, command_id)
        if lost is None:
            raise Fenced(partition)
        died = 0
        if lost >= DEATHS_MAX:  # who only slept past its lock has shown itself again when a lease has passed
            await asyncio.sleep(settings.lease_seconds)
            died = lost if lost >= LOSSES_MAX else await connection.fetchval(_DIED, partition)
        if died >= DEATHS_MAX:
            batch = await _set_aside(connection, settings, fences, command_id, f"{died} workers died of it", hand)
        else:
            batch = await _run_alone(connection, settings, fences, command_id, hand)
        finished += batch.finished
        follow_ups += batch.follow_ups
        endings += batch.endings
        records |= batch.records
        round_trips += batch.round_trips + 2
    return Batch(finished, {partition}, round_trips, follow_ups, endings, records), False


async def clear(connection: Connection, partition: int, fence: int) -> None:
    """The partition is suspect no more."""
    await connection.execute(_CLEAR, partition, fence)


async def _set_aside(
    connection: Connection, settings: Settings, fences: Mapping[int, int], command_id: UUID, error: str, hand: Hand
) -> Batch:
    """The next command of the partition fails with these words, if it is still this one."""
    async with UnitOfWork(connection, settings) as work:
        await work.begin(fences)
        envelopes, book = await work.claim(list(fences), 1)
        envelopes = [envelope for envelope in envelopes if envelope.id == command_id]
        hand.take(envelopes)
        outcomes = {envelope.id: Outcome(Status.FAILED, error=error) for envelope in envelopes}
        if outcomes:
            await work.write(book, outcomes)
            await work.commit()
    _log_failures(outcomes)
    finished = [(envelope.partition, envelope.id) for envelope in envelopes]
    records = _records(settings, envelopes, outcomes, book, hand)
    return Batch(finished, set(), work.round_trips, [], _endings(outcomes), records)


def _records(
    settings: Settings, envelopes: Sequence[Envelope], outcomes: Mapping[UUID, Outcome], book: Book, hand: Hand
) -> dict[UUID, str]:
    """Arq's records of the results, where they are kept, in the database's time."""
    if settings.arq_results_seconds is None:
        return {}
    now = book.now + timedelta(seconds=time.monotonic() - hand.since)
    return {
        envelope.id: result_record(
            *(envelope.partition, envelope.id, outcomes[envelope.id]),
            accepted_at=envelope.accepted_at,
            started_at=book.now,
            finished_at=now,
            tries=hand.tries,
        )
        for envelope in envelopes
        if envelope.id in outcomes
    }


def _endings(outcomes: Mapping[UUID, Outcome]) -> Counter[Status]:
    return Counter(outcome.status for outcome in outcomes.values())


def _log_failures(outcomes: Mapping[UUID, Outcome]) -> None:
    for outcome in outcomes.values():
        if outcome.status is Status.FAILED:
            logger.error("a command is set aside as failed: %s", outcome.error)
