"""Hints: nobody waits for them, and a Redis that is away or hangs makes neither memory nor the log grow."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedRedis
from storage.journal.entry import new_id
from storage.redis.addresses import REDIS_SECONDS
from storage.redis.hints import WAITING_MAX, Hints
from storage.redis.queue import Queue, connect_redis
from storage.settings import Settings
from tests.deadline import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path) as server:
        yield server


@pytest.fixture
async def queue(server: EmbeddedRedis, settings: Settings) -> AsyncIterator[Queue]:
    redis = connect_redis(settings.model_copy(update={"redis_url": SecretStr(server.url)}))
    yield Queue(redis)
    await redis.aclose()


@pytest.fixture
async def hints(queue: Queue) -> AsyncIterator[Hints]:
    hints = Hints(queue)
    yield hints
    await hints.close()


async def queued(queue: Queue) -> int:
    return sum(len(jobs) for jobs in (await queue.peek(range(4), 10_000)).values())


async def test_what_comes_during_a_call_goes_with_the_next(hints: Hints, queue: Queue) -> None:
    for number in range(1_000):
        hints.enqueue([(number % 4, new_id())])
    await hints.close()
    assert await queued(queue) == 1_000
    assert hints.lost == 0
    calls = (await queue.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert calls <= 4, "each hint is a call"


async def test_a_server_that_hangs_is_told_in_vain_in_bounded_time_and_memory(
    hints: Hints, queue: Queue, server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    process = psutil.Process(server.pid)
    hints.enqueue([(1, new_id())])
    await hints.close()
    some = [(1, new_id()) for _ in range(1_000)]
    process.suspend()
    start = time.monotonic()
    for _ in range(50):
        hints.enqueue(some)
        hints.finish(some)
        await asyncio.sleep(0)
    assert time.monotonic() - start < REDIS_SECONDS / 2, "who tells waits"
    assert len(hints._enqueued._waiting) + len(hints._finished._waiting) <= 2 * WAITING_MAX
    await asyncio.wait_for(hints.close(), 3 * REDIS_SECONDS)
    assert hints.lost == 100_000
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) < 10
    process.resume()

    async def told() -> bool:
        hints.enqueue([(2, new_id())])
        await hints.close()
        return 2 in await queue.peek([2], 1)

    await eventually(told)


async def test_a_server_that_is_gone_is_told_in_vain_and_heard_of_once_a_second(
    hints: Hints, queue: Queue, server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    for _ in range(200):
        hints.enqueue([(1, new_id())])
        await hints.close()
    assert hints.lost == 200
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) < 10
    server.start()
    hints.enqueue([(1, new_id())])
    await hints.close()
    assert await queued(queue) == 1


async def test_a_full_server_still_rings(hints: Hints, queue: Queue) -> None:
    listener = queue.redis.pubsub()
    await listener.subscribe("souk:bells", "souk:outcomes")
    await queue.redis.config_set("maxmemory", "1")
    hints.enqueue([(3, new_id())])
    finished = new_id()
    hints.begin([(3, finished)])
    hints.finish([(3, finished)])
    heard: set[str] = set()
    async with asyncio.timeout(10):
        while len(heard) < 2:
            message = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
            if message is not None:
                heard.add(message["data"].decode())
    assert heard == {"3", str(finished)}
    assert await queue.state(4) == "refusing"
    await queue.redis.config_set("maxmemory", "0")
    assert await queue.state(4) == "ok"
    await listener.aclose()  # type: ignore[no-untyped-call]


async def test_a_full_server_keeps_no_results_and_lets_go_of_its_jobs(server: EmbeddedRedis, queue: Queue) -> None:
    keeping = Queue(queue.redis, results_seconds=60)
    commands = [(number, new_id()) for number in range(4)]
    await keeping.enqueue(commands)
    await queue.redis.config_set("maxmemory", "1")
    await keeping.finish(commands, {id_: "a result" for _, id_ in commands})
    assert await queue.redis.keys("*") == []
