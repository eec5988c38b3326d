"""The queue: a hint in Redis for every accepted command, as a real arq job in the queue of its partition.

It tells which partitions have work; what the work is, the journal tells. This is the half of arq that enqueues.

While a batch takes long, its jobs are in progress; where results are kept, a finished job leaves arq's record of its
result. Of both, as of the jobs, arq's own client tells (docs/arq.md).

A job's key carries its partition as a hash tag, `arq:job:{p007}:<command id>`, so a partition's keys share one slot of
a Redis Cluster. Both scripts take any number of partitions, so a flush or a batch is one round trip; a Cluster gets a
script for each partition. Enqueueing costs a command one PSETEX, finishing none; a partition costs two commands to
enqueue to and two to finish; a call one notice. A result that is kept costs one PSETEX more. The notice goes first, so
that a Redis which takes no writes (full, a replica) still wakes who waits: what there is to do, or to see, is in the
journal anyway.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from arq.connections import ArqRedis, RedisSettings
from arq.constants import in_progress_key_prefix, job_key_prefix, result_key_prefix
from pydantic_core import to_json
from redis.asyncio import ConnectionPool
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as TooSlow

from commands.outcome import Outcome, Status
from storage.redis.addresses import REDIS_SECONDS, Words, connect, connections, in_slots, server_of, together
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

# Results go first: a Redis that is full takes no new keys from a script unless it has deleted some already.
_FINISH = """
if ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
local full = false
local key, arg = 1, 4
while key <= #KEYS do
    local count, gone, kept = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
    local ids, keys = {}, {}
    for i = 1, count do
        ids[i] = ARGV[arg + 2 + i]
    end
    for i = 1, gone do
        keys[i] = KEYS[key + i]
    end
    for i = 1, kept do
        if not full then
            full = redis.pcall('PSETEX', KEYS[key + gone + i], ARGV[3], ARGV[arg + 2 + count + i]).err ~= nil
        end
    end
    redis.call('ZREM', KEYS[key], unpack(ids))
    redis.call('DEL', unpack(keys))
    key = key + gone + kept + 1
    arg = arg + count + kept + 3
end
"""

# What has left its queue meanwhile is in progress no more.
_BEGIN = """
local key, arg = 1, 4
while key <= #KEYS do
    local count = tonumber(ARGV[arg])
    for i = 1, count do
        if redis.call('ZSCORE', KEYS[key], ARGV[arg + i]) then
            redis.pcall('PSETEX', KEYS[key + i], ARGV[3], '1')
        end
    end
    key = key + count + 1
    arg = arg + count + 1
end
"""

_COMMANDS_MAX = 1_000
"""Commands in one script call, each with three keys at most: Lua's unpack and Redis' patience end somewhere above."""

IN_PROGRESS_SECONDS = 2.0
"""How long a job stays in progress unless it is said again."""


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


async def arq_redis(settings: Settings) -> RedisSettings:
    """What arq's own command line needs to connect to the server with the workers' health. Of several servers this is
    the one that has it now, for arq cannot ask a Cluster, nor sentinels with a password."""
    url = settings.redis_url.get_secret_value()
    options, tls = await server_of(url, WORKERS_KEY)
    renamed = {"path": "unix_socket_path", "db": "database"}
    known = RedisSettings.__dataclass_fields__
    found = {renamed.get(name, name): value for name, value in options.items()}
    chosen = {name: value for name, value in found.items() if name in known and not name.startswith("retry")}
    return RedisSettings(**chosen, ssl=tls, conn_timeout=1, conn_retries=1)


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

    def __init__(self, redis: ArqRedis, results_seconds: float = 0) -> None:
        self.redis = redis
        self._results_ms = int(results_seconds * 1000)
        self._enqueue = redis.register_script(_ENQUEUE)
        self._finish = redis.register_script(_FINISH)
        self._begin = redis.register_script(_BEGIN)
        self._begun: dict[UUID, float] = {}

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

    async def begin(self, commands: Iterable[tuple[int, UUID]]) -> None:
        """Say that the jobs of (partition, command id) pairs are in progress, for IN_PROGRESS_SECONDS."""
        now = time.monotonic()
        self._begun = {command_id: until for command_id, until in self._begun.items() if until > now}
        for group in _groups(commands):
            calls: list[_Call] = []
            for partition, ids in group.items():
                self._begun |= dict.fromkeys(ids, now + IN_PROGRESS_SECONDS + REDIS_SECONDS)
                jobs = [job_id(partition, command_id) for command_id in ids]
                keys = [queue_name(partition), *(in_progress_key_prefix + job for job in jobs)]
                calls.append((keys, [len(jobs), *jobs]))
            await self._run(self._begin, "", "", (int(IN_PROGRESS_SECONDS * 1000),), calls)

    async def finish(self, commands: Iterable[tuple[int, UUID]], records: Mapping[UUID, str] | None = None) -> None:
        """Remove the jobs of (partition, command id) pairs, and tell who waits for them that the outcome is there.
        `records`, made by `result_record`, are kept for as long as results are."""
        for group in _groups(commands):
            calls: list[_Call] = []
            for partition, ids in group.items():
                jobs = [job_id(partition, command_id) for command_id in ids]
                gone = [job_key_prefix + job for job in jobs]
                if self._begun:
                    begun = (id_ for id_ in ids if self._begun.pop(id_, None) is not None)
                    gone += [in_progress_key_prefix + job_id(partition, command_id) for command_id in begun]
                results: dict[str, str] = {}
                if records and self._results_ms:
                    kept = (command_id for command_id in ids if command_id in records)
                    results = {result_key_prefix + job_id(partition, id_): records[id_] for id_ in kept}
                keys = [queue_name(partition), *gone, *results]
                calls.append((keys, [len(jobs), len(gone), len(results), *jobs, *results.values()]))
            notice = " ".join(str(command_id) for ids in group.values() for command_id in ids)
            await self._run(self._finish, OUTCOMES_CHANNEL, notice, (self._results_ms,), calls)

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
        told = [self.redis.publish(channel, notice)] if channel else []
        done = await asyncio.gather(*told, together(self.redis, evals), return_exceptions=True)
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

    async def count(self, partitions: Iterable[int]) -> int:
        """How many jobs the queues of these partitions hold."""
        names = [queue_name(partition) for partition in partitions]
        return sum(await together(self.redis, [(name, ("ZCARD", name)) for name in names]))

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


def result_record(
    partition: int,
    command_id: UUID,
    outcome: Outcome,
    *,
    accepted_at: datetime,
    started_at: datetime,
    finished_at: datetime,
    tries: int = 1,
) -> str:
    """Arq's record of a job's result, in the form of its `serialize_result`. The result is the outcome, an object with
    `status`, `result` and `rejection`. A command that a bug set aside is a job that failed, its result a sentence."""
    if outcome.status is Status.FAILED:
        result: object = f"the command {command_id} is set aside as failed: a bug stopped it, `souk failed` tells which"
    else:
        result = {"status": outcome.status, "result": outcome.result, "rejection": outcome.rejection}
    record = {
        "t": tries,
        "f": FUNCTION,
        "a": [str(command_id)],
        "k": {},
        "et": _milliseconds(accepted_at),
        "s": outcome.status is not Status.FAILED,
        "r": result,
        "st": _milliseconds(started_at),
        "ft": _milliseconds(finished_at),
        "q": queue_name(partition),
        "id": job_id(partition, command_id),
    }
    return to_json(record).decode()


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _groups(commands: Iterable[tuple[int, UUID]]) -> Iterable[dict[int, list[UUID]]]:
    group: defaultdict[int, list[UUID]] = defaultdict(list)
    size = 0
    for partition, command_id in commands:
        group[partition].append(command_id)
        size += 1
        if size == _COMMANDS_MAX:
            yield group
            group, size = defaultdict(list), 0
    if group:
        yield group
