"""Locks: one holder at a time, in turn, renewed, fenced, and not held when Redis does not answer."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress

import pytest
from arq.connections import ArqRedis
from fakeredis import FakeAsyncRedis, FakeServer

from storage.redis.addresses import REDIS_SECONDS
from storage.redis.locks import Held, LockLost, Locks, LockTimeout, LockUnavailable
from storage.redis.queue import connect_redis, deserialize, serialize
from storage.settings import Settings
from tests.deadline import eventually

HOST = "127.0.0.1"
NOBODY = f"{HOST}:1"
"""Where nobody listens."""
LIMIT_SECONDS = 2 * REDIS_SECONDS


@pytest.fixture(params=["real", "fake"])
async def redis(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[ArqRedis]:
    if request.param == "real":
        client = connect_redis(settings)
    else:
        pool = FakeAsyncRedis(server=FakeServer()).connection_pool
        client = ArqRedis(pool, job_serializer=serialize, job_deserializer=deserialize)
        client.auto_close_connection_pool = True
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
async def locks(redis: ArqRedis) -> AsyncIterator[Locks]:
    async with Locks(redis) as ours:
        yield ours


@pytest.fixture
async def others(redis: ArqRedis) -> AsyncIterator[Locks]:
    """Another process, as far as Redis can tell."""
    async with Locks(redis) as theirs:
        yield theirs


class Inside:
    """How many are in the section now, and at most so far."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.order: list[object] = []

    async def stay(self, who: object, seconds: float = 0.01) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.order.append(who)
        await asyncio.sleep(seconds)
        self.now -= 1


# -- the six that every lock must pass; test_fallback is tests/system/test_fallback.py


async def test_connection(locks: Locks, settings: Settings) -> None:
    assert await locks.ping()
    async with silent() as unanswered, unreachable() as unconnected:
        for address in (NOBODY, unanswered, unconnected):
            await assert_it_fails_naming(address, settings)


async def assert_it_fails_naming(address: str, settings: Settings) -> None:
    url = type(settings.redis_url)(f"redis://{address}/0")
    client = connect_redis(settings.model_copy(update={"redis_url": url}))
    async with Locks(client) as nowhere:
        with pytest.raises(LockUnavailable, match=re.escape(address)):
            await asyncio.wait_for(nowhere.ping(), LIMIT_SECONDS)
        with pytest.raises(LockUnavailable, match=re.escape(address)):
            async with nowhere.hold("key", wait_seconds=LIMIT_SECONDS):
                pytest.fail("held without Redis")
    await client.aclose()


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """The address of somebody who takes connections and says nothing."""
    with socket.create_server((HOST, 0)) as server:
        yield f"{HOST}:{server.getsockname()[1]}"


@asynccontextmanager
async def unreachable() -> AsyncIterator[str]:
    """An address to which no connection comes about, as behind a firewall: its queue is full."""
    with socket.create_server((HOST, 0), backlog=0) as server, ExitStack() as callers:
        for _ in range(3):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            with suppress(BlockingIOError):
                caller.connect(server.getsockname())
        yield f"{HOST}:{server.getsockname()[1]}"


async def test_basic(locks: Locks) -> None:
    counter = 0

    async def increment() -> None:
        nonlocal counter
        async with locks.hold("counter", lease_seconds=5):
            seen = counter
            await asyncio.sleep(0.1)
            counter = seen + 1

    await asyncio.gather(*(increment() for _ in range(5)))
    assert counter == 5


async def test_timeout(locks: Locks, others: Locks) -> None:
    inside = Inside()

    async def stay(who: int) -> None:
        async with locks.hold("key", lease_seconds=2, wait_seconds=10):
            await inside.stay(who, 1)

    await asyncio.gather(*(stay(who) for who in range(3)))
    assert (inside.most, len(inside.order)) == (1, 3)

    loop, entered, ran = asyncio.get_running_loop(), asyncio.Event(), []

    async def hold_for_3_seconds() -> None:
        async with locks.hold("key", lease_seconds=2) as held:
            entered.set()
            await asyncio.sleep(3)
            held.check()

    async def wait_half_a_second() -> float:
        asked_at = loop.time()
        with pytest.raises(LockTimeout):
            async with others.hold("key", wait_seconds=0.5):
                ran.append("the waiter")
        return loop.time() - asked_at

    holding = asyncio.create_task(hold_for_3_seconds())
    await entered.wait()
    entered_at = loop.time()
    assert 0.5 <= await wait_half_a_second() < 1
    await asyncio.sleep(entered_at + 2.2 - loop.time())
    await wait_half_a_second()  # renewal keeps the holder's lease beyond its 2 s
    await holding
    assert ran == []


async def test_prevents_race_condition(locks: Locks) -> None:
    counter = 0

    async def increment() -> None:
        nonlocal counter
        seen = counter
        await asyncio.sleep(0.05)
        counter = seen + 1

    async def increment_locked() -> None:
        async with locks.hold("counter"):
            await increment()

    await asyncio.gather(*(increment() for _ in range(3)))
    assert counter == 1, "without the lock the increments are lost"
    counter = 0
    await asyncio.gather(*(increment_locked() for _ in range(3)))
    assert counter == 3


async def test_reentrant(locks: Locks, others: Locks, redis: ArqRedis) -> None:
    refused = 0

    async def try_until_it_is_free() -> int:
        nonlocal refused
        while True:
            with suppress(LockTimeout):
                async with others.hold("key", wait_seconds=0.1) as later:
                    return later.fence
            refused += 1

    async with locks.hold("key", lease_seconds=2) as outer:
        fence, token = outer.fence, await redis.get("souk:{lock}:key")
        async with asyncio.timeout(0), locks.hold("key") as inner:  # at once: it does not even wait for Redis
            assert inner is outer
        trying = asyncio.create_task(try_until_it_is_free())
        await asyncio.sleep(3)
        outer.check()
        assert outer.fence == fence
        assert await redis.get("souk:{lock}:key") == token, "a second lease, or another's"
        assert not trying.done()
        assert refused > 0
    assert await asyncio.wait_for(trying, 10) > fence


# -- several keys


async def test_several_keys_are_taken_together_or_not_at_all(locks: Locks, others: Locks) -> None:
    async with locks.hold("b"):
        with pytest.raises(LockTimeout):
            async with others.hold("a", "b", "c", wait_seconds=0.1):
                pytest.fail("b is taken")
        async with locks.hold("a", "c", wait_seconds=0.1):
            pass


async def test_crossing_sets_of_keys_never_deadlock(locks: Locks, others: Locks) -> None:
    inside = Inside()

    async def work(of: Locks, *keys: str) -> None:
        for _ in range(10):
            async with of.hold(*keys, wait_seconds=20):
                await inside.stay(keys, 0.001)

    await asyncio.gather(work(locks, "a", "b"), work(others, "b", "a"), work(locks, "b", "c", "a"), work(others, "a"))
    assert (inside.most, len(inside.order)) == (1, 40)


async def test_who_waits_for_two_keys_does_not_keep_others_from_the_free_one(locks: Locks) -> None:
    entered = asyncio.Event()

    async def both() -> None:
        async with locks.hold("a", "b"):
            pass

    async def only_a() -> None:
        async with locks.hold("a", wait_seconds=2):
            entered.set()

    async with AsyncExitStack() as first:
        await first.enter_async_context(locks.hold("b", owner="first"))
        async with locks.hold("a", owner="second"):
            waiting = [asyncio.create_task(both())]
            await asyncio.sleep(0)
            waiting.append(asyncio.create_task(only_a()))
            await asyncio.sleep(0.05)
        await asyncio.wait_for(entered.wait(), 1)
    await asyncio.gather(*waiting)


async def test_an_inner_lock_adds_the_keys_that_are_missing(locks: Locks, others: Locks) -> None:
    async with locks.hold("a"):
        async with locks.hold("a", "b"):
            with pytest.raises(LockTimeout):
                async with others.hold("b", wait_seconds=0.1):
                    pytest.fail("b is taken")
        async with others.hold("b", wait_seconds=0.5):
            pass
        with pytest.raises(LockTimeout):
            async with others.hold("a", wait_seconds=0.1):
                pytest.fail("a is taken")


# -- turns


async def test_waiters_are_woken_in_turn_without_polling(locks: Locks) -> None:
    inside = Inside()

    async def section(who: int) -> None:
        async with locks.hold("key"):
            await inside.stay(who, 0.01)

    tasks = []
    for who in range(10):
        tasks.append(asyncio.create_task(section(who)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert inside.order == list(range(10))
    assert inside.most == 1


async def test_a_waiter_that_gives_up_passes_its_turn_on(locks: Locks) -> None:
    async with locks.hold("key", owner="holder"):
        impatient = asyncio.create_task(_enter(locks, "key", 0.1))
        await asyncio.sleep(0)
        patient = asyncio.create_task(_enter(locks, "key", 5))
        with pytest.raises(LockTimeout):
            await impatient
    await asyncio.wait_for(patient, 1)


async def test_a_cancelled_waiter_leaves_nothing_behind(locks: Locks, others: Locks) -> None:
    async with locks.hold("key", owner="holder"):
        waiting = asyncio.create_task(_enter(locks, "key", 5))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with others.hold("key", wait_seconds=1):
        pass


async def test_the_key_of_a_holder_that_died_is_free_when_its_lease_ends(redis: ArqRedis, others: Locks) -> None:
    dead = Locks(redis)  # never entered: nothing renews its leases
    await dead.hold("key", lease_seconds=0.5, owner="dead").__aenter__()
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    async with others.hold("key", wait_seconds=3):
        assert loop.time() - asked_at < 1


# -- what a lock promises, and what it does not


async def test_fences_only_grow_even_when_redis_forgets(locks: Locks, redis: ArqRedis) -> None:
    fences = []
    for round_ in range(6):
        async with locks.hold("key", owner=round_) as held:
            fences.append(held.fence)
        if round_ == 3:
            await redis.flushdb()
    assert fences == sorted(set(fences))


async def test_an_exception_inside_passes_through_unchanged(locks: Locks, others: Locks) -> None:
    error = ValueError("refused by the rules")
    with pytest.raises(ValueError, match="refused by the rules") as raised:
        async with locks.hold("key"):
            raise error
    assert raised.value is error
    async with others.hold("key", wait_seconds=1):
        pass


async def test_a_holder_learns_that_its_lease_is_gone(locks: Locks, redis: ArqRedis) -> None:
    async with locks.hold("key", lease_seconds=0.5) as held:
        held.check()
        await redis.flushdb()

        async def is_lost() -> bool:
            try:
                held.check()
            except LockLost:
                return True
            return False

        await eventually(is_lost, 3)


async def test_releasing_a_key_that_passed_to_another_leaves_it_alone(
    locks: Locks, others: Locks, redis: ArqRedis
) -> None:
    async with AsyncExitStack() as theirs:
        async with locks.hold("key"):
            await redis.flushdb()
            held: Held = await theirs.enter_async_context(others.hold("key", wait_seconds=1))
        with pytest.raises(LockTimeout):
            async with locks.hold("key", wait_seconds=0.2):
                pytest.fail("the other's key was released")
        held.check()


async def test_fifty_tasks_share_round_trips(settings: Settings) -> None:
    client = connect_redis(settings)
    async with Locks(client) as ours:
        async with ours.hold("warm"):
            pass
        before = await client.info("commandstats")
        await asyncio.gather(*(_enter(ours, f"key {number}", 5) for number in range(50)))
        after = await client.info("commandstats")
    await client.aclose()
    assert after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"] <= 4


@pytest.mark.parametrize(("keys", "lease"), [((), 5.0), (tuple(str(n) for n in range(1_001)), 5.0), (("a",), 0.1)])
async def test_what_cannot_be_held_is_refused(locks: Locks, keys: tuple[str, ...], lease: float) -> None:
    with pytest.raises(ValueError, match=r"lock has|lease lasts"):
        locks.hold(*keys, lease_seconds=lease)


async def _enter(locks: Locks, key: str, wait_seconds: float) -> None:
    async with locks.hold(key, wait_seconds=wait_seconds):
        pass
