"""The queue: real arq jobs, in order, many in one round trip. The same on a real Redis and on fakeredis."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus, ResultNotFound, SerializationError
from fakeredis import FakeAsyncRedis, FakeServer
from pydantic import SecretStr

from commands.outcome import Outcome, Status
from storage.journal.entry import new_id
from storage.redis.notices import Listener
from storage.redis.queue import (
    BELLS_CHANNEL,
    OUTCOMES_CHANNEL,
    Queue,
    arq_redis,
    connect_redis,
    deserialize,
    job_id,
    queue_name,
    result_record,
    serialize,
)
from storage.settings import Settings

ACCEPTED_AT = datetime(2030, 1, 1, 12, 0, 0, 1_000, UTC)
RESULTS_SECONDS = 60


def record(partition: int, id_: UUID, outcome: Outcome) -> str:
    later = [ACCEPTED_AT + timedelta(milliseconds=number) for number in (3, 8)]
    return result_record(
        partition, id_, outcome, accepted_at=ACCEPTED_AT, started_at=later[0], finished_at=later[1], tries=2
    )


def job(redis: ArqRedis, partition: int, id_: UUID) -> Job:
    """As a stock client holds it."""
    return Job(job_id(partition, id_), redis, _queue_name=queue_name(partition), _deserializer=deserialize)


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


async def test_a_job_is_in_progress_from_its_beginning_to_its_end(redis: ArqRedis) -> None:
    commands = [(number % 3, new_id()) for number in range(7)]
    queue = Queue(redis)
    await queue.enqueue(commands)
    assert await queue.count(range(4)) == 7
    await queue.begin(commands[:5])
    statuses = [await job(redis, *command).status() for command in commands]
    assert statuses == [JobStatus.in_progress] * 5 + [JobStatus.queued] * 2
    await queue.finish(commands)
    assert {await job(redis, *command).status() for command in commands} == {JobStatus.not_found}
    assert await redis.keys("*") == []


async def test_a_job_that_is_not_queued_is_not_in_progress(redis: ArqRedis) -> None:
    """It is finished already, and what would say the contrary has been overtaken on its way."""
    queue = Queue(redis)
    await queue.begin([(7, new_id())])
    assert await redis.keys("*") == []


async def test_arqs_clients_get_the_results_that_are_kept(redis: ArqRedis) -> None:
    ids = [new_id() for _ in range(3)]
    outcomes = [
        Outcome(Status.SUCCEEDED, {"deal_id": "17", "at": ACCEPTED_AT}),
        Outcome(Status.REJECTED, rejection={"code": "INSUFFICIENT_BALANCE", "needed_nano": 5}),
        Outcome(Status.FAILED, error="Traceback: what is for operators alone"),
    ]
    queue = Queue(redis, RESULTS_SECONDS)
    await queue.enqueue([(7, id_) for id_ in ids])
    records = {id_: record(7, id_, outcome) for id_, outcome in zip(ids, outcomes, strict=True)}
    await queue.finish([(7, id_) for id_ in ids], records)
    succeeded, rejected, failed = (job(redis, 7, id_) for id_ in ids)
    told: dict[str, Any] = {"status": "succeeded", "result": {"deal_id": "17", "at": "2030-01-01T12:00:00.001000Z"}}
    assert await succeeded.result(timeout=1) == told | {"rejection": None}
    assert (await rejected.result(timeout=1))["rejection"] == {"code": "INSUFFICIENT_BALANCE", "needed_nano": 5}
    with pytest.raises(SerializationError, match=f"the command {ids[2]} is set aside as failed"):
        await failed.result(timeout=1)
    assert {await each.status() for each in (succeeded, rejected, failed)} == {JobStatus.complete}
    info = await succeeded.result_info()
    assert info == await succeeded.info()
    assert info is not None
    assert (info.function, list(info.args), info.kwargs, info.job_try) == ("execute", [str(ids[0])], {}, 2)
    assert (info.success, info.queue_name, info.score) == (True, queue_name(7), None)
    assert info.enqueue_time == ACCEPTED_AT
    assert [info.start_time, info.finish_time] == [ACCEPTED_AT + timedelta(milliseconds=number) for number in (3, 8)]
    results = await redis.all_job_results()
    assert {(one.job_id, one.success) for one in results} == {
        (job_id(7, id_), outcome.status != "failed") for id_, outcome in zip(ids, outcomes, strict=True)
    }
    lives_ms = [await redis.pttl(key) for key in await redis.keys("*")]
    assert len(lives_ms) == 3, "more is kept than the results"
    assert all(0 < life_ms <= RESULTS_SECONDS * 1000 for life_ms in lives_ms)


async def test_no_result_is_kept_unless_that_is_asked_for(redis: ArqRedis) -> None:
    id_ = new_id()
    queue = Queue(redis)
    await queue.enqueue([(7, id_)])
    await queue.finish([(7, id_)], {id_: record(7, id_, Outcome(Status.SUCCEEDED, {}))})
    assert await redis.keys("*") == []
    with pytest.raises(ResultNotFound):
        await job(redis, 7, id_).result(timeout=1)


async def test_a_result_that_a_call_of_a_thousand_leaves_is_that_of_its_own_command(redis: ArqRedis) -> None:
    commands = [(number % 3, new_id()) for number in range(2_500)]
    records = {
        id_: record(partition, id_, Outcome(Status.SUCCEEDED, {"number": number}))
        for number, (partition, id_) in enumerate(commands)
        if number % 2
    }
    queue = Queue(redis, RESULTS_SECONDS)
    await queue.enqueue(commands)
    await queue.begin(commands[:1_700])
    await queue.finish(commands, records)
    assert len(await redis.keys("*")) == len(records)
    for number in (1, 999, 1_001, 2_499):
        assert (await job(redis, *commands[number]).result(timeout=1))["result"] == {"number": number}


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


async def test_a_result_that_is_kept_costs_one_redis_command_more(settings: Settings) -> None:
    redis = connect_redis(settings)
    queue = Queue(redis, RESULTS_SECONDS)
    commands = [(number % 4, new_id()) for number in range(100)]
    records = {id_: record(partition, id_, Outcome(Status.SUCCEEDED, {})) for partition, id_ in commands}
    await queue.finish(commands, records)
    await redis.config_resetstat()
    await queue.finish(commands, records)
    finished = await _calls(redis)
    await redis.aclose()
    assert finished == {"psetex": 100, "zrem": 4, "del": 4, "publish": 1, "evalsha": 1}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/redis.sock?db=3", {"unix_socket_path": "/run/redis.sock", "database": 3}),
        (
            "redis://souk:p%40ss@cache:6380/2",
            {"host": "cache", "port": 6380, "username": "souk", "password": "p@ss", "database": 2},
        ),
        (
            "rediss://:secret@cache:6380?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=none",
            {
                "host": "cache",
                "ssl": True,
                "password": "secret",
                "ssl_ca_certs": "/etc/ca.pem",
                "ssl_cert_reqs": "none",
            },
        ),
    ],
)
async def test_arq_connects_to_what_the_setting_names(settings: Settings, url: str, expected: dict[str, Any]) -> None:
    found = await arq_redis(settings.model_copy(update={"redis_url": SecretStr(url)}))
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.ssl == url.startswith("rediss")
    assert not found.sentinel


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
