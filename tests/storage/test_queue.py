"""The queue: real arq jobs, in order, many in one round trip. The same on a real Redis and on fakeredis."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job
from fakeredis import FakeAsyncRedis, FakeServer

from storage.journal import new_id
from storage.notices import Listener
from storage.queue import (
    BELLS_CHANNEL,
    OUTCOMES_CHANNEL,
    Queue,
    connect_redis,
    deserialize,
    job_id,
    queue_name,
    serialize,
)
from storage.settings import Settings


@pytest.fixture(params=["real", "fake"])
async def redis(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[ArqRedis]:
    if request.param == "real":
        client = connect_redis(settings)
    else:
        pool = FakeAsyncRedis(server=FakeServer()).connection_pool
        client = ArqRedis(pool, job_serializer=serialize, job_deserializer=deserialize)
        client.auto_close_connection_pool = True
    await client.flushdb()
    yield client
    await client.aclose()


async def test_a_stock_client_sees_the_jobs_in_their_order(redis: ArqRedis) -> None:
    ids = [new_id() for _ in range(50)]
    await Queue(redis).enqueue([(7, id_) for id_ in ids])
    jobs = await redis.queued_jobs(queue_name=queue_name(7))
    assert [(job.function, tuple(job.args), job.job_id) for job in jobs] == [
        ("execute", (str(id_),), job_id(7, id_)) for id_ in ids
    ]


async def test_jobs_enqueued_later_stand_behind(redis: ArqRedis) -> None:
    ids = [new_id() for _ in range(30)]
    queue = Queue(redis)
    for id_ in reversed(ids):
        await queue.enqueue([(7, id_)])
    jobs = await redis.queued_jobs(queue_name=queue_name(7))
    assert [job.args[0] for job in jobs] == [str(id_) for id_ in reversed(ids)]
    scores = [score for _, score in await redis.zrange(queue_name(7), 0, -1, withscores=True)]
    assert sorted(set(scores)) == scores


async def test_enqueueing_twice_is_one_job(redis: ArqRedis) -> None:
    id_ = new_id()
    queue = Queue(redis)
    await queue.enqueue([(7, id_)])
    await queue.enqueue([(7, id_)])
    assert await redis.zcard(queue_name(7)) == 1


async def test_finishing_leaves_nothing_behind(redis: ArqRedis) -> None:
    commands = [(number % 3, new_id()) for number in range(2_500)]
    queue = Queue(redis)
    await queue.enqueue(commands)
    assert sum([await redis.zcard(queue_name(partition)) for partition in range(3)]) == 2_500
    await queue.finish(commands)
    assert await redis.keys("*") == []


async def test_a_stock_job_can_be_looked_at_and_discarded(redis: ArqRedis) -> None:
    queue = Queue(redis)
    stranger = await redis.enqueue_job("execute", "who knows", _job_id="garbage", _queue_name=queue_name(3))
    assert isinstance(stranger, Job)
    assert await queue.peek([2, 3], 10) == {3: ["garbage"]}
    await queue.discard(3, ["garbage"])
    assert await queue.peek([2, 3], 10) == {}
    assert await redis.keys("*") == []


async def test_doorbells_ring_and_outcomes_are_told(redis: ArqRedis) -> None:
    heard: list[tuple[str, str]] = []
    listener = redis.pubsub()
    await listener.subscribe(BELLS_CHANNEL, OUTCOMES_CHANNEL)
    ids = [UUID(int=1), UUID(int=2)]
    queue = Queue(redis)
    await queue.enqueue(zip((7, 3), ids, strict=True))
    await queue.finish(zip((7, 3), ids, strict=True))
    while len(heard) < 2:
        message = await listener.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message is not None or len(heard) < 2
        if message is not None:
            heard.append((message["channel"].decode(), message["data"].decode()))
    assert heard == [(BELLS_CHANNEL, "7 3"), (OUTCOMES_CHANNEL, f"{ids[0]} {ids[1]}")]
    await listener.aclose()  # type: ignore[no-untyped-call]


async def test_the_budget_of_redis_commands(settings: Settings) -> None:
    """One PSETEX for each command; all else is for each partition or each call."""
    redis = connect_redis(settings)
    queue = Queue(redis)
    commands = [(number % 4, new_id()) for number in range(100)]
    await queue.enqueue(commands)
    await queue.finish(commands)
    await redis.config_resetstat()
    await queue.enqueue(commands)
    enqueued = await _calls(redis)
    await queue.finish(commands)
    finished = await _calls(redis)
    await redis.aclose()
    assert enqueued == {"psetex": 100, "zrevrangebyscore": 4, "zadd": 4, "publish": 1, "time": 1, "evalsha": 1}
    assert finished == enqueued | {"zrem": 4, "del": 4, "publish": 2, "evalsha": 2}


async def _calls(redis: ArqRedis) -> dict[str, int]:
    stats = await redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()}
    own = ("info", "config|resetstat", "config", "hello", "client", "client|setinfo", "select", "ping")
    return {name: count for name, count in calls.items() if name not in own}


async def test_a_listener_hears_again_after_redis_dropped_it(settings: Settings) -> None:
    redis = connect_redis(settings)
    heard: list[str] = []
    listener = Listener(redis, "a", heard.append)
    task = asyncio.create_task(listener.run())
    async with asyncio.timeout(10):
        while not heard:
            await redis.publish("a", "first")
            await asyncio.sleep(0)
        await redis.client_kill_filter(_type="pubsub")
        heard.clear()
        while "second" not in heard:
            await redis.publish("a", "second")
            await asyncio.sleep(0)
    task.cancel()
    await redis.aclose()
