"""What arq's tools are told of a worker: its health, and which jobs are in progress.

The line of health is arq's, with counters of commands, and ends in the worker's id. It stands under two keys: the
worker's own, and that of its host, which `arq --check` asks for, since a container knows its own name and no more. With
several workers on a host the one that wrote last has the host's line, so it is there for as long as any of them lives.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from datetime import datetime

from storage.redis.addresses import together
from storage.redis.hints import Hint, Hints
from storage.redis.queue import WORKERS_KEY, Queue

HEALTH_SECONDS = 5.0
HEALTH_LASTS_SECONDS = 8.0
"""A beat may come a second late, and Redis take two."""
PROGRESS_SECONDS = 0.5

_KEY = f"souk:worker:{{{WORKERS_KEY}}}:"

# The host's line goes with the worker that wrote it last.
_FORGET = """
local line = redis.call('GET', KEYS[2])
if line and string.sub(line, -#ARGV[1]) == ARGV[1] then
    redis.call('DEL', KEYS[2])
end
redis.call('DEL', KEYS[1])
"""


def health_key(name: str) -> str:
    """Of a host, or of one worker by its id."""
    return _KEY + name


class Health:
    """The lines of one worker, whose id begins with its host's name and a colon."""

    def __init__(self, queue: Queue, worker_id: str) -> None:
        self._queue = queue
        self._signature = f" worker={worker_id}"
        self._keys = health_key(worker_id), health_key(worker_id.partition(":")[0])
        self._recorded_at = float("-inf")

    async def record(self, counters: Callable[[], str], partitions: Collection[int]) -> str | None:
        """Write the line unless that was done a moment ago; `queued` counts the jobs of these partitions. Returns what
        it says from the counters on. Raises what redis-py raises."""
        if time.monotonic() - self._recorded_at < HEALTH_SECONDS:
            return None
        queued = await self._queue.count(partitions)
        said = f"{counters()} queued={queued}"
        line = f"{datetime.now():%b-%d %H:%M:%S} {said}{self._signature}"  # noqa: DTZ005 - as arq writes it
        milliseconds = int(HEALTH_LASTS_SECONDS * 1000)
        await together(self._queue.redis, [(key, ("PSETEX", key, milliseconds, line)) for key in self._keys])
        self._recorded_at = time.monotonic()
        return said

    async def forget(self) -> None:
        """The worker ends. Raises what redis-py raises."""
        command = ("EVAL", _FORGET, len(self._keys), *self._keys, self._signature)
        await together(self._queue.redis, [(self._keys[0], command)])


class Progress:
    """Says of the jobs whose batch takes long that they are in progress; those of others are done before anybody asks,
    and cost nothing."""

    def __init__(self, in_hand: Callable[[], Collection[Hint]], hints: Hints) -> None:
        self._in_hand = in_hand
        self._hints = hints

    async def run(self) -> None:
        """Say it until cancelled."""
        before: set[Hint] = set()
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            now = set(self._in_hand())
            self._hints.begin(now & before)
            before = now
