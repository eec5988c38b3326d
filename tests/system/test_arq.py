"""The queues as stock arq sees them: real jobs, listed, enqueued and worked by its own client and worker."""

import json
import pickle
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func
from redis.asyncio import Redis

from tests.deadline import eventually
from tests.installation import Installer
from tests.market import TON, buy, fund, receive, register, set_price, transfer
from tests.system.site import Site, end, site_of
from workers.worker import execute


def as_json(job: dict[str, Any]) -> bytes:
    return json.dumps(job).encode()


@pytest.fixture(scope="module")
async def site(installer: Installer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """An API; workers are of the tests."""
    async with site_of(await installer.install(partitions=8), tmp_path_factory.mktemp("arq")) as site:
        await site.start_api()
        yield site


@pytest.fixture
async def arq(site: Site) -> AsyncIterator[ArqRedis]:
    """A client as arq's own documentation makes it, with JSON in the place of pickle."""
    where = Redis.from_url(site.settings.redis_url.get_secret_value()).connection_pool.connection_kwargs
    settings = RedisSettings(unix_socket_path=where["path"], database=where["db"])
    pool = await create_pool(settings, job_serializer=as_json, job_deserializer=json.loads)
    yield pool
    await pool.aclose(close_connection_pool=True)


def queue_of(receipt: dict[str, Any]) -> str:
    return f"arq:queue:{{p{receipt['partition']:03d}}}"


def worker_of(site: Site, arq: ArqRedis, queue: str) -> Worker:
    return Worker(
        functions=[func(execute, name="execute")],
        queue_name=queue,
        redis_pool=arq,
        ctx={"settings": site.settings},
        burst=True,
        poll_delay=0.01,
        handle_signals=False,
        job_serializer=as_json,
        job_deserializer=json.loads,
    )


async def test_a_stock_client_sees_the_jobs_of_a_partition_in_order(site: Site, arq: ArqRedis) -> None:
    receipts = [(await site.submit([set_price(1, 17, TON + number)]))[0] for number in range(10)]
    queue = queue_of(receipts[0])

    async def all_are_queued() -> bool:
        return len(await arq.queued_jobs(queue_name=queue)) == 10

    await eventually(all_are_queued)
    jobs = sorted(await arq.queued_jobs(queue_name=queue), key=lambda job: job.score or 0)
    assert [job.function for job in jobs] == ["execute"] * 10
    assert [list(job.args) for job in jobs] == [[receipt["id"]] for receipt in receipts]
    tag = queue.removeprefix("arq:queue:")
    assert [job.job_id for job in jobs] == [f"{tag}:{receipt['id']}" for receipt in receipts]
    assert all(job.kwargs == {} and job.enqueue_time is not None for job in jobs)
    stored = await arq.get(f"arq:job:{jobs[0].job_id}")
    assert json.loads(stored)["a"] == [receipts[0]["id"]]


async def test_a_stock_worker_gives_the_outcomes(site: Site, arq: ArqRedis) -> None:
    chain = [receive(18, 1), set_price(1, 18), buy(2, 18), transfer(2, 18, 3), set_price(1, 18)]
    receipts = await site.submit([register(1), register(2), register(3), fund(2), *chain])

    queues = list(dict.fromkeys(queue_of(receipt) for receipt in receipts))  # users before the item they trade

    async def queued() -> set[str]:
        jobs = [job for queue in queues for job in await arq.queued_jobs(queue_name=queue)]
        return {job.args[0] for job in jobs} & {receipt["id"] for receipt in receipts}

    async def all_are_queued() -> bool:
        return len(await queued()) == len(receipts)

    await eventually(all_are_queued)
    for queue in queues:
        worker = worker_of(site, arq, queue)
        await worker.async_run()
        assert worker.jobs_failed == 0
    final = [(await site.client.get(f"/v1/commands/{receipt['id']}")).json() for receipt in receipts]
    assert [one["status"] for one in final] == ["succeeded"] * 8 + ["rejected"]
    assert final[-1]["rejection"]["code"] == "NFT_PERMISSION_DENIED"
    assert await queued() == set()


async def test_a_stock_worker_beside_ours_doubles_nothing(site: Site, arq: ArqRedis) -> None:
    ours = site.start_worker()
    receipts = [receipt for number in range(4_001, 4_041) for receipt in await site.submit([register(number)])]
    for queue in {queue_of(receipt) for receipt in receipts}:
        await worker_of(site, arq, queue).async_run()
    await eventually(site.all_are_finished)
    assert await site.value("SELECT count(*) FROM events WHERE fields ->> 'user_id' LIKE '40__'") == 40
    end(ours, signal.SIGTERM)


async def test_a_job_of_a_stock_client_is_a_hint_like_ours(site: Site, arq: ArqRedis) -> None:
    """Doubled, or for a command that is final or was never accepted, it changes nothing and does not stay."""
    ours = site.start_worker()
    [receipt] = await site.submit([register(1)], wait=30)
    queue = queue_of(receipt)
    unknown = "0197b0c4-0000-7000-8000-000000000000"
    for command_id in (receipt["id"], unknown, "not an id"):
        assert await arq.enqueue_job("execute", command_id, _queue_name=queue, _job_id=f"{queue[10:]}:{command_id}")
    assert await arq.enqueue_job("something else", 7, _queue_name=queue)
    await site.succeed([register(1), register(2)])

    async def empty() -> bool:
        return not await arq.zcard(queue)

    await eventually(empty)
    assert (await site.client.get(f"/v1/commands/{receipt['id']}")).json() == receipt
    end(ours, signal.SIGTERM)


class Bomb:
    """What a pickle runs when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


async def test_whatever_somebody_writes_into_redis_executes_nothing_and_does_not_stay(
    site: Site, arq: ArqRedis, tmp_path: Path
) -> None:
    """Pickles, garbage and lists, as jobs and as members of a queue, beside a command that must be executed."""
    bomb = tmp_path / "went off"
    [receipt] = await site.submit([register(500)])
    queue = queue_of(receipt)
    tag = queue.removeprefix("arq:queue:")
    job: dict[str, Any] = {"t": None, "f": "execute", "a": (Bomb(bomb),), "k": {}, "et": 0}
    for number, written in enumerate((pickle.dumps(job), pickle.dumps(Bomb(bomb)), b"\x00\xff", b"[]", b"{}", b"")):
        name = f"{tag}:0197b0c4-0000-7000-8000-{number:012d}"
        await arq.set(f"arq:job:{name}", written)
        await arq.zadd(queue, {name: number + 1})
    await arq.zadd(queue, {b"\xff\x00": 1, b"": 2, b"souk": 3})
    ours = site.start_worker()
    await site.succeed([register(501)])
    for channel in ("souk:bells", "souk:outcomes"):
        assert await arq.publish(channel, b"\xff all of them 9999 -1 \xc2\xb2"), "nobody listens"
    await site.succeed([register(502)])
    await eventually(site.all_are_finished)

    async def empty() -> bool:
        return not await arq.zcard(queue)

    await eventually(empty)
    assert not bomb.exists()
    assert ours.poll() is None
    end(ours, signal.SIGTERM)
