"""arq's own command line on our worker settings: the check of a container, and a worker that it starts."""

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import EllipsisType

import pytest
from pydantic import SecretStr

from loadtest.faults.redises import RedisNode
from storage.embedded.servers import EmbeddedRedis
from storage.redis.queue import connect_redis
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.market import TON, buy, fund, receive, register, set_price
from tests.system.site import STOP_SECONDS, Site, account_locked, end, site_of, until_waiting
from workers.health import HEALTH_LASTS_SECONDS, health_key

HEALTH = re.compile(
    r"\w{3}-\d\d \d\d:\d\d:\d\d j_complete=(\d+) j_failed=(\d+) j_retried=(\d+) j_ongoing=(\d+) queued=(\d+)"
    r" worker=(\S+)"
)
WEATHER, BUG = "40001", "23514"
SOON = HEALTH_LASTS_SECONDS + STOP_SECONDS


UNIX_SOCKET, TCP = "a unix socket", "TCP with a password"


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a server of its own, so that no other worker of this host has its health there."""
    if getattr(request, "param", UNIX_SOCKET) == UNIX_SOCKET:
        with EmbeddedRedis(tmp_path / "redis") as server:
            yield server.url
    else:
        node = RedisNode(tmp_path / "redis")
        node.start()
        node.client.config_set("requirepass", "p@ss")
        yield f"redis://:p%40ss@127.0.0.1:{node.port}/3"
        node.close()


@pytest.fixture
async def site(redis_url: str, installer: Installer, tmp_path: Path) -> AsyncIterator[Site]:
    settings = await installer.install(partitions=8)
    settings = settings.model_copy(update={"redis_url": SecretStr(redis_url)})
    async with site_of(settings, tmp_path / "logs") as site:
        yield site


async def lines(site: Site, key: str) -> Sequence[str]:
    redis = connect_redis(site.settings)
    try:
        found = [await redis.get(name) for name in sorted(await redis.keys(key))]
        return [line.decode() for line in found if line is not None]  # one may have ended meanwhile
    finally:
        await redis.aclose()


@pytest.mark.parametrize("redis_url", [UNIX_SOCKET, TCP], indirect=True)
async def test_the_check_follows_the_workers_of_the_host(site: Site) -> None:
    assert not await site.is_healthy()
    first, second = site.start_worker(), site.start_worker()

    async def two_are_there() -> bool:
        return len(await lines(site, health_key("*:*"))) == 2

    async def nobody_is_there() -> bool:
        return not await lines(site, health_key("*"))

    await eventually(two_are_there, SOON)
    assert await site.is_healthy()
    assert end(first, signal.SIGTERM) == 0
    [line] = await lines(site, health_key("*:*"))
    assert f":{second.pid}:" in line, "who ended in good order is still said to live"

    async def the_other_says_it_for_the_host() -> bool:
        return await lines(site, health_key(socket.gethostname())) == await lines(site, health_key("*:*"))

    await eventually(the_other_says_it_for_the_host, SOON)
    assert await site.is_healthy()
    second.send_signal(signal.SIGSTOP)
    await eventually(nobody_is_there, SOON, "a worker that hangs is healthy for ever")
    assert not await site.is_healthy()
    second.send_signal(signal.SIGCONT)
    await eventually(site.is_healthy, SOON)
    end(second, signal.SIGKILL)
    await eventually(nobody_is_there, SOON, "a worker that was killed is healthy for ever")
    assert not await site.is_healthy()


async def test_a_worker_that_arq_starts_works_and_ends_in_good_order(site: Site) -> None:
    await site.start_api()
    worker = site.start_arq()
    try:
        await site.succeed([register(1), register(2)])
        await site.succeed([fund(2), receive(17, 1)])
        await site.succeed([set_price(1, 17)])
        await site.succeed([buy(2, 17)])
        owners = await site.owners()
        assert [f":{worker.pid}:" in str(owner) for owner in owners] == [True]
        worker.terminate()
        assert await asyncio.to_thread(worker.wait, STOP_SECONDS) == 0
        assert await site.owners() == {None: 8}, "it left its leases to run out"
        assert await lines(site, health_key("*")) == []
    finally:
        worker.kill()
        worker.wait()


async def test_a_burst_that_arq_starts_ends_when_nothing_is_left_to_do(site: Site) -> None:
    await site.start_api()
    await site.submit([register(user) for user in range(1, 20)])
    worker = site.start_arq("--burst")
    assert await asyncio.to_thread(worker.wait, STOP_SECONDS) == 0
    assert await site.all_are_finished()
    assert await site.owners() == {None: 8}


@asynccontextmanager
async def trouble(site: Site, user_id: int, code: str) -> AsyncIterator[None]:
    """Within, the database refuses that user with that code."""
    async with connected(site.settings) as connection:
        await connection.execute(f"""
            CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{code}'; END $$;
            CREATE TRIGGER trouble BEFORE INSERT ON users
            FOR EACH ROW WHEN (NEW.id = {user_id}) EXECUTE FUNCTION trouble();
        """)
        yield
        await connection.execute("DROP FUNCTION trouble CASCADE")


async def test_the_counters_of_health_are_true(site: Site) -> None:
    await site.start_api()
    site.start_worker()

    async def counts(**expected: int | EllipsisType) -> None:
        """Until the worker's line says so; `...` stands for any number but 0."""
        names = ("complete", "failed", "retried", "ongoing", "queued")

        async def are_there() -> bool:
            [line] = await lines(site, health_key("*:*")) or [""]
            found = HEALTH.fullmatch(line)
            assert found is not None, line
            said = dict(zip(names, map(int, found.groups()[:5]), strict=True))
            return all(said[name] > 0 if right is ... else said[name] == right for name, right in expected.items())

        await eventually(are_there, SOON, f"the counters are never {expected}")

    await site.succeed([register(1), register(2)])
    await site.succeed([fund(2), receive(17, 1)])
    await site.succeed([set_price(1, 17)])
    [refused] = await site.submit([buy(2, 17, 2 * TON)], wait=30)
    assert refused["status"] == "rejected"
    await counts(complete=6, failed=0, ongoing=0, queued=0)

    async with account_locked(site, 2):
        await site.submit([buy(2, 17)])
        await until_waiting(site)
        await counts(complete=6, ongoing=1, queued=1)
    await counts(complete=7, failed=0, ongoing=0, queued=0)

    async with trouble(site, 777, WEATHER):
        await site.submit([register(777)])
        await counts(complete=7, failed=0, retried=..., queued=1)
    await counts(complete=8, failed=0, retried=..., ongoing=0, queued=0)
    async with trouble(site, 666, BUG):
        [failed] = await site.submit([register(666)], wait=30)
        assert failed["status"] == "failed"
        await counts(complete=8, failed=1, ongoing=0, queued=0)
