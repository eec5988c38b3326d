"""Redis in several servers, a Sentinel set and a Cluster: what a master's death costs, and that it costs no command."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from loadtest.faults.redises import RedisNode, SentinelSet, sentinel_set
from storage.redis.locks import Held, LockError, LockLost, Locks, LockTimeout, LockUnavailable
from storage.redis.queue import connect_redis
from storage.settings import Settings
from tests.deadline import eventually
from tests.installation import Installer
from tests.market import register, set_price
from tests.system.conftest import BATCH_MAX, LEASE_SECONDS
from tests.system.redises import RedisCluster, longest_pause, nothing_is_queued, redis_cluster, redis_is
from tests.system.site import Site, Trades, site_of

logger = logging.getLogger(__name__)

ALL_SECONDS = 60
FAILOVER_SECONDS = 20
WAKE_SECONDS = 3.0
"""Without a bell, a command waits for the sweeper."""

Redises = SentinelSet | RedisCluster


@pytest.fixture(scope="module", params=["sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def redises(kind: str, tmp_path: Path) -> Iterator[Redises]:
    with sentinel_set(tmp_path / "s") if kind == "sentinel" else redis_cluster(tmp_path / "c") as found:
        yield found


@pytest.fixture
async def settings(redises: Redises, installer: Installer) -> Settings:
    installed = await installer.install(partitions=8, lease_seconds=LEASE_SECONDS, batch_max=BATCH_MAX)
    return installed.model_copy(update={"redis_url": SecretStr(redises.url)})


@pytest.fixture
async def site(settings: Settings, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_of(settings, tmp_path / "logs") as site:
        for _ in range(2):
            site.start_worker()
        await site.start_api()
        await eventually(lambda: redis_is(site, "ok"), FAILOVER_SECONDS)
        yield site


def master(redises: Redises) -> RedisNode:
    """The one that can be replaced."""
    return redises.master() if isinstance(redises, SentinelSet) else redises.doubled


async def until_finished(site: Site, commands: int) -> None:
    async def enough() -> bool:
        return await site.finished() >= commands

    await eventually(enough, ALL_SECONDS, f"{commands} commands are never finished")


@pytest.mark.parametrize("death", ["killed", "hung"])
async def test_a_master_that_dies_under_load_costs_no_command(site: Site, redises: Redises, death: str) -> None:
    trades = Trades(rounds=100)
    await trades.prepare(site)
    done = await site.finished()
    sending = asyncio.create_task(trades.send(site))
    await until_finished(site, done + trades.commands_total // 10)
    dead = master(redises)
    died_at = time.monotonic()
    if death == "killed":
        dead.kill()
    else:
        dead.hang()
    await eventually(lambda: redis_is(site, "unavailable", "refusing"), FAILOVER_SECONDS)
    await eventually(lambda: redis_is(site, "ok"), FAILOVER_SECONDS, "no other master takes over")
    away = time.monotonic() - died_at
    await sending
    await eventually(site.all_are_finished, ALL_SECONDS)
    await trades.assert_each_happened_once_in_order(site)
    pause = await longest_pause(site)
    logger.info("%s, %s: %.2f s without Redis, %.2f s without execution", type(redises).__name__, death, away, pause)
    assert pause < WAKE_SECONDS
    if death == "killed":
        dead.start()
    else:
        dead.wake()
    await eventually(lambda: nothing_is_queued(site), FAILOVER_SECONDS, "hints are left behind")
    await eventually(lambda: redis_is(site, "ok"), FAILOVER_SECONDS, "who was master and is back troubles the others")


async def test_a_command_sent_while_nobody_is_master_is_accepted_at_once_and_executed_soon(
    site: Site, redises: Redises
) -> None:
    await site.succeed([register(number) for number in range(1, 9)])
    master(redises).kill()
    over = time.monotonic() + FAILOVER_SECONDS
    accepted: list[float] = []
    executed: list[float] = []
    number = 0
    while not executed or (not await redis_is(site, "ok") and time.monotonic() < over):
        number += 1
        sent_at = time.monotonic()
        [receipt] = await site.submit([set_price(number, number)])
        accepted.append(time.monotonic() - sent_at)
        answer = await site.client.get(receipt["links"]["self"], params={"wait": "10"})
        executed.append(time.monotonic() - sent_at)
        assert answer.json()["status"] == "rejected"
    assert await redis_is(site, "ok")
    figures = len(executed), max(accepted), max(executed)
    logger.info("%s: %d commands, accepted within %.3f s, executed within %.3f s", type(redises).__name__, *figures)
    assert max(accepted) < 1
    assert max(executed) < WAKE_SECONDS


@asynccontextmanager
async def locks_of(settings: Settings) -> AsyncIterator[Locks]:
    redis = connect_redis(settings)
    async with Locks(redis) as locks:
        yield locks
    await redis.aclose()


async def test_a_lock_is_held_by_nobody_new_while_there_is_no_master_and_its_fence_grows(
    settings: Settings, redises: Redises
) -> None:
    async with locks_of(settings) as ours, locks_of(settings) as others:
        async with ours.hold("a", "b", lease_seconds=1) as held:
            await replicated(redises)
            master(redises).kill()
            while not lost(held):
                with pytest.raises((LockTimeout, LockUnavailable)):
                    async with others.hold("b", "c", wait_seconds=0.2):
                        pytest.fail("held beside its holder")

        async def taken() -> bool:
            with suppress(LockError):
                async with others.hold("b", "c", wait_seconds=0.5) as next_:
                    assert next_.fence > held.fence
                    return True
            return False

        await eventually(taken, FAILOVER_SECONDS, "the lock does not come back")


def lost(held: Held) -> bool:
    try:
        held.check()
    except LockLost:
        return True
    return False


async def replicated(redises: Redises) -> None:
    """What was written so far has reached a replica."""
    await asyncio.to_thread(master(redises).ask, "WAIT", 1, 5_000)


async def test_a_cluster_that_lost_a_third_of_its_slots_stops_nobody(installer: Installer, tmp_path: Path) -> None:
    """No replica takes over; what waits in those partitions is found in the journal."""
    with redis_cluster(tmp_path / "c") as cluster:
        settings = await installer.install(partitions=8, lease_seconds=LEASE_SECONDS, batch_max=BATCH_MAX)
        settings = settings.model_copy(update={"redis_url": SecretStr(cluster.url)})
        async with site_of(settings, tmp_path / "logs") as site:
            site.start_worker()
            await site.start_api()
            lonely = next(node for node in cluster.nodes[:3] if node is not cluster.doubled)
            trades = Trades(rounds=10)
            await trades.prepare(site)
            lonely.kill()
            site.start_worker()  # joins meanwhile
            await trades.send(site)
            await eventually(site.all_are_finished, ALL_SECONDS)
            await trades.assert_each_happened_once_in_order(site)
            assert await redis_is(site, "unavailable", "refusing")
            lonely.start()
            await eventually(lambda: redis_is(site, "ok"), FAILOVER_SECONDS)


async def test_arqs_check_asks_the_server_that_has_the_health(site: Site) -> None:
    """Arq can ask neither a Cluster nor, where they have a password, sentinels: it is told where to look."""
    await eventually(site.is_healthy, FAILOVER_SECONDS)
