"""One Redis in trouble, of every kind that keeps it from serving: commands are accepted and executed all the same, a
worker that comes meanwhile gets its partitions, `/readyz` says what is the matter, and the end of it needs nobody."""

import asyncio
import itertools
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import SecretStr

from loadtest.faults.redises import RedisNode, until
from tests.deadline import eventually
from tests.installation import Installer
from tests.market import register, set_price
from tests.system.conftest import BATCH_MAX, LEASE_SECONDS
from tests.system.redises import longest_pause, nothing_is_queued, redis_is
from tests.system.site import Site, Trades, end, site_of

logger = logging.getLogger(__name__)

ALL_SECONDS = 60
ACCEPTED_SECONDS = 1.0
EXECUTED_SECONDS = 3.0
"""Neither bell nor notice comes: the sweeper and the waiting request look once a second, until they know."""
PACED = 6
STRANGER_BYTES = 50_000


class Trouble(NamedTuple):
    made: Callable[[RedisNode], AbstractContextManager[None]]
    state: str
    """What `/readyz` calls it."""


@contextmanager
def gone(redis: RedisNode) -> Iterator[None]:
    """And comes back empty: nothing was written down."""
    redis.kill()
    yield
    redis.start()


@contextmanager
def hanging(redis: RedisNode) -> Iterator[None]:
    redis.hang()
    yield
    redis.wake()


@contextmanager
def paused(redis: RedisNode) -> Iterator[None]:
    """It answers to a ping, but not to a write, as in a planned failover."""
    redis.ask("CLIENT", "PAUSE", 600_000, "WRITE")
    yield
    redis.ask("CLIENT", "UNPAUSE")


@contextmanager
def read_only(redis: RedisNode) -> Iterator[None]:
    redis.ask("REPLICAOF", "127.0.0.1", 1)
    yield
    redis.ask("REPLICAOF", "NO", "ONE")


@contextmanager
def full(redis: RedisNode) -> Iterator[None]:
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    yield
    redis.ask("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def short_of_replicas(redis: RedisNode) -> Iterator[None]:
    redis.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    yield
    redis.ask("CONFIG", "SET", "min-replicas-to-write", 0)


@contextmanager
def evicting(redis: RedisNode) -> Iterator[None]:
    """It takes every write, and throws away whatever it likes: others write more than it can hold."""
    numbers = itertools.count()

    def write() -> None:
        redis.ask("SET", f"stranger:{next(numbers) % 100}", "x" * STRANGER_BYTES)

    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    redis.ask("CONFIG", "SET", "maxmemory", int(redis.info("memory")["used_memory"]) + 20 * STRANGER_BYTES)
    with again_and_again(write):
        until(lambda: bool(redis.info("stats")["evicted_keys"]), "it throws nothing away")
        yield
    redis.ask("CONFIG", "SET", "maxmemory", 0)
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


@contextmanager
def unable_to_save(redis: RedisNode) -> Iterator[None]:
    """As on a full disk: a directory is where its file should be."""
    (redis.directory / "dump.rdb").mkdir()
    redis.ask("CONFIG", "SET", "save", "3600 1000000")
    redis.ask("BGSAVE")
    until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", "it could save")
    yield
    redis.ask("CONFIG", "SET", "save", "")


@contextmanager
def hanging_up(redis: RedisNode) -> Iterator[None]:
    """It cuts off everybody, again and again, in the middle of whatever is said."""

    def hang_up() -> None:
        for kind in ("NORMAL", "PUBSUB"):
            redis.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "YES")

    with again_and_again(hang_up):
        yield


@contextmanager
def again_and_again(act: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def acting() -> None:
        while not ended.wait(0.02):
            act()

    thread = threading.Thread(target=acting)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


TROUBLES = {
    "gone": Trouble(gone, "unavailable"),
    "hanging": Trouble(hanging, "unavailable"),
    "paused": Trouble(paused, "unavailable"),
    "read-only": Trouble(read_only, "refusing"),
    "full": Trouble(full, "refusing"),
    "short of replicas": Trouble(short_of_replicas, "refusing"),
    "unable to save": Trouble(unable_to_save, "refusing"),
    "evicting": Trouble(evicting, "ok"),
    "hanging up": Trouble(hanging_up, "ok"),
}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisNode]:
    node = RedisNode(tmp_path / "redis", **{"maxmemory-policy": "noeviction"})
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
async def site(redis: RedisNode, installer: Installer, tmp_path: Path) -> AsyncIterator[Site]:
    settings = await installer.install(partitions=8, lease_seconds=LEASE_SECONDS, batch_max=BATCH_MAX)
    settings = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{redis.port}/0")})
    async with site_of(settings, tmp_path / "logs") as site:
        await site.start_api()
        await eventually(lambda: redis_is(site, "ok"))
        yield site


async def slowest(site: Site) -> tuple[float, float]:
    """Seconds to accept and to execute, at worst, of commands that come one at a time."""
    accepted, executed = 0.0, 0.0
    for number in range(1, PACED + 1):
        sent_at = time.monotonic()
        [receipt] = await site.submit([set_price(404, number)])
        accepted = max(accepted, time.monotonic() - sent_at)
        answer = await site.client.get(receipt["links"]["self"], params={"wait": "10"})
        executed = max(executed, time.monotonic() - sent_at)
        assert answer.json()["status"] == "rejected"
    return accepted, executed


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
async def test_nobody_waits_for_a_redis_in_trouble(site: Site, redis: RedisNode, trouble: Trouble) -> None:
    worker = site.start_worker()
    await site.succeed([register(404)])
    with trouble.made(redis):
        accepted, executed = await slowest(site)
        logger.info("%s: accepted within %.3f s, executed within %.3f s", trouble.made.__name__, accepted, executed)
        assert accepted < ACCEPTED_SECONDS
        assert executed < EXECUTED_SECONDS
        await eventually(lambda: redis_is(site, trouble.state))
        other = site.start_worker()
        await shared_by(site, 2)
        end(worker, signal.SIGKILL)
        await shared_by(site, 1)
        _, executed = await slowest(site)
        assert executed < EXECUTED_SECONDS
    await eventually(lambda: redis_is(site, "ok"))
    await slowest(site)
    await eventually(lambda: nothing_is_queued(site), claim="hints are left behind")
    assert other.poll() is None
    assert end(other, signal.SIGTERM) == 0


async def shared_by(site: Site, workers: int) -> None:
    async def shared() -> bool:
        owners = await site.owners()
        return None not in owners and len(owners) == workers

    await eventually(shared, 30, f"the partitions are never shared by {workers}")


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
async def test_trouble_under_load_loses_and_repeats_nothing(site: Site, redis: RedisNode, trouble: Trouble) -> None:
    site.start_worker()
    trades = Trades(rounds=15)
    await trades.prepare(site)
    sending = asyncio.create_task(trades.send(site))
    done = await site.finished()

    async def a_quarter() -> bool:
        return await site.finished() >= done + trades.commands_total // 4

    await eventually(a_quarter, ALL_SECONDS)
    with trouble.made(redis):
        await sending
        await eventually(site.all_are_finished, ALL_SECONDS)
    logger.info("%s: %.2f s without execution", trouble.made.__name__, await longest_pause(site))
    await trades.assert_each_happened_once_in_order(site)
    await eventually(lambda: redis_is(site, "ok"))
    await eventually(lambda: nothing_is_queued(site), claim="hints are left behind")
