"""What the locks of a process ask of Redis: any number of operations in one script call, on a connection of their own.

| operation | does | answer |
|---|---|---|
| take | sets all its keys to the token, or none | (0, fence), or (the number of a key that is taken, ms left of it) |
| renew | lets its keys live for the lease again | (0, 0), or (the number of a key that is not the token's, 0) |
| free | deletes its keys, and tells who waits | likewise |
| look | nothing, at one key | (1 when somebody holds it, ms left) |
| tell | publishes its keys, as though they were freed | (0, 0) |
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import NamedTuple, cast

from redis.asyncio.client import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, RedisError

from storage.redis.addresses import REDIS_SECONDS, connections, what_failed

CHANNEL = "souk:unlocked"
"""Where freed keys are published."""
SEPARATOR = "\x1f"
"""Between the keys of one notice."""

# All keys share a slot of a Redis Cluster, so that several can be taken at once.
PREFIX = "souk:{lock}:"
FENCE_KEY = PREFIX + "fence"
SINCE_KEY = PREFIX + "since"
"""When this Redis first heard of locks: it goes with everything else when Redis is emptied."""

# The arguments of an operation are its name, token, lease in ms and number of keys. The fence follows the clock, so
# that it grows even when Redis has lost everything. A Redis that is full still renews and frees. A replica shows keys
# to a script for ever, with 0 ms left once they have expired.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local since = tonumber(redis.call('GET', KEYS[2]))
if not since then
    since = now
    redis.call('SET', KEYS[2], string.format('%.0f', now))
end
local fence, told, answers = nil, {}, {}
local key = 3
for arg = 2, #ARGV, 4 do
    local op, token, lease, last = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], key + ARGV[arg + 3] - 1
    local answer = {0, 0}
    if op == 'take' then
        for i = key, last do
            local left = redis.call('PTTL', KEYS[i])
            if left ~= -2 and left ~= 0 then
                answer = {i - key + 1, left}
                break
            end
        end
        if answer[1] == 0 then
            fence = math.max(now, (fence or tonumber(redis.call('GET', KEYS[1]) or 0)) + 1)
            for i = key, last do redis.call('SET', KEYS[i], token, 'PX', lease) end
            answer = {0, fence}
        end
    elseif op == 'look' then
        local left = redis.call('PTTL', KEYS[key])
        answer = {(left ~= -2 and left ~= 0) and 1 or 0, left}
    elseif op == 'tell' then
        for i = key, last do told[#told + 1] = KEYS[i] end
    else
        for i = key, last do
            if redis.call('GET', KEYS[i]) ~= token then
                answer = {i - key + 1, 0}
            elseif op == 'renew' then
                redis.call('PEXPIRE', KEYS[i], lease)
            else
                redis.call('DEL', KEYS[i])
                told[#told + 1] = KEYS[i]
            end
        end
    end
    answers[#answers + 1] = answer
    key = last + 1
end
if fence then redis.call('SET', KEYS[1], string.format('%.0f', fence)) end
if #told > 0 then redis.call('PUBLISH', ARGV[1], table.concat(told, '\\31')) end
return {math.max(0, now - since), answers}
"""
_SCRIPT_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class LockError(Exception):
    """The lock is not held."""


class LockUnavailable(LockError):
    """Redis did not answer."""


class Operation(NamedTuple):
    """One of the table above. `lease_ms` matters to take and renew."""

    name: str
    token: str
    lease_ms: int
    keys: Sequence[str]


class Answer(NamedTuple):
    """`number` and `value` as the table above says."""

    number: int
    value: int


class LockCalls:
    """Calls the script. `known_seconds` is for how long this Redis has known the locks without a break: since it was
    last empty, and since it has answered here on one connection, whichever is less."""

    def __init__(self, redis: Redis, answer_seconds: float = REDIS_SECONDS) -> None:
        self._redis = redis
        self._pool = connections(redis, FENCE_KEY)
        self._connection: Connection | None = None
        self._answer_seconds = answer_seconds
        self._connected_at = 0.0
        self.known_seconds = 0.0

    async def __call__(self, operations: Sequence[Operation]) -> list[Answer]:
        """Runs the operations one after another. Raises LockUnavailable."""
        keys, arguments = [FENCE_KEY, SINCE_KEY], [CHANNEL]
        for operation in operations:
            keys += [PREFIX + key for key in operation.keys]
            arguments += [operation.name, operation.token, str(operation.lease_ms), str(len(operation.keys))]
        try:
            async with asyncio.timeout(self._answer_seconds):
                age, answers = await self._call([str(len(keys)), *keys, *arguments])
        except (RedisError, OSError, TimeoutError) as error:
            await self.close()
            raise LockUnavailable(what_failed(self._redis, error)) from error
        connected_seconds = asyncio.get_running_loop().time() - self._connected_at
        self.known_seconds = min(age / 1_000_000, connected_seconds)
        return [Answer(*answer) for answer in answers]

    async def close(self) -> None:
        """Forgets a connection whose answers may be somebody else's by now."""
        self.known_seconds = 0.0
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            connection.socket_timeout = REDIS_SECONDS
            await self._pool.release(connection)

    async def _call(self, arguments: list[str]) -> tuple[int, list[list[int]]]:
        """Calls on a connection of our own: the client's way through its pool costs as much as the round trip."""
        if self._connection is None:
            self._connection = await self._pool.get_connection()
            self._connection.socket_timeout = None  # a second time-out, and a task for each word sent
            self._connected_at = asyncio.get_running_loop().time()
        connection = self._connection
        try:
            await connection.send_packed_command(_packed("EVALSHA", _SCRIPT_SHA, *arguments), check_health=False)
            return cast("tuple[int, list[list[int]]]", await connection.read_response())
        except NoScriptError:
            await connection.send_packed_command(_packed("EVAL", _SCRIPT, *arguments), check_health=False)
            return cast("tuple[int, list[list[int]]]", await connection.read_response())


def _packed(*words: str) -> bytes:
    """A command in Redis' protocol."""
    parts = [f"*{len(words)}"]
    for word in words:
        parts += (f"${len(word) if word.isascii() else len(word.encode())}", word)
    return ("\r\n".join(parts) + "\r\n").encode()
