"""What goes on beside the lanes: the sweeper, timers."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from storage.journal.accept import Journal
from storage.journal.entry import new_id
from storage.journal.promote import PROMOTE
from storage.journal.receipts import Receipt
from storage.journal.unit_of_work import CLAIM
from storage.postgres.connection import Connection
from storage.redis.queue import Queue, connect_redis, job_id, queue_name
from storage.settings import Settings
from storage.tasks import end
from tests.journal import accept, statuses, submission
from tests.market import register
from workers.services.sweeper import Sweeper
from workers.services.timers import Timers

# -- the sweeper


class Sweep:
    """A sweeper's one turn, and what it rang for."""

    def __init__(self, settings: Settings, queue: Queue) -> None:
        self.rung: set[int] = set()
        self._sweeper = Sweeper(settings, queue, lambda: range(4), self.rung.update, lambda: True)

    async def turn(self) -> set[int]:
        self.rung.clear()
        await self._sweeper.turn()
        return set(self.rung)

    async def close(self) -> None:
        await self._sweeper._line.close()


@pytest.fixture
async def queue(settings: Settings) -> AsyncIterator[Queue]:
    redis = connect_redis(settings)
    await redis.flushdb()
    yield Queue(redis)
    await redis.aclose()


@pytest.fixture
async def sweep(settings: Settings, queue: Queue) -> AsyncIterator[Sweep]:
    sweep = Sweep(settings, queue)
    yield sweep
    await sweep.close()


async def test_a_command_without_a_hint_is_rung_for_and_enqueued_when_old(
    sweep: Sweep, queue: Queue, journal: Journal, settings: Settings, lane: Connection
) -> None:
    [receipt] = await accept(journal, settings, register(1))
    assert await sweep.turn() == {receipt.partition}
    assert await queue.peek(range(4), 10) == {}
    await lane.execute("UPDATE commands SET accepted_at = accepted_at - interval '1 minute'")
    await sweep.turn()
    assert await queue.peek(range(4), 10) == {receipt.partition: [job_id(receipt.partition, receipt.id)]}


async def test_jobs_that_stand_for_nothing_are_discarded(
    sweep: Sweep, queue: Queue, journal: Journal, settings: Settings, lane: Connection
) -> None:
    done, waiting = await accept(journal, settings, register(1), register(2))
    await queue.enqueue([(receipt.partition, receipt.id) for receipt in (done, waiting)])
    await lane.execute("UPDATE commands SET status = 'rejected', finished_at = now() WHERE id = $1", done.id)
    await queue.enqueue([(3, new_id()), (3, new_id())])
    await queue.redis.zadd(queue_name(2), {b"\xd0\xbf garbage": 1.0})
    assert await sweep.turn() >= {2, 3}
    left = await queue.peek(range(4), 10)
    assert left == {waiting.partition: [job_id(waiting.partition, waiting.id)]}
    assert await sweep.turn() == {waiting.partition}


# -- timers


async def test_a_due_command_takes_its_place_behind_those_accepted_before(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=300)
    [timer] = await journal.accept([submission(settings, register(1), run_at=soon)])
    [later] = await journal.accept([submission(settings, register(2), run_at=datetime.now(UTC) + timedelta(hours=1))])
    [now] = await accept(journal, settings, register(1))
    assert isinstance(timer, Receipt)
    assert isinstance(later, Receipt)
    told: asyncio.Queue[list[tuple[int, UUID]]] = asyncio.Queue()
    timers = Timers(settings, lambda due: told.put_nowait(list(due)) if due else None)
    task = asyncio.create_task(timers.run())
    async with asyncio.timeout(20):
        assert await told.get() == [(timer.partition, timer.id)]
    await end([task])
    assert await statuses(journal, [timer, later]) == ["accepted", "scheduled"]
    order = await lane.fetch("SELECT id FROM commands WHERE status = 'accepted' ORDER BY seq")
    assert [row["id"] for row in order] == [now.id, timer.id]
    row = await lane.fetchrow("SELECT accepted_at >= run_at AS timely FROM commands WHERE id = $1", timer.id)
    assert row is not None
    assert row["timely"]


async def test_a_hundred_thousand_timers_do_not_slow_the_claim(settings: Settings, lane: Connection) -> None:
    await lane.execute("""
        INSERT INTO commands (id, kind, asset, partition, payload, status, fingerprint, run_at)
        SELECT gen_random_uuid(), 'users.register', 'user:1', n % 4, '{}', 'scheduled', '', now() + interval '1 day'
        FROM generate_series(1, 100000) AS n
    """)
    await lane.execute("ANALYZE commands")
    for statement, arguments, index in ((CLAIM, ([1], 10), "claim"), (PROMOTE, (1_000,), "timer")):
        explained = await lane.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
        assert f"commands_{index}_idx" in explained
        top = json.loads(explained)[0]["Plan"]
        assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 10
