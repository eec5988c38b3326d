"""Faults in the middle of a load: every accepted command has one outcome, in order, and the audit holds."""

import asyncio
import signal
from pathlib import Path

import psutil
from pydantic import SecretStr
from redis.asyncio import Redis

from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
from storage.settings import load_settings
from tests.deadline import eventually
from tests.installation import database_url, prepare
from tests.market import set_price
from tests.system.conftest import BATCH_MAX, LEASE_SECONDS
from tests.system.site import Site, Trades, batch_under_way, end, site_of

ALL_SECONDS = 60


async def until_finished(site: Site, commands: int) -> None:
    async def enough() -> bool:
        return await site.finished() >= commands

    await eventually(enough, ALL_SECONDS, f"{commands} commands are never finished")


async def test_a_worker_killed_in_the_middle_loses_and_repeats_nothing(site: Site) -> None:
    worker = site.start_worker()
    await site.start_api()
    trades = Trades()
    await trades.prepare(site)
    done = await site.finished()
    sending = asyncio.create_task(trades.send(site))
    for third in (1, 2):
        await until_finished(site, done + third * trades.commands_total // 4)
        async with batch_under_way(site, trades.users[third]):
            end(worker, signal.SIGKILL)
        assert not await site.all_are_finished()
        worker = site.start_worker()
    await sending
    await eventually(site.all_are_finished, ALL_SECONDS)
    await trades.assert_each_happened_once_in_order(site)


async def test_an_emptied_redis_loses_and_repeats_nothing(site: Site) -> None:
    """Emptied before any worker has seen a hint, in the middle of the load, and at its end."""
    await site.start_api()
    redis = Redis.from_url(site.settings.redis_url.get_secret_value())
    trades = Trades()
    for commands in trades.setup():
        await site.submit(commands)
    await redis.flushall()
    site.start_worker()
    await eventually(site.all_are_finished, ALL_SECONDS)
    done = await site.finished()
    sending = asyncio.create_task(trades.send(site))
    for quarter in (1, 2, 3):
        await until_finished(site, done + quarter * trades.commands_total // 4)
        await redis.flushall()
    await sending
    await redis.flushall()
    await redis.aclose()
    await eventually(site.all_are_finished, ALL_SECONDS)
    await trades.assert_each_happened_once_in_order(site)


async def test_redis_killed_and_started_again_in_the_middle_loses_and_repeats_nothing(site: Site) -> None:
    with EmbeddedRedis(site.directory.parent / "redis") as redis:
        settings = site.settings.model_copy(update={"redis_url": SecretStr(redis.url)})
        async with site_of(settings, site.directory.parent / "own") as own:
            worker = own.start_worker()
            await own.start_api()
            trades = Trades(rounds=10)
            await trades.prepare(own)
            done = await own.finished()
            redis.kill()
            sending = asyncio.create_task(trades.send(own))
            await until_finished(own, done + trades.commands_total // 2)
            redis.start()
            await sending
            await eventually(own.all_are_finished, ALL_SECONDS)
            await trades.assert_each_happened_once_in_order(own)
            assert worker.poll() is None


async def test_postgresql_killed_and_restarted_in_the_middle_loses_and_repeats_nothing(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Whoever is answered 503, or not at all, sends the same again under the same keys."""
    with EmbeddedPostgres(tmp_path) as postgres:
        settings = load_settings(
            database_url=SecretStr(database_url(postgres, "souk")),
            redis_url=SecretStr(f"{redis_server.url}?db=15"),
            partitions=8,
            lease_seconds=LEASE_SECONDS,
            batch_max=BATCH_MAX,
        )
        await prepare(settings)
        async with site_of(settings, tmp_path / "logs") as site:
            site.start_worker()
            await site.start_api()
            trades = Trades()
            await trades.prepare(site)
            done = await site.finished()
            sending = asyncio.create_task(trades.send(site))
            for third, end_it in ((1, postgres.kill), (2, postgres.stop)):
                await until_finished(site, done + third * trades.commands_total // 3)
                await asyncio.to_thread(end_it)
                await asyncio.to_thread(postgres.start)
            await sending
            await eventually(site.all_are_finished, ALL_SECONDS)
            await trades.assert_each_happened_once_in_order(site)
            assert all(process.poll() is None for process in site.processes)


async def test_a_worker_that_slept_past_its_lease_doubles_nothing(site: Site) -> None:
    """It sleeps in the middle of a transaction; others take its partitions over, and it wakes up to find it so."""
    sleeper = site.start_worker()
    await site.start_api()
    trades = Trades()
    await trades.prepare(site)
    [sleepers_name] = await site.owners()
    sending = asyncio.create_task(trades.send(site))
    async with batch_under_way(site, trades.users[0]):
        sleeper.send_signal(signal.SIGSTOP)
    assert psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED
    other = site.start_worker()
    await sending
    await eventually(site.all_are_finished, 20, "the sleeper's locks outlive its lease")
    assert sleepers_name not in await site.owners()
    sleeper.send_signal(signal.SIGCONT)

    async def shared() -> bool:
        return await site.owners() == dict.fromkeys(await site.owners(), site.settings.partitions // 2)

    await eventually(shared, 10 * LEASE_SECONDS, "the sleeper does not come back to work")
    await trades.assert_each_happened_once_in_order(site)
    assert end(other, signal.SIGTERM) == 0
    receipts = await site.submit([set_price(404, number) for number in range(1, 51)], wait=30)
    assert {receipt["status"] for receipt in receipts} == {"rejected"}, "the sleeper does not work again"
    assert sleeper.poll() is None
