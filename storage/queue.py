"""The queue: a hint in Redis for every accepted command, as a real arq job in the queue of its partition.

It tells which partitions have work; what the work is, the journal tells. This is the half of arq that enqueues.

A job's key carries its partition as a hash tag, `arq:job:{p007}:<command id>`, so a partition's keys share one slot of
a Redis Cluster. Both scripts take any number of partitions, so a flush or a batch is one round trip; a Cluster gets a
script for each partition. Enqueueing costs a command one PSETEX, finishing none; a partition costs two commands to
enqueue to and two to finish; a call one notice. The notice goes first, so that a Redis which takes no writes (full, a
replica) still wakes who waits: what there is to do, or to see, is in the journal anyway.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from redis.asyncio import ConnectionPool
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as TooSlow

from storage.redis import REDIS_SECONDS, Words, connect, connections, in_slots, together
from storage.settings import Settings

FUNCTION = "execute"
JOB_SECONDS = 86_400
"""How long a hint lasts; the sweeper renews the hints of what has waited long."""

BELLS_CHANNEL = "souk:bells"
"""Where enqueueing rings: partitions, joined by spaces. Every worker listens."""
OUTCOMES_CHANNEL = "souk:outcomes"
"""Where finishing tells: command ids, joined by spaces. Every API process listens."""
WORKERS_KEY = "arq:queue"
"""The queue that arq thinks its workers have; their health keys bear its name, so as to lie beside it."""

_ENQUEUE = """
if ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key, arg = 1, 4
while key <= #KEYS do
    local queue, count = KEYS[key], tonumber(ARGV[arg])
    local top = redis.call('ZREVRANGEBYSCORE', queue, now + 1000, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local score = math.max(now, (tonumber(top[2]) or 0) + 0.0009765625)
    local members = {}
    for i = 1, count do
        redis.call('PSETEX', KEYS[key + i], ARGV[3], ARGV[arg + 2 * i - 1])
        members[2 * i - 1] = string.format('%.10f', score)
        members[2 * i] = ARGV[arg + 2 * i]
        score = score + 0.0009765625
    end
    redis.call('ZADD', queue, unpack(members))
    key = key + count + 1
    arg = arg + 2 * count + 1
end
"""

_FINISH = """
if ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
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
    return _client(connect(settings.redis_url.get_secret_value()), owned=True)


def workers_redis(redis: ArqRedis) -> ArqRedis:
    """What arq's worker needs for its health: a client for the node with WORKERS_KEY, on the connections of another."""
    return _client(connections(redis, WORKERS_KEY), owned=False)


def _client(pool: ConnectionPool, *, owned: bool) -> ArqRedis:
    redis = ArqRedis(pool, job_serializer=serialize, job_deserializer=deserialize)
    redis.auto_close_connection_pool = owned  # else closing it would leave the connections open
    return redis


def tag(partition: int) -> str:
    return f"{{p{partition:03d}}}"


def queue_name(partition: int) -> str:
    return f"arq:queue:{tag(partition)}"


def job_id(partition: int, command_id: UUID) -> str:
    return f"{tag(partition)}:{command_id}"


_Call = tuple[list[str], list[str | int]]
"""Keys and arguments that the scripts want for one partition."""


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
            calls: list[_Call] = []
            for partition, ids in group.items():
                jobs = [job_id(partition, command_id) for command_id in ids]
                keys = [queue_name(partition), *(job_key_prefix + job for job in jobs)]
                bodies = [_job(command_id, enqueued_at_ms) for command_id in ids]
                calls.append((keys, [len(ids), *(word for pair in zip(bodies, jobs, strict=True) for word in pair)]))
            bells = " ".join(str(partition) for partition in group)
            await self._run(self._enqueue, BELLS_CHANNEL, bells, (JOB_SECONDS * 1000,), calls)

    async def finish(self, commands: Iterable[tuple[int, UUID]]) -> None:
        """Remove the jobs of (partition, command id) pairs, and tell who waits for them that the outcome is there."""
        for group in _groups(commands):
            calls: list[_Call] = []
            for partition, ids in group.items():
                jobs = [job_id(partition, command_id) for command_id in ids]
                calls.append(([queue_name(partition), *(job_key_prefix + job for job in jobs)], [len(jobs), *jobs]))
            notice = " ".join(str(command_id) for ids in group.values() for command_id in ids)
            await self._run(self._finish, OUTCOMES_CHANNEL, notice, (), calls)

    async def _run(
        self, script: AsyncScript, channel: str, notice: str, head: tuple[int, ...], calls: list[_Call]
    ) -> None:
        """One call for all partitions; in a Cluster one for each, and the notice by whichever node answers."""
        if not in_slots(self.redis):
            keys = [key for keys, _ in calls for key in keys]
            words = [word for _, words in calls for word in words]
            await script(keys=keys, args=[channel, notice, *head, *words])
            return
        body = str(script.script)
        evals: list[tuple[str, Words]] = [
            (keys[0], ("EVAL", body, len(keys), *keys, "", "", *head, *words)) for keys, words in calls
        ]
        done = await asyncio.gather(
            self.redis.publish(channel, notice), together(self.redis, evals), return_exceptions=True
        )
        for answer in done:
            if isinstance(answer, BaseException):
                raise answer

    async def peek(self, partitions: Iterable[int], count: int) -> dict[int, list[str]]:
        """The first job ids of each partition's queue, in one round trip; empty queues are left out. Whoever
        writes into Redis may have written anything."""
        wanted = list(partitions)
        names = [queue_name(partition) for partition in wanted]
        answers = await together(self.redis, [(name, ("ZRANGE", name, 0, count - 1)) for name in names])
        return {
            partition: [job.decode(errors="surrogateescape") for job in jobs]
            for partition, jobs in zip(wanted, answers, strict=True)
            if jobs
        }

    async def discard(self, partition: int, jobs: list[str]) -> None:
        """Remove jobs that stand for no waiting command."""
        name = queue_name(partition)
        members = [job.encode(errors="surrogateescape") for job in jobs]
        keys = [job_key_prefix.encode() + member for member in members]
        await together(self.redis, [(name, ("ZREM", name, *members)), (name, ("DEL", *keys))])

    async def empty(self, partitions: Iterable[int]) -> None:
        """Forget the queues; what still waits is enqueued anew by the sweeper."""
        await together(self.redis, [(name, ("DEL", name)) for name in map(queue_name, partitions)])

    async def state(self, partitions: int) -> str:
        """`ok`, `refusing` where a write was refused (a replica, full, failing over), or `unavailable`."""
        keys = [f"souk:ready:{tag(number)}" for number in range(partitions if in_slots(self.redis) else 1)]
        try:
            async with asyncio.timeout(REDIS_SECONDS / 2):
                await together(self.redis, [(key, ("PSETEX", key, 1_000, "")) for key in keys])
        except (Unreachable, TooSlow, OSError):
            return "unavailable"
        except RedisError:
            return "refusing"
        return "ok"


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
