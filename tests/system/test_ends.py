"""Processes that are asked to end: they finish what is in hand, say so with status 0, and nobody loses anything."""

import asyncio
import itertools
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
from storage.embedded.stack import free_port
from storage.settings import load_settings
from tests.deadline import eventually
from tests.installation import database_url, prepare
from tests.market import TON, buy, register, set_price
from tests.system.conftest import BATCH_MAX, LEASE_SECONDS
from tests.system.processes import Process
from tests.system.site import START_SECONDS, Site, Trades, account_locked, end, site_of, until_waiting

END_SECONDS = 10
ALL_SECONDS = 60


async def ends_well(process: Process) -> float:
    """Ask it to end; the seconds it takes."""
    began = time.monotonic()
    assert await asyncio.to_thread(end, process, signal.SIGTERM) == 0
    return time.monotonic() - began


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[tuple[Site, EmbeddedPostgres, EmbeddedRedis]]:
    """A site on servers of its own, so that they can be taken away."""
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
            yield site, postgres, redis


async def at_work(site: Site) -> tuple[Process, Process]:
    worker = site.start_worker()
    await site.start_api()
    await site.succeed([register(user) for user in range(100, 200)])
    return worker, site.processes[-1]


async def test_all_end_well_without_redis(own: tuple[Site, EmbeddedPostgres, EmbeddedRedis]) -> None:
    site, _, redis = own
    worker, api = await at_work(site)
    redis.kill()
    await site.submit([register(user) for user in range(200, 300)])
    assert await ends_well(worker) < END_SECONDS
    assert await ends_well(api) < END_SECONDS
    assert await site.owners() == {None: 8}


async def test_all_end_well_without_postgresql(own: tuple[Site, EmbeddedPostgres, EmbeddedRedis]) -> None:
    site, postgres, _ = own
    worker, api = await at_work(site)
    postgres.kill()
    answer = await site.client.post("/v1/commands", json=register(1))
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert await ends_well(worker) < END_SECONDS
    assert await ends_well(api) < END_SECONDS
    postgres.start()


async def test_a_signal_at_any_moment_of_its_start_ends_a_worker(site: Site) -> None:
    """None is lost on the way from the first handler to the loop's; before the first the system ends it."""
    for number in range(12):
        process = site.start_worker()
        await asyncio.sleep(number / 20)  # a moment of its start: the later ones find it at work
        assert await asyncio.to_thread(end, process, signal.SIGTERM) in (0, -signal.SIGTERM)


async def test_a_batch_that_cannot_end_is_cut_off_and_done_by_the_next(site: Site) -> None:
    worker = site.start_worker()
    await site.start_api()
    trades = Trades(rounds=4)
    await trades.prepare(site)
    async with account_locked(site, trades.users[0]):
        sending = asyncio.create_task(trades.send(site))
        await until_waiting(site)
        assert await ends_well(worker) < END_SECONDS
        assert await site.owners() == {None: 8}
    site.start_worker()
    await sending
    await eventually(site.all_are_finished, ALL_SECONDS)
    await trades.assert_each_happened_once_in_order(site)


async def test_a_draining_api_answers_what_is_in_hand_and_sends_home_who_waits(site: Site) -> None:
    """Nobody executes anything, so who waits would wait for 30 seconds."""
    await site.start_api()
    [api] = site.processes
    [receipt] = await site.submit([register(1)])
    headers = {"Prefer": "wait=30"}
    waiting = [
        asyncio.create_task(site.client.post("/v1/commands", json=register(2), headers=headers)),
        asyncio.create_task(site.client.post("/v1/commands/batch", json={"commands": [register(3)]}, headers=headers)),
        asyncio.create_task(site.client.get(f"/v1/commands/{receipt['id']}", params={"wait": "30"})),
    ]

    async def stored() -> bool:
        return bool(await site.value("SELECT count(*) = 3 FROM commands"))

    await eventually(stored)
    assert await ends_well(api) < 3
    posted, many, got = await asyncio.gather(*waiting)
    assert (posted.status_code, posted.json()["status"]) == (202, "accepted")
    assert (many.status_code, many.json()["receipts"][0]["status"]) == (202, "accepted")
    assert (got.status_code, got.json()["status"]) == (200, "accepted")


class Rolling:
    """Two APIs at fixed addresses and two workers, and clients who know both addresses."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.ports = [free_port("127.0.0.1") for _ in range(2)]
        self.apis = [self.start_api(port) for port in self.ports]
        self.workers = [site.start_worker() for _ in range(2)]
        self.refusals: list[str] = []
        self._turn = itertools.count()

    def start_api(self, port: int) -> Process:
        return self.site.start("api", "--port", str(port))

    async def until_ready(self, port: int) -> None:
        async def ready() -> bool:
            try:
                return (await self.site.client.get(f"http://127.0.0.1:{port}/readyz")).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        await eventually(ready, START_SECONDS)

    async def send(self, command: dict[str, object]) -> str:
        """The id of its receipt; sent again, to the other, when nobody answers or the answer is to come again."""
        while True:
            port = self.ports[next(self._turn) % 2]
            try:
                answer = await self.site.client.post(f"http://127.0.0.1:{port}/v1/commands", json=command)
            except httpx.TransportError as error:
                self.refusals.append(type(error).__name__)
                await asyncio.sleep(0.01)
                continue
            if answer.status_code in (httpx.codes.ACCEPTED, httpx.codes.OK):
                return str(answer.json()["id"])
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
            self.refusals.append("503")

    async def restart_everything(self) -> None:
        for number, port in enumerate(self.ports):
            await ends_well(self.apis[number])
            self.apis[number] = self.start_api(port)
            await self.until_ready(port)
        for worker in self.workers:
            await ends_well(worker)
            self.site.start_worker()


async def test_a_rolling_restart_under_load_loses_nothing_and_refuses_nobody_for_good(site: Site) -> None:
    await site.start_api()
    rolling = Rolling(site)
    for port in rolling.ports:
        await rolling.until_ready(port)
    trades = Trades(items=12)
    await trades.prepare(site)
    site.client.headers["Authorization"] = f"Bearer {site.key}"
    over = asyncio.Event()
    acknowledged: list[str] = []

    async def trade(item: int) -> int:
        """An item to and fro, one command after the other, until all is restarted."""
        first, second = trades.parties(item)
        rounds = 0
        while not over.is_set():
            for number, (seller, buyer) in enumerate(((first, second), (second, first))):
                for command in (set_price(seller, item, TON), buy(buyer, item, TON)):
                    key = f"{item}:{rounds}:{number}:{command['kind']}"
                    acknowledged.append(await rolling.send(command | {"idempotency_key": key}))
            rounds += 1
        return rounds

    trading = [asyncio.create_task(trade(item)) for item in trades.items]
    await rolling.restart_everything()
    over.set()
    rounds = await asyncio.gather(*trading)
    await eventually(site.all_are_finished, ALL_SECONDS)
    ids = {str(row[0]) for row in await site.rows("SELECT id FROM commands WHERE status = 'succeeded'")}
    assert set(acknowledged) <= ids
    assert len(set(acknowledged)) == len(acknowledged) == 4 * sum(rounds)
    assert await site.value("SELECT count(*) FROM deals") == 2 * sum(rounds)
    sys.stdout.write(f"{len(acknowledged)} acknowledged, refused: {sorted(set(rolling.refusals))}\n")
