"""The faults, and which of them happens when: by a seed alone.

A fault takes the site and its own source of chance, breaks something, and mends it again before it returns.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import asyncpg
from redis.exceptions import RedisError

from loadtest.faults.redises import SentinelSet
from loadtest.faults.site import Site

Fault = Callable[[Site, random.Random], Awaitable[None]]

PARTITION_LOCK = "souk:{{lock}}:partition:{}"
WORKER_LOCKS = "souk:{lock}:worker:*"


class Planned(NamedTuple):
    """A fault, and the seconds of load before it."""

    name: str
    pause: float
    seed: str


async def worker_is_killed(site: Site, chance: random.Random) -> None:
    chance.choice(site.workers).send(signal.SIGKILL)


async def all_workers_are_killed(site: Site, _: random.Random) -> None:
    for worker in site.workers:
        worker.send(signal.SIGKILL)


async def worker_leaves(site: Site, chance: random.Random) -> None:
    worker = chance.choice(site.workers)
    worker.send(signal.SIGTERM)
    await asyncio.to_thread(worker.child.wait, 30)


async def worker_sleeps_past_its_lease(site: Site, chance: random.Random) -> None:
    worker = chance.choice(site.workers)
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(site.lease_seconds * chance.uniform(1.2, 1.8))
    worker.send(signal.SIGCONT)


async def worker_stutters(site: Site, chance: random.Random) -> None:
    worker = chance.choice(site.workers)
    for _ in range(10):
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.01, 0.2))
        worker.send(signal.SIGCONT)
        await asyncio.sleep(chance.uniform(0.01, 0.1))


async def api_is_killed(site: Site, chance: random.Random) -> None:
    chance.choice(site.apis).send(signal.SIGKILL)


async def api_drains(site: Site, chance: random.Random) -> None:
    api = chance.choice(site.apis)
    api.send(signal.SIGTERM)
    await asyncio.to_thread(api.child.wait, 30)


async def redis_is_emptied(site: Site, _: random.Random) -> None:
    async with site.talking_to_redis() as redis:
        with suppress(RedisError, OSError):
            await redis.flushall()


async def redis_is_emptied_twice_a_second(site: Site, chance: random.Random) -> None:
    for _ in range(chance.randint(6, 12)):
        await redis_is_emptied(site, chance)
        await asyncio.sleep(0.5)


async def redis_is_killed(site: Site, chance: random.Random) -> None:
    await asyncio.to_thread(site.redis.kill)
    await asyncio.sleep(chance.uniform(0, 3))
    await asyncio.to_thread(site.redis.start)


async def redis_hangs(site: Site, chance: random.Random) -> None:
    async with site.talking_to_redis() as redis:
        with suppress(RedisError, OSError):
            await redis.client_pause(int(chance.uniform(500, 3_000)))


async def redis_is_full(site: Site, chance: random.Random) -> None:
    async with site.talking_to_redis() as redis:
        with suppress(RedisError, OSError):
            await redis.config_set("maxmemory", "1mb")
            await asyncio.sleep(chance.uniform(0.5, 3))
        await redis.config_set("maxmemory", "0")


async def redis_is_read_only(site: Site, chance: random.Random) -> None:
    async with site.talking_to_redis() as redis:
        with suppress(RedisError, OSError):
            await redis.replicaof("127.0.0.1", "1")
            await asyncio.sleep(chance.uniform(0.5, 3))
        await redis.replicaof("NO", "ONE")


async def redis_fails_over(site: Site, chance: random.Random) -> None:
    """Half the time without what the replica has not seen of the last second."""
    assert isinstance(site.redis, SentinelSet)  # noqa: S101 - it is planned for those alone
    await asyncio.to_thread(site.redis.fail_over, chance.choice((0.0, chance.uniform(0.2, 1.0))))


async def lock_is_lost(site: Site, chance: random.Random) -> None:
    """Keys of some leases are deleted, and at times those that are a worker's sign of life."""
    keys = [PARTITION_LOCK.format(partition) for partition in _some(site, chance)]
    async with site.talking_to_redis() as redis:
        with suppress(RedisError, OSError):
            signs = [key async for key in redis.scan_iter(match=WORKER_LOCKS, count=1_000)]
            await redis.delete(*keys, *chance.sample(sorted(signs), chance.randint(0, len(signs))))


async def lock_is_split(site: Site, chance: random.Random) -> None:
    """Others seem to have some leases, while their holders drain them."""
    async with site.talking_to_redis() as redis:
        with suppress(RedisError, OSError):
            for partition in _some(site, chance):
                key = PARTITION_LOCK.format(partition)
                await redis.delete(key)
                await redis.set(key, "somebody else", px=int(site.lease_seconds * 1_000))
    await asyncio.sleep(site.lease_seconds)


def _some(site: Site, chance: random.Random) -> list[int]:
    return chance.sample(range(site.partitions), chance.randint(1, site.partitions))


async def connections_are_terminated(site: Site, _: random.Random) -> None:
    async with site.connected() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def postgresql_crashes(site: Site, _: random.Random) -> None:
    await asyncio.to_thread(site.postgres.kill)
    await asyncio.to_thread(site.postgres.start)


async def postgresql_restarts(site: Site, chance: random.Random) -> None:
    await asyncio.to_thread(site.postgres.stop)
    await asyncio.sleep(chance.uniform(0, 2))
    await asyncio.to_thread(site.postgres.start)


async def database_is_read_only(site: Site, chance: random.Random) -> None:
    async with site.connected() as connection:
        await connection.execute("ALTER DATABASE souk SET default_transaction_read_only = on")
    await connections_are_terminated(site, chance)
    await asyncio.sleep(chance.uniform(0.5, 2))
    async with site.connected() as connection:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute("ALTER DATABASE souk RESET default_transaction_read_only")
    await connections_are_terminated(site, chance)


async def rows_are_locked(site: Site, chance: random.Random) -> None:
    """Somebody's long transaction on items and accounts that are traded, in no good order."""
    with suppress(asyncpg.PostgresError):
        async with site.connected() as connection, connection.transaction():
            await connection.execute("SET LOCAL deadlock_timeout = '100ms'")
            for table in chance.sample(("nfts", "accounts", "nfts", "partitions"), 3):
                await connection.execute(f"SELECT 1 FROM {table} ORDER BY random() LIMIT 5 FOR UPDATE")  # noqa: S608
                await asyncio.sleep(chance.uniform(0.05, 0.7))


FAULTS: dict[str, Fault] = {
    fault.__name__.replace("_", " "): fault
    for fault in (
        worker_is_killed,
        all_workers_are_killed,
        worker_leaves,
        worker_sleeps_past_its_lease,
        worker_stutters,
        api_is_killed,
        api_drains,
        redis_is_emptied,
        redis_is_emptied_twice_a_second,
        redis_is_killed,
        redis_hangs,
        redis_is_full,
        redis_is_read_only,
        redis_fails_over,
        lock_is_lost,
        lock_is_split,
        connections_are_terminated,
        postgresql_crashes,
        postgresql_restarts,
        database_is_read_only,
        rows_are_locked,
    )
}


NEED_SENTINELS = {"redis fails over"}


def plan(seed: int, pause_seconds: float, *, sentinels: bool) -> Iterator[Planned]:
    """Endless: every fault once in some order, then once in another, and so on."""
    chance = random.Random(seed)
    names = sorted(FAULTS if sentinels else FAULTS.keys() - NEED_SENTINELS)
    number = 0
    while True:
        for name in chance.sample(names, len(names)):
            number += 1
            yield Planned(name, chance.uniform(0.3, 1.7) * pause_seconds, f"{seed} {number}")
