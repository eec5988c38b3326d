"""Locks in Redis: one key or several at once, all or nothing.

    async with locks.hold("account:17", "account:18", wait_seconds=1) as held:
        …                                   # held.fence grows from holder to holder

A lock makes others wait; it does not make a write safe: that is what a fence in PostgreSQL is for. While it is held its
lease is renewed; when its holder dies the lease ends by itself. Who waits is woken by a notice, in the order of arrival
within a process. It is reentrant for its owner, the current task unless named otherwise. It fails closed: when Redis
does not answer, the lock is not held.

Whatever a process wants of its locks in one moment travels in one script call (storage/redis/lock_calls.py), so fifty
tasks cost one round trip; and when one lock is due for renewal, all are renewed with it.

    LockError
    ├── LockTimeout       somebody else held a key all the time
    ├── LockUnavailable   Redis did not answer
    └── LockLost          the lease ended while the lock was thought to be held
"""

import asyncio
import itertools
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from redis.asyncio.client import Redis
from redis.exceptions import RedisError

from storage.postgres.group_commit import Gather
from storage.redis.addresses import REDIS_SECONDS, what_failed
from storage.redis.lock_calls import (
    CHANNEL,
    PREFIX,
    SEPARATOR,
    Answer,
    LockCalls,
    LockError,
    LockUnavailable,
    Operation,
)
from storage.redis.notices import Listener
from storage.tasks import end

__all__ = ["Held", "Lock", "LockError", "LockLost", "LockTimeout", "LockUnavailable", "Locks", "Seen"]

logger = logging.getLogger(__name__)

LEASE_SECONDS = 5.0
WAIT_SECONDS = 10.0

_LEASE_MIN_SECONDS = 0.4
_RENEW_SECONDS = 0.1
_KEYS_MAX = 1_000
"""Keys of one lock."""
_FLUSH_MAX = 50
_WITHOUT_NOTICES_SECONDS = 0.05
_NOTHING = Operation("tell", "", 0, ())


class LockTimeout(LockError):
    """Somebody else held a key all the time that was to be waited."""


class LockLost(LockError):
    """The lease ended while the lock was thought to be held."""


class Held:
    """Keys that are held. `fence` is larger for each later holder of a key; `lost` says that Redis gave one away."""

    def __init__(self, keys: Sequence[str], token: str, lease_seconds: float) -> None:
        self.keys = keys
        self.token = token
        self.lease_seconds = lease_seconds
        self.fence = 0
        self.until = 0.0
        self.lost = False

    def check(self) -> None:
        """Raises LockLost when the lease may have ended."""
        if asyncio.get_running_loop().time() >= self.until:
            raise LockLost(*self.keys)


class Seen(NamedTuple):
    """What a look at keys found: the seconds left of those that somebody holds, and for how many seconds this Redis
    has known the locks without a break: emptied, restarted or failed over a moment ago, it may have forgotten some."""

    left_seconds: dict[str, float]
    known_seconds: float


class Locks:
    """The locks of one process. `answer_seconds` is how long Redis is waited for."""

    def __init__(self, redis: Redis, *, answer_seconds: float = REDIS_SECONDS) -> None:
        self._redis = redis
        self._answer_seconds = answer_seconds
        self._calls = LockCalls(redis, answer_seconds)
        self._watchers: list[Callable[[Sequence[str]], None]] = []
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._operations: Gather[Operation, Answer] = Gather(self._calls, _FLUSH_MAX)
        self._notices = Listener(redis, CHANNEL, self._heard)
        self._held: dict[str, Held] = {}
        self._owned: defaultdict[Hashable, dict[str, Held]] = defaultdict(dict)
        self._waiting: defaultdict[str, list[asyncio.Event]] = defaultdict(list)
        self._services: list[asyncio.Task[None]] = []
        self._complained = False

    async def __aenter__(self) -> Self:
        self._services = [asyncio.create_task(self._notices.run()), asyncio.create_task(self._renew())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._services)
        await self._operations.close()
        await self._calls.close()

    async def ping(self) -> bool:
        """Whether Redis answers. Raises LockUnavailable, naming the server."""
        try:
            async with asyncio.timeout(self._answer_seconds):  # the client may wait twice, to connect and to hear
                return bool(await self._redis.ping())
        except (RedisError, OSError) as error:
            raise LockUnavailable(what_failed(self._redis, error)) from error

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
            self._send("free", [held])  # an answer that was not waited for may be yes
            if isinstance(error, TimeoutError):
                raise LockTimeout(*keys) from None
            raise
        self._held[held.token] = held
        self._owned[owner].update(dict.fromkeys(keys, held))
        return held

    async def take_free(self, keys: Sequence[str], owner: Hashable, lease_seconds: float) -> dict[str, Held]:
        """Takes those of the keys that nobody holds, each by itself, all in one round trip, without waiting for the
        others. Raises LockUnavailable."""
        helds = [Held([key], f"{self._name}:{next(self._numbers)}", lease_seconds) for key in keys]
        asked_at = asyncio.get_running_loop().time()
        lease_ms = int(lease_seconds * 1000)
        try:
            answers = await self._operations.add([Operation("take", held.token, lease_ms, held.keys) for held in helds])
        except BaseException:
            self._send("free", helds)  # an answer that was not waited for may be yes
            raise
        taken = {}
        for key, held, answer in zip(keys, helds, answers, strict=True):
            if not answer.number:
                held.fence, held.until = answer.value, asked_at + lease_seconds
                self._held[held.token] = self._owned[owner][key] = taken[key] = held
        return taken

    async def look(self, keys: Sequence[str]) -> Seen:
        """Looks which of the keys somebody holds. Raises LockUnavailable."""
        answers = await self._operations.add([Operation("look", "", 0, [key]) for key in keys] or [_NOTHING])
        left = {key: max(answer.value, 0) / 1000 for key, answer in zip(keys, answers, strict=False) if answer.number}
        return Seen(left, self._calls.known_seconds)

    def tell(self, *keys: str) -> None:
        """Publishes the keys, as though they had been freed, without waiting."""
        self._send("tell", [Held(keys, "", 0)])

    def watch(self, watcher: Callable[[Sequence[str]], None]) -> None:
        """Tells the watcher of keys that were freed, by whomever, and of those that this process has lost."""
        self._watchers.append(watcher)

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
        self._send("free", [held])

    def _send(self, name: str, helds: Sequence[Held]) -> None:
        """Asks without waiting for the answer."""
        answer = self._operations.add([Operation(name, held.token, 0, held.keys) for held in helds])
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
                answer = await self._ask(Operation("take", held.token, int(held.lease_seconds * 1000), held.keys))
                if not answer.number:
                    held.fence, held.until = answer.value, asked_at + held.lease_seconds
                    return
                if once:
                    raise TimeoutError
                self._pass_on(held.keys, turn, except_for=held.keys[answer.number - 1])
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
        keys = [key.removeprefix(PREFIX) for key in message.split(SEPARATOR)]
        for key in keys:
            queue = self._waiting.get(key)
            if queue:
                queue[0].set()
        for watcher in self._watchers:
            watcher(keys)

    async def _ask(self, operation: Operation) -> Answer:
        return (await self._operations.add([operation]))[0]

    async def _renew(self) -> None:
        """Renews all that is held as soon as a third of one lease has passed."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            now = loop.time()
            helds = [held for held in self._held.values() if not held.lost]
            if not any(held.until - now < held.lease_seconds * 2 / 3 for held in helds):
                continue
            operations = [Operation("renew", held.token, int(held.lease_seconds * 1000), held.keys) for held in helds]
            try:
                answers = await self._operations.add(operations)
            except LockUnavailable as error:
                self._complain(error)
                continue
            self._complain(None)
            for held, answer in zip(helds, answers, strict=True):
                held.lost = bool(answer.number)
                held.until = now if held.lost else now + held.lease_seconds
            lost = [key for held in helds if held.lost and held.token in self._held for key in held.keys]
            for watcher in self._watchers if lost else ():
                watcher(lost)

    def _complain(self, error: LockUnavailable | None) -> None:
        """Logs when locks begin and cease to go without renewal."""
        if (error is not None) != self._complained:
            self._complained = error is not None
            logger.warning("locks are not renewed: %s", error) if error else logger.warning("locks are renewed again")


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
