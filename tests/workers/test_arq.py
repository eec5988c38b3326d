"""What makes our worker one of arq's: what it takes and what it refuses of arq's options, and what it says of jobs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq import cron
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job, JobStatus
from arq.worker import create_worker
from pydantic import SecretStr

from storage.journal.entry import new_id
from storage.redis.hints import Hints
from storage.redis.queue import Queue, arq_redis, connect_redis, job_id, queue_name
from storage.settings import Settings
from storage.tasks import end
from tests.deadline import eventually
from workers import settings as settings_module
from workers.health import PROGRESS_SECONDS, Health, Progress, health_key
from workers.worker import SoukWorker, execute

NOWHERE = SecretStr("unix:///nowhere/redis.sock")
"""A Redis that is away."""


async def never(ctx: dict[Any, Any]) -> None:
    raise AssertionError("a hook that must not be called")


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[ArqRedis]:
    client = connect_redis(settings)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"cron_jobs": [cron(never, hour=3)]},
            r"takes no cron_jobs: what is to happen at a time is a command with `run_",
        ),
        ({"functions": [never]}, "takes no functions: it runs commands"),
        ({"redis_settings": RedisSettings()}, "takes no redis_settings: SOUK_REDIS_URL says where Redis is"),
        (
            {"max_jobs": 50, "keep_result": 9},
            "no max_jobs: SOUK_LANES and .*; .* no keep_result: SOUK_ARQ_RESULTS_SECONDS",
        ),
        ({"keep_result_forever": True}, "takes no keep_result_forever"),
        ({"on_job_start": never}, "takes no on_job_start: its settings are SOUK_"),
        ({"poll_delay": 0.1}, "takes no poll_delay"),
        ({"max_burst_jobs": 1}, "takes no max_burst_jobs"),
        ({"cron": []}, "neither a Souk worker nor arq's knows 'cron'"),
    ],
)
async def test_options_that_would_have_no_effect_are_refused(
    settings: Settings, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        SoukWorker(settings, **options)


async def test_hooks_and_burst_are_honoured_whether_redis_is_there_or_not(settings: Settings) -> None:
    called = []

    async def start(ctx: dict[Any, Any]) -> None:
        called.append("start")

    async def stop(ctx: dict[Any, Any]) -> None:
        called.append("stop")

    away = settings.model_copy(update={"redis_url": NOWHERE})
    hooks: dict[str, Any] = {"on_startup": start, "on_shutdown": stop, "handle_signals": False}
    worker = SoukWorker(away, burst=True, **hooks)
    assert await worker.run_check() == 0
    await worker.close()
    await worker.close()
    assert called == ["start", "stop"]
    assert repr(worker) == "<SoukWorker j_complete=0 j_failed=0 j_retried=0 j_ongoing=0>"


async def test_cron_jobs_beside_our_worker_settings_are_refused_at_the_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_module, "load_settings", lambda: settings)
    found = {
        "functions": [execute],
        "on_startup": settings_module.work,
        "redis_settings": await arq_redis(settings),
        "handle_signals": False,
        "cron_jobs": [cron(never, hour=3)],
    }
    worker = create_worker(found)
    with pytest.raises(TypeError, match="takes no cron_jobs"):
        await worker.async_run()
    await worker.pool.aclose(close_connection_pool=True)


async def test_only_a_batch_that_takes_long_is_said_to_be_in_progress(redis: ArqRedis) -> None:
    queue = Queue(redis)
    hints = Hints(queue)
    long, others = (3, new_id()), [(3, new_id()) for _ in range(100)]
    await queue.enqueue([long, *others])
    in_hand = [long]
    looks = iter(others)
    progress = asyncio.create_task(Progress(lambda: [*in_hand, next(looks)], hints).run())
    job = Job(job_id(*long), redis, _queue_name=queue_name(3))

    async def in_progress() -> bool:
        return await job.status() is JobStatus.in_progress

    await eventually(in_progress)
    assert await redis.keys("arq:in-progress:*") == [f"arq:in-progress:{job_id(*long)}".encode()]
    in_hand.clear()
    await hints.close()
    await redis.config_resetstat()
    await asyncio.sleep(3 * PROGRESS_SECONDS)
    assert "cmdstat_evalsha" not in await redis.info("commandstats"), "a batch that is soon done costs a call"
    await end([progress])


async def test_the_host_keeps_its_line_when_another_worker_has_written_it(redis: ArqRedis) -> None:
    queue = Queue(redis)
    await queue.enqueue([(2, new_id()), (3, new_id())])
    first, second = Health(queue, "host:1:a"), Health(queue, "host:2:b")
    assert await first.record(lambda: "j_complete=1", [2]) == "j_complete=1 queued=1"
    assert await first.record(lambda: "j_complete=2", [2]) is None, "it is said seldom"
    assert await second.record(lambda: "j_complete=3", [2, 3]) == "j_complete=3 queued=2"
    await first.forget()
    line = await redis.get(health_key("host"))
    assert line is not None
    assert line.endswith(b"j_complete=3 queued=2 worker=host:2:b")
    assert line == await redis.get(health_key("host:2:b"))
    await second.forget()
    assert await redis.keys("souk:worker:*") == []
