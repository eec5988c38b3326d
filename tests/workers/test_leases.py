"""Leases: locks in Redis say soon who is gone, fences in PostgreSQL say who may write."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedRedis
from storage.journal.accept import Journal
from storage.redis.lock_calls import PREFIX
from storage.redis.locks import Locks
from storage.redis.queue import connect_redis
from storage.settings import Settings
from storage.tasks import end
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.journal import accept, statuses
from tests.market import register
from workers.lanes import Lanes
from workers.leases import Leases, fair_share, partition_lock
from workers.worker import execute

PARTITIONS = 10
LEASE_SECONDS = 1.0
LOCK_SECONDS = 0.4 * LEASE_SECONDS


@given(st.integers(1, 999), st.lists(st.text(min_size=1), min_size=1, max_size=20, unique=True))
def test_fair_shares_differ_by_one_and_cover_everything(partitions: int, workers: list[str]) -> None:
    living = sorted(workers)
    shares = [fair_share(partitions, living, worker) for worker in living]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


class Worker:
    """The leases of one worker, and the lanes that they serve."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.redis = connect_redis(settings)
        self.lanes = Lanes(settings, lambda _: None)
        self.locks = Locks(self.redis, answer_seconds=LOCK_SECONDS / 2)
        self.leases = Leases(settings, name, self.lanes, self.locks)
        self.fences = self.lanes.fences
        self._running: list[asyncio.Task[None]] = []
        self._entered = AsyncExitStack()

    async def start(self) -> None:
        await self._entered.enter_async_context(self.locks)
        self._running = [asyncio.create_task(self.leases.run())]

    async def die(self) -> None:
        """Ends as a killed process does: it hands nothing back, and nobody renews its locks."""
        await end(self._running)
        self._running = []
        self.leases._line.drop()
        await self._entered.aclose()
        await self.redis.aclose()

    async def leave(self) -> None:
        await end(self._running)
        await self.leases.leave()
        await self.die()


@asynccontextmanager
async def worker(settings: Settings, name: str) -> AsyncIterator[Worker]:
    one = Worker(settings, name)
    await one.start()
    try:
        yield one
    finally:
        await one.leave()


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is of what runs beside us
            await asyncio.sleep(0.001)


def are_shared(*workers: Worker) -> bool:
    """Whether every partition is drained by one of the workers, and each has its share."""
    drained = sorted(partition for one in workers for partition in one.fences)
    counts = [len(one.fences) for one in workers]
    return drained == list(range(PARTITIONS)) and max(counts) - min(counts) <= 1


@pytest.fixture
async def quick(installer: Installer) -> Settings:
    return await installer.install(partitions=PARTITIONS, lease_seconds=LEASE_SECONDS)


@pytest.fixture
async def redis(quick: Settings) -> AsyncIterator[ArqRedis]:
    client = connect_redis(quick)
    yield client
    await client.aclose()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that a test may stop."""
    with EmbeddedRedis(tmp_path) as server:
        yield server


def on(settings: Settings, server: EmbeddedRedis) -> Settings:
    return settings.model_copy(update={"redis_url": SecretStr(server.url)})


# -- sharing


async def test_workers_share_the_partitions_and_a_leaver_hands_back(quick: Settings) -> None:
    async with worker(quick, "a") as a:
        await until(lambda: are_shared(a))
        async with worker(quick, "b") as b, worker(quick, "c") as c:
            await until(lambda: are_shared(a, b, c))
        await until(lambda: are_shared(a))


async def test_a_leaver_and_a_newcomer_are_told_of_by_notices(quick: Settings) -> None:
    """Ticks alone would take a tenth of a lease of two minutes."""
    slow = quick.model_copy(update={"lease_seconds": 120.0})
    async with worker(slow, "a") as a:
        await until(lambda: are_shared(a))
        async with worker(slow, "b") as b:
            await until(lambda: are_shared(a, b), 5)
        await until(lambda: are_shared(a), 5)


async def test_a_busy_partition_is_handed_back_when_its_batch_has_ended(quick: Settings) -> None:
    async with worker(quick, "a") as a:
        await until(lambda: are_shared(a))
        a.lanes.busy |= set(range(4, PARTITIONS))
        async with worker(quick, "b") as b:
            await until(lambda: set(b.fences) == {0, 1, 2, 3})
            await until(lambda: len(a.fences) == PARTITIONS // 2)
            a.lanes.busy.clear()
            a.lanes.fenced.set()
            await until(lambda: are_shared(a, b))


# -- who is gone


async def test_partitions_of_a_dead_worker_are_taken_with_a_new_fence(quick: Settings) -> None:
    dead = Worker(quick, "dead")
    await dead.start()
    await until(lambda: are_shared(dead))
    before = dict(dead.fences)
    await dead.die()
    async with worker(quick, "heir") as heir:
        await until(lambda: are_shared(heir))
        assert all(heir.fences[partition] > fence for partition, fence in before.items())


async def test_a_dead_worker_is_missed_when_its_lock_ends_however_long_its_sign_in_postgresql(
    quick: Settings,
) -> None:
    """Its lock lasts one second, its sign in PostgreSQL an hour."""
    dead = Worker(quick.model_copy(update={"lease_seconds": 2.0}), "dead")
    async with worker(quick, "heir") as heir:
        await dead.start()
        await until(lambda: are_shared(heir, dead))
        await until(lambda: heir.leases.by_locks and dead.leases.by_locks)
        beat = dead.leases._beat_at
        await until(lambda: dead.leases._beat_at != beat)  # which says so in its row
        async with connected(quick) as connection:
            await end(dead._running)
            await connection.execute(
                "UPDATE workers SET alive_until = clock_timestamp() + interval '1 hour' WHERE id = 'dead'"
            )
        await dead.die()
        await until(lambda: are_shared(heir))


async def test_without_redis_who_holds_goes_on_and_the_sign_in_postgresql_decides(
    quick: Settings, own_redis: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    settings = on(quick, own_redis)
    dead = Worker(settings, "dead")
    async with worker(settings, "heir") as heir:
        await dead.start()
        await until(lambda: are_shared(heir, dead) and heir.leases.by_locks and dead.leases.by_locks)
        kept = dict(heir.fences)
        own_redis.kill()
        await until(lambda: not heir.leases.by_locks and not dead.leases.by_locks)
        assert are_shared(heir, dead)
        await dead.die()
        await until(lambda: are_shared(heir))
        assert {partition: heir.fences[partition] for partition in kept} == kept
        own_redis.start()
        await until(lambda: heir.leases.by_locks)
        async with worker(settings, "newcomer") as newcomer:
            await until(lambda: are_shared(heir, newcomer))
    lines = [record.message for record in caplog.records]
    assert "leases live by PostgreSQL: Redis does not answer" in lines
    assert "leases live by their locks in Redis again" in lines


async def test_a_worker_that_redis_is_out_of_reach_of_is_judged_by_its_sign_in_postgresql(
    quick: Settings, own_redis: EmbeddedRedis
) -> None:
    """The others reach theirs, and find no lock of the lonely one there."""
    lonely = Worker(on(quick, own_redis), "lonely")
    own_redis.stop()
    async with worker(quick, "a") as a:
        await until(lambda: are_shared(a) and a.leases.by_locks)
        await lonely.start()
        await until(lambda: are_shared(a, lonely))
        before = dict(lonely.fences)
        beats = a.leases._beat_at
        await until(lambda: a.leases._beat_at != beats)
        assert are_shared(a, lonely)
        assert lonely.fences == before
        await lonely.die()
        await until(lambda: are_shared(a))


async def test_a_worker_that_was_cut_off_from_postgresql_gives_the_others_a_lease_to_show_themselves(
    quick: Settings,
) -> None:
    """All beats stop for longer than a lease; who comes back first takes nothing from the others."""
    async with worker(quick, "a") as a, worker(quick, "b") as b:
        await until(lambda: are_shared(a, b))
        before = a.fences | b.fences
        async with connected(quick) as connection:
            await connection.execute("BEGIN; LOCK TABLE workers IN ACCESS EXCLUSIVE MODE")
            await connection.fetch("SELECT pg_sleep($1)", 1.5 * LEASE_SECONDS)
            await connection.execute("UPDATE workers SET alive_until = clock_timestamp(); COMMIT")
        beats: list[float] = []
        for one in (a, b):
            assert one.leases._beat_at is not None
            beats.append(one.leases._beat_at)
        await until(lambda: all(one.leases._beat_at not in beats for one in (a, b)))
        assert a.fences | b.fences == before
        assert are_shared(a, b)


# -- what Redis may do


async def test_a_partition_whose_lock_somebody_else_holds_is_not_drained(quick: Settings, redis: ArqRedis) -> None:
    await redis.set(PREFIX + partition_lock(3), "somebody else")
    async with worker(quick, "a") as a:
        await until(lambda: len(a.fences) == PARTITIONS - 1)
        ticks = a.leases._beat_at
        await until(lambda: a.leases._beat_at != ticks)
        assert 3 not in a.fences
        await redis.delete(PREFIX + partition_lock(3))
        await until(lambda: are_shared(a))


async def test_a_lock_given_to_another_by_hand_stops_its_partition_until_it_is_free(
    quick: Settings, redis: ArqRedis
) -> None:
    async with worker(quick, "a") as a:
        await until(lambda: are_shared(a))
        fence = a.fences[3]
        await redis.set(PREFIX + partition_lock(3), "somebody else", px=int(4 * LOCK_SECONDS * 1000))
        await until(lambda: 3 not in a.fences)
        await until(lambda: are_shared(a))
        assert a.fences[3] > fence


async def test_a_redis_that_is_emptied_all_the_time_moves_no_partition(quick: Settings, redis: ArqRedis) -> None:
    async with worker(quick, "a") as a, worker(quick, "b") as b:
        await until(lambda: are_shared(a, b) and a.leases.by_locks and b.leases.by_locks)
        before = a.fences | b.fences
        for _ in range(10):
            await redis.flushdb()
            beats = [one.leases._beat_at for one in (a, b)]
            await until(lambda: all(one.leases._beat_at not in beats for one in (a, b)))  # noqa: B023 - awaited here
            assert are_shared(a, b)
        assert a.fences | b.fences == before
        assert not a.leases.by_locks
        await until(lambda: a.leases.by_locks)


async def test_two_workers_that_are_given_the_same_lock_never_have_the_same_fence(
    quick: Settings, redis: ArqRedis
) -> None:
    """One that sleeps past its lock holds an older fence than whoever has the partition now."""
    sleeper = Worker(quick, "sleeper")
    await sleeper.start()
    await until(lambda: are_shared(sleeper))
    await end(sleeper._running)  # it drains on, and does not look
    await redis.flushdb()
    async with worker(quick, "b") as b:
        await until(lambda: are_shared(b))
        assert all(b.fences[partition] > sleeper.fences[partition] for partition in range(PARTITIONS))
    await sleeper.die()


async def test_all_renewals_of_a_worker_are_one_call(quick: Settings, redis: ArqRedis) -> None:
    async with worker(quick, "a") as a:
        await until(lambda: are_shared(a))
        tokens = {await redis.get(PREFIX + partition_lock(partition)) for partition in range(PARTITIONS)}
        assert len(tokens) == PARTITIONS
        untils = {held.until for held in a.leases._held.values()}
        await until(lambda: not untils & {held.until for held in a.leases._held.values()})
        assert len({held.until for held in a.leases._held.values()}) == 1, "not renewed together"


# -- a stock worker of arq


async def test_execute_waits_for_the_lock_of_the_partition_and_then_executes(quick: Settings, redis: ArqRedis) -> None:
    journal = Journal(quick)
    [receipt] = await accept(journal, quick, register(1))
    lock = PREFIX + partition_lock(receipt.partition)
    await redis.set(lock, "somebody else")
    executing = asyncio.create_task(execute({"settings": quick}, str(receipt.id)))
    async with connected(quick) as connection:

        async def is_waiting() -> bool:
            """Whether it has looked, and found the lock taken, time and again."""
            return bool(
                await connection.fetchval(
                    "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'souk execute'"
                    " AND datname = current_database() AND query LIKE 'SELECT partition, status%'"
                )
            )

        await eventually(is_waiting)
    assert await statuses(journal, [receipt]) == ["accepted"]
    assert not executing.done()
    await redis.delete(lock)
    assert await executing == "succeeded"
    assert await statuses(journal, [receipt]) == ["succeeded"]
    await journal.close()


async def test_execute_takes_no_partition_from_a_worker_that_lives(quick: Settings) -> None:
    """The worker drains nothing here, so what it holds stays accepted; when it has left, the stock worker goes on."""
    journal = Journal(quick)
    async with worker(quick, "a") as a:
        await until(lambda: are_shared(a))
        before = dict(a.fences)
        [receipt] = await accept(journal, quick, register(1))
        executing = asyncio.create_task(execute({"settings": quick}, str(receipt.id)))
        beat = a.leases._beat_at
        await until(lambda: a.leases._beat_at != beat)
        assert await statuses(journal, [receipt]) == ["accepted"]
        assert a.fences == before
    assert await executing == "succeeded"
    await journal.close()
