"""Locks in Redis: one key or several at once, all or nothing.

    async with locks.hold("account:17", "account:18", wait_seconds=1) as held:
        …                                   # held.fence grows from holder to holder

A lock makes others wait; it does not make a write safe: that is what a fence in PostgreSQL is for. While it is held its
lease is renewed; when its holder dies the lease ends by itself. Who waits is woken by a notice, in the order of arrival
within a process. It is reentrant for its owner, the current task unless named otherwise. It fails closed: when Redis
does not answer, the lock is not held.

Whatever a process wants of its locks in one moment travels in one script call, so fifty tasks cost one round trip.

    LockError
    ├── LockTimeout       somebody else held a key all the time
    ├── LockUnavailable   Redis did not answer
    └── LockLost          the lease ended while the lock was thought to be held
"""

import asyncio
import hashlib
import itertools
import logging
import secrets
from collections import defaultdict
from collections.abc import Hashable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self, cast

from redis.asyncio.client import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, RedisError

from storage.gather import Gather
from storage.notices import Listener
from storage.redis import REDIS_SECONDS, connections
from storage.tasks import end

logger = logging.getLogger(__name__)

LEASE_SECONDS = 5.0
WAIT_SECONDS = 10.0

_CHANNEL = "souk:unlocked"
_LEASE_MIN_SECONDS = 0.5
_RENEW_SECONDS = 0.1
_KEYS_MAX = 1_000
"""Keys of one lock."""
_FLUSH_MAX = 50
_WITHOUT_NOTICES_SECONDS = 0.05
_SEPARATOR = "\x1f"

# All keys share a slot of a Redis Cluster, so that several can be taken at once.
_PREFIX = "souk:{lock}:"
_FENCE = _PREFIX + "fence"

# Operations one after another: name, token, lease in ms, number of keys. The fence follows the clock, so that it grows
# even when Redis has lost everything.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local fence, freed, answers = nil, {}, {}
local key = 2
for arg = 2, #ARGV, 4 do
    local op, token, lease, last = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], key + ARGV[arg + 3] - 1
    local answer = {0, 0}
    if op == 'take' then
        for i = key, last do
            if redis.call('EXISTS', KEYS[i]) == 1 then
                answer = {i - key + 1, redis.call('PTTL', KEYS[i])}
                break
            end
        end
        if answer[1] == 0 then
            fence = math.max(now, (fence or tonumber(redis.call('GET', KEYS[1]) or 0)) + 1)
            for i = key, last do redis.call('SET', KEYS[i], token, 'PX', lease) end
            answer = {0, fence}
        end
    else
        for i = key, last do
            if redis.call('GET', KEYS[i]) ~= token then
                answer = {i - key + 1, 0}
            elseif op == 'renew' then
                redis.call('PEXPIRE', KEYS[i], lease)
            else
                redis.call('DEL', KEYS[i])
                freed[#freed + 1] = KEYS[i]
            end
        end
    end
    answers[#answers + 1] = answer
    key = last + 1
end
if fence then redis.call('SET', KEYS[1], string.format('%.0f', fence)) end
if #freed > 0 then redis.call('PUBLISH', ARGV[1], table.concat(freed, '\\31')) end
return answers
"""


_SCRIPT_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class LockError(Exception):
    """The lock is not held."""


class LockTimeout(LockError):
    """Somebody else held a key all the time that was to be waited."""


class LockUnavailable(LockError):
    """Redis did not answer."""


class LockLost(LockError):
    """The lease ended while the lock was thought to be held."""


class _Operation(NamedTuple):
    name: str
    token: str
    lease_ms: int
    keys: Sequence[str]


class _Answer(NamedTuple):
    """`blocked_by` is 0, or the number (from 1) of the key that somebody else has; `value` then is what is left of that
    lease in ms, otherwise the fence."""

    blocked_by: int
    value: int


class Held:
    """Keys that are held. `fence` is larger for each later holder of a key."""

    def __init__(self, keys: Sequence[str], token: str, lease_seconds: float) -> None:
        self.keys = keys
        self.token = token
        self.lease_seconds = lease_seconds
        self.fence = 0
        self.until = 0.0

    def check(self) -> None:
        """Raises LockLost when the lease may have ended."""
        if asyncio.get_running_loop().time() >= self.until:
            raise LockLost(*self.keys)


class Locks:
    """The locks of one process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pool = connections(redis, _FENCE)
        self._connection: Connection | None = None
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._operations: Gather[_Operation, _Answer] = Gather(self._flush, _FLUSH_MAX)
        self._notices = Listener(redis, _CHANNEL, self._heard)
        self._held: dict[str, Held] = {}
        self._owned: defaultdict[Hashable, dict[str, Held]] = defaultdict(dict)
        self._waiting: defaultdict[str, list[asyncio.Event]] = defaultdict(list)
        self._services: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._services = [asyncio.create_task(self._notices.run()), asyncio.create_task(self._renew())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._services)
        await self._operations.close()
        await self._drop()

    async def ping(self) -> bool:
        """Whether Redis answers. Raises LockUnavailable, naming the server."""
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError) as error:
            raise LockUnavailable(str(error)) from error

    def hold(
        self,
        *keys: str,
        owner: Hashable = None,
        lease_seconds: float = LEASE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> "Lock":
        """The keys together, for `async with`, which gives a Held. Entering raises LockTimeout or LockUnavailable after
        `wait_seconds` at most; with 0 nobody is waited for."""
        if not 0 < len(keys) <= _KEYS_MAX:
            message = f"a lock has 1 to {_KEYS_MAX} keys"
            raise ValueError(message)
        if lease_seconds < _LEASE_MIN_SECONDS:
            message = f"a lease lasts {_LEASE_MIN_SECONDS} s at least: shorter ones would end before they are renewed"
            raise ValueError(message)
        return Lock(self, sorted(set(keys)), owner, lease_seconds, wait_seconds)

    async def take(self, owner: Hashable, keys: Sequence[str], lease_seconds: float, wait_seconds: float) -> Held:
        """Keys that the owner does not hold yet."""
        held = Held(keys, f"{self._name}:{next(self._numbers)}", lease_seconds)
        try:
            async with asyncio.timeout(wait_seconds or None):
                await self._wait_for(held, once=not wait_seconds)
        except BaseException as error:
            self._free(held)  # an answer that was not waited for may be yes
            if isinstance(error, TimeoutError):
                raise LockTimeout(*keys) from None
            raise
        self._held[held.token] = held
        self._owned[owner].update(dict.fromkeys(keys, held))
        return held

    def owned(self, owner: Hashable) -> dict[str, Held]:
        """What the owner holds, by key."""
        return self._owned.get(owner, {})

    def free(self, owner: Hashable, held: Held) -> None:
        """Give the keys back, without waiting: whatever this process asks next comes after it. A lease that has ended,
        or a Redis that is away, frees them as well."""
        self._held.pop(held.token, None)
        owned = self._owned[owner]
        for key in held.keys:
            owned.pop(key, None)
        if not owned:
            del self._owned[owner]
        self._free(held)

    def _free(self, held: Held) -> None:
        answer = self._operations.add([_Operation("free", held.token, 0, held.keys)])
        answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    async def _wait_for(self, held: Held, *, once: bool) -> None:
        """Take the keys as soon as they are free: in line before asking, it misses no notice between ask and wait."""
        turn = asyncio.Event()
        behind = not once and any(self._waiting.get(key) for key in held.keys)
        for key in held.keys:
            self._waiting[key].append(turn)
        try:
            pause = held.lease_seconds if self._notices.connected else _WITHOUT_NOTICES_SECONDS
            while True:
                if behind:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(turn.wait(), pause)
                turn.clear()
                asked_at = asyncio.get_running_loop().time()
                answer = await self._ask(_Operation("take", held.token, int(held.lease_seconds * 1000), held.keys))
                if not answer.blocked_by:
                    held.fence, held.until = answer.value, asked_at + held.lease_seconds
                    return
                if once:
                    raise TimeoutError
                self._pass_on(held.keys, turn, except_for=held.keys[answer.blocked_by - 1])
                behind = True
                left = answer.value / 1000 + 0.001
                pause = left if self._notices.connected else min(left, _WITHOUT_NOTICES_SECONDS)
        finally:
            for key in held.keys:
                queue = self._waiting[key]
                queue.remove(turn)
                if queue and not held.fence:
                    queue[0].set()  # who gives up passes the turn on
                if not queue:
                    del self._waiting[key]

    def _pass_on(self, keys: Sequence[str], turn: asyncio.Event, except_for: str) -> None:
        """Who was woken for nothing lets those behind try the keys that are free."""
        for key in keys:
            queue = self._waiting[key]
            behind = queue.index(turn) + 1
            if key != except_for and behind < len(queue):
                queue[behind].set()

    def _heard(self, message: str) -> None:
        for key in message.split(_SEPARATOR):
            queue = self._waiting.get(key.removeprefix(_PREFIX))
            if queue:
                queue[0].set()

    async def _ask(self, operation: _Operation) -> _Answer:
        return (await self._operations.add([operation]))[0]

    async def _flush(self, operations: list[_Operation]) -> list[_Answer]:
        keys, arguments = [_FENCE], [_CHANNEL]
        for operation in operations:
            keys += [_PREFIX + key for key in operation.keys]
            arguments += [operation.name, operation.token, str(operation.lease_ms), str(len(operation.keys))]
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                answers = await self._call([str(len(keys)), *keys, *arguments])
        except (RedisError, OSError, TimeoutError) as error:
            await self._drop()
            raise LockUnavailable(str(error)) from error
        return [_Answer(*answer) for answer in answers]

    async def _call(self, arguments: list[str]) -> list[list[int]]:
        """The script on a connection of our own: the client's way through its pool costs as much as the round trip."""
        if self._connection is None:
            self._connection = await self._pool.get_connection()
            self._connection.socket_timeout = None  # a second time-out, and a task for each word sent
        connection = self._connection
        try:
            await connection.send_packed_command(_packed("EVALSHA", _SCRIPT_SHA, *arguments), check_health=False)
            return cast("list[list[int]]", await connection.read_response())
        except NoScriptError:
            await connection.send_packed_command(_packed("EVAL", _SCRIPT, *arguments), check_health=False)
            return cast("list[list[int]]", await connection.read_response())

    async def _drop(self) -> None:
        """Forget a connection whose answers may be somebody else's by now."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            connection.socket_timeout = REDIS_SECONDS
            await self._pool.release(connection)

    async def _renew(self) -> None:
        """Renew what is held, at a third of its lease."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            now = loop.time()
            due = [held for held in self._held.values() if held.until - now < held.lease_seconds * 2 / 3]
            operations = [_Operation("renew", held.token, int(held.lease_seconds * 1000), held.keys) for held in due]
            try:
                answers = await self._operations.add(operations) if operations else []
            except LockUnavailable as error:
                logger.warning("leases are not renewed: %s", error)
                continue
            for held, answer in zip(due, answers, strict=True):
                held.until = now if answer.blocked_by else now + held.lease_seconds


class Lock:
    """One section under a lock: `async with`. An exception inside passes through unchanged."""

    def __init__(
        self, locks: Locks, keys: Sequence[str], owner: Hashable, lease_seconds: float, wait_seconds: float
    ) -> None:
        self._locks = locks
        self._keys = keys
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._wait_seconds = wait_seconds
        self._taken: Held | None = None

    async def __aenter__(self) -> Held:
        self._owner = asyncio.current_task() if self._owner is None else self._owner
        owned = self._locks.owned(self._owner)
        missing = [key for key in self._keys if key not in owned]
        if not missing:
            return owned[self._keys[0]]
        self._taken = await self._locks.take(self._owner, missing, self._lease_seconds, self._wait_seconds)
        return self._taken

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._taken is not None:
            taken, self._taken = self._taken, None
            self._locks.free(self._owner, taken)


def _packed(*words: str) -> bytes:
    """A command in Redis' protocol."""
    parts = [f"*{len(words)}"]
    for word in words:
        parts += (f"${len(word) if word.isascii() else len(word.encode())}", word)
    return ("\r\n".join(parts) + "\r\n").encode()
