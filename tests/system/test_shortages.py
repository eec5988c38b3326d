"""What a process may lack: descriptors, a disk for its log, a client that waits for the answer, each of its servers."""

import asyncio
import random
import resource
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
from storage.settings import load_settings
from tests.deadline import eventually
from tests.installation import database_url, prepare
from tests.market import register
from tests.system.conftest import BATCH_MAX, LEASE_SECONDS
from tests.system.site import Site, Trades, site_of

ALL_SECONDS = 60
LINKS = ("PostgreSQL", "Redis", "worker", "API")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
async def test_an_api_without_descriptors_accepts_again_when_it_has_some(site: Site) -> None:
    """As many connections as it has descriptors for are open and idle; who comes then waits and is served later."""
    site.start_worker()
    await site.start_api()
    api = psutil.Process(site.processes[-1].pid)
    await site.succeed([register(1)])
    resource.prlimit(api.pid, resource.RLIMIT_NOFILE, (api.num_fds() + 10, 4_096))
    address = (site.client.base_url.host, site.client.base_url.port or 0)
    with ExitStack() as opened:
        for _ in range(40):
            opened.enter_context(socket.create_connection(address, timeout=5))
        late = asyncio.create_task(site.submit([register(2)], wait=30))
        await asyncio.wait([late], timeout=1)
        assert api.is_running()
    assert [receipt["status"] for receipt in await late] == ["succeeded"]
    await site.succeed([register(3)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
async def test_a_full_disk_under_the_log_stops_no_trade(site: Site) -> None:
    """Whatever a worker wants to say, nobody can write it down."""
    worker = site.start("worker", log=Path("/dev/full"))
    await site.start_api()
    trades = Trades(rounds=10)
    await trades.prepare(site)
    sending = asyncio.create_task(trades.send(site))
    while not sending.done():  # each time there is something to warn of
        await site.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'souk lane%'"
        )
        await asyncio.wait([sending], timeout=0.2)
    await sending
    await eventually(site.all_are_finished, ALL_SECONDS)
    await trades.assert_each_happened_once_in_order(site)
    assert worker.poll() is None


async def test_who_hangs_up_before_the_answer_and_sends_again_has_one_command(site: Site) -> None:
    """Twenty clients that are gone before they know; each then asks under the same key."""
    site.start_worker()
    await site.start_api()
    commands = [register(user) | {"idempotency_key": f"hasty {user}"} for user in range(1, 21)]
    hasty = httpx.AsyncClient(base_url=site.client.base_url, headers=site.client.headers)
    async with hasty:
        for number, command in enumerate(commands):
            with suppress(httpx.TransportError):
                await hasty.post("/v1/commands", json=command, timeout=httpx.Timeout(5, read=0.000_1 * number))
    receipts = [(await site.client.post("/v1/commands", json=command)).json() for command in commands]
    await eventually(site.all_are_finished)
    assert len({receipt["id"] for receipt in receipts}) == len(commands)
    assert await site.rows("SELECT count(*), count(DISTINCT idempotency_key) FROM commands") == [(20, 20)]


@pytest.fixture
async def links(tmp_path: Path) -> AsyncIterator[tuple[Site, dict[str, list[psutil.Process]]]]:
    """A site on servers of its own, and the processes of each."""
    with EmbeddedPostgres(tmp_path) as postgres, EmbeddedRedis(tmp_path) as redis:
        settings = load_settings(
            database_url=SecretStr(database_url(postgres, "souk")),
            redis_url=SecretStr(redis.url),
            partitions=8,
            lease_seconds=LEASE_SECONDS,
            batch_max=BATCH_MAX,
        )
        await prepare(settings)
        async with site_of(settings, tmp_path / "logs") as site:
            worker = site.start_worker()
            await site.start_api()
            found = (postgres.pid, redis.pid, worker.pid, site.processes[-1].pid)
            yield site, {name: [psutil.Process(pid)] for name, pid in zip(LINKS, found, strict=True)}


def signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """The process and its children: PostgreSQL has one for each session."""
    for process in processes:
        for each in (process, *process.children()):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)


@pytest.mark.parametrize("seed", [1, 2])
async def test_links_that_stop_one_by_one_and_come_back_in_any_order_lose_nothing(
    links: tuple[Site, dict[str, list[psutil.Process]]], seed: int
) -> None:
    site, processes = links
    chance = random.Random(seed)
    trades = Trades(rounds=10)
    await trades.prepare(site)
    sending = asyncio.create_task(trades.send(site))
    stopped = chance.sample(LINKS, len(LINKS))
    for link in stopped:
        signal_all(processes[link], signal.SIGSTOP)
        await asyncio.wait([sending], timeout=0.3)
    for link in chance.sample(stopped, len(stopped)):
        signal_all(processes[link], signal.SIGCONT)
        await asyncio.wait([sending], timeout=0.3)
    await sending
    await eventually(site.all_are_finished, ALL_SECONDS)
    await trades.assert_each_happened_once_in_order(site)
