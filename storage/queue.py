"""The queue: a hint in Redis for every accepted command, as a real arq job in the queue of its partition.

It tells which partitions have work; what the work is, the journal tells. This is the half of arq that enqueues.

A job's key carries its partition as a hash tag, `arq:job:{p007}:<command id>`, so a partition's keys share one slot of
a Redis Cluster. Both scripts take any number of partitions, so a flush or a batch is one round trip. Enqueueing costs a
command one PSETEX, finishing none; a partition costs two commands to enqueue to and two to finish; a call one notice.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from storage.settings import Settings

FUNCTION = "execute"
JOB_SECONDS = 86_400
"""How long a hint lasts; the sweeper renews the hints of what has waited long."""

BELLS_CHANNEL = "souk:bells"
"""Where enqueueing rings: partitions, joined by spaces. Every worker listens."""
OUTCOMES_CHANNEL = "souk:outcomes"
"""Where finishing tells: command ids, joined by spaces. Every API process listens."""
REDIS_SECONDS = 2.0
"""No call to Redis takes longer: it holds hints, and nobody waits long for a hint."""

_ENQUEUE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key, arg = 1, 4
while key <= #KEYS do
    local queue, count = KEYS[key], tonumber(ARGV[arg])
    local top = redis.call('ZREVRANGEBYSCORE', queue, now + 1000, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local score = math.max(now, (tonumber(top[2]) or 0) + 0.0009765625)
    local members = {}
    for i = 1, count do
        redis.call('PSETEX', KEYS[key + i], ARGV[1], ARGV[arg + 2 * i - 1])
        members[2 * i - 1] = string.format('%.10f', score)
        members[2 * i] = ARGV[arg + 2 * i]
        score = score + 0.0009765625
    end
    redis.call('ZADD', queue, unpack(members))
    key = key + count + 1
    arg = arg + 2 * count + 1
end
redis.call('PUBLISH', ARGV[2], ARGV[3])
"""

_FINISH = """
local key, arg = 1, 3
while key <= #KEYS do
    local queue, count = KEYS[key], tonumber(ARGV[arg])
    local jobs, ids = {}, {}
    for i = 1, count do
        jobs[i] = KEYS[key + i]
        ids[i] = ARGV[arg + i]
    end
    redis.call('ZREM', queue, unpack(ids))
    redis.call('DEL', unpack(jobs))
    key = key + count + 1
    arg = arg + count + 1
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
"""

_KEYS_MAX = 1_000
"""Keys in one script call: Lua's unpack and Redis' patience both end somewhere above."""


def serialize(job: dict[str, Any]) -> bytes:
    return json.dumps(job).encode()


def deserialize(job: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(job)
    return decoded


def connect_redis(settings: Settings) -> ArqRedis:
    """A client that connects when first used, repeats nothing by itself, and never speaks pickle."""
    pool = ConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=15,
    )
    redis = ArqRedis(pool, job_serializer=serialize, job_deserializer=deserialize)
    redis.auto_close_connection_pool = True  # it is given its pool, but nobody else has it
    return redis


def tag(partition: int) -> str:
    return f"{{p{partition:03d}}}"


def queue_name(partition: int) -> str:
    return f"arq:queue:{tag(partition)}"


def job_id(partition: int, command_id: UUID) -> str:
    return f"{tag(partition)}:{command_id}"


class Queue:
    """Enqueues and finishes the jobs of commands, many at once. Raises what redis-py raises."""

    def __init__(self, redis: ArqRedis) -> None:
        self.redis = redis
        self._enqueue = redis.register_script(_ENQUEUE)
        self._finish = redis.register_script(_FINISH)

    async def enqueue(self, commands: Iterable[tuple[int, UUID]]) -> None:
        """Enqueue (partition, command id) pairs, and ring for their partitions."""
        enqueued_at_ms = int(time.time() * 1000)
        for group in _groups(commands):
            keys: list[str] = []
            bells = " ".join(str(partition) for partition in group)
            arguments: list[str | int] = [JOB_SECONDS * 1000, BELLS_CHANNEL, bells]
            for partition, ids in group.items():
                keys.append(queue_name(partition))
                arguments.append(len(ids))
                for command_id in ids:
                    job = job_id(partition, command_id)
                    keys.append(job_key_prefix + job)
                    arguments += [_job(command_id, enqueued_at_ms), job]
            await self._enqueue(keys=keys, args=arguments)

    async def finish(self, commands: Iterable[tuple[int, UUID]]) -> None:
        """Remove the jobs of (partition, command id) pairs, and tell who waits for them that the outcome is there."""
        for group in _groups(commands):
            keys: list[str] = []
            notice = " ".join(str(command_id) for ids in group.values() for command_id in ids)
            arguments: list[str | int] = [OUTCOMES_CHANNEL, notice]
            for partition, ids in group.items():
                jobs = [job_id(partition, command_id) for command_id in ids]
                keys += [queue_name(partition), *(job_key_prefix + job for job in jobs)]
                arguments += [len(jobs), *jobs]
            await self._finish(keys=keys, args=arguments)

    async def peek(self, partitions: Iterable[int], count: int) -> dict[int, list[str]]:
        """The first job ids of each partition's queue, in one round trip; empty queues are left out."""
        wanted = list(partitions)
        async with self.redis.pipeline(transaction=False) as pipeline:
            for partition in wanted:
                pipeline.zrange(queue_name(partition), 0, count - 1)
            answers = await pipeline.execute()
        return {
            partition: [job.decode() for job in jobs] for partition, jobs in zip(wanted, answers, strict=True) if jobs
        }

    async def discard(self, partition: int, jobs: list[str]) -> None:
        """Remove jobs that stand for no waiting command."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.zrem(queue_name(partition), *jobs)
            pipeline.delete(*(job_key_prefix + job for job in jobs))
            await pipeline.execute()


def _job(command_id: UUID, enqueued_at_ms: int) -> str:
    """Arq's record of a job, in the form of its `serialize_job`."""
    return f'{{"t":null,"f":"{FUNCTION}","a":["{command_id}"],"k":{{}},"et":{enqueued_at_ms}}}'


def _groups(commands: Iterable[tuple[int, UUID]]) -> Iterable[dict[int, list[UUID]]]:
    group: defaultdict[int, list[UUID]] = defaultdict(list)
    size = 0
    for partition, command_id in commands:
        group[partition].append(command_id)
        size += 1
        if size == _KEYS_MAX:
            yield group
            group, size = defaultdict(list), 0
    if group:
        yield group
