"""The worker process: arq's worker with its life cycle (signals, hooks, health key, burst).

Its claim of one job at a time is replaced by lanes that run whole batches, and it outlives any trouble with Redis.

`execute` is the job function of stock arq: a stock `arq.Worker` with it runs the same jobs, one at a time.
"""

import asyncio
import inspect
import logging
import os
import secrets
import signal
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

from arq.typing import StartupShutdown
from arq.worker import Worker, func
from redis.exceptions import RedisError

from commands.outcome import Status
from storage.journal.unit_of_work import Fenced
from storage.postgres.connection import connect
from storage.redis.hints import Hints
from storage.redis.locks import Locks, LockTimeout
from storage.redis.notices import Listener
from storage.redis.queue import (
    BELLS_CHANNEL,
    FUNCTION,
    WORKERS_KEY,
    Queue,
    connect_redis,
    deserialize,
    serialize,
    workers_redis,
)
from storage.settings import Settings
from storage.tasks import end
from workers.batch import Batch, run_batch
from workers.health import HEALTH_SECONDS, Health, Progress, health_key
from workers.lanes import STATEMENT_SECONDS, Lanes
from workers.leases import Leases, borrowed
from workers.services.couriers import Couriers
from workers.services.deliveries import Webhooks
from workers.services.retention import Retention
from workers.services.sweeper import Sweeper
from workers.services.timers import Timers

logger = logging.getLogger(__name__)

STOP_SECONDS = 20
"""Above 0, arq leaves the end to `handle_sig_wait_for_completion`."""
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BATCH_SECONDS = 5.0
"""How long a batch in hand may take to its end once a signal has come."""

_HEARTBEAT_SECONDS = 1.0

_INSTEAD = {
    "cron_jobs": "what is to happen at a time is a command with `run_at`, and cron jobs are for a stock arq worker with"
    " a queue of its own",
    "functions": "it runs commands, and a stock arq worker with a queue of its own runs other functions",
    "job_timeout": "a batch whose statement takes too long is repeated",
    "keep_result": "SOUK_ARQ_RESULTS_SECONDS says how long Redis keeps results",
    "keep_result_forever": "the journal keeps all results, and SOUK_ARQ_RESULTS_SECONDS says how long Redis does",
    "max_jobs": "SOUK_LANES and SOUK_BATCH_MAX say how much is under way at once",
    "max_tries": "a batch is repeated until the weather is better",
    "queue_name": "it drains the queues of its share of the partitions",
    "redis_pool": "SOUK_REDIS_URL says where Redis is",
    "redis_settings": "SOUK_REDIS_URL says where Redis is",
}

_PLACE = "SELECT partition, status FROM commands WHERE id = $1"
_AGAIN_SECONDS = 0.05


async def execute(ctx: dict[str, Any], command_id: str) -> str | None:
    """Brings one command to its outcome, and those accepted before it in its partition. Returns its status.

    `ctx["settings"]` are the Settings. Where one of our own workers drains the partition, it is waited for: the lease
    says who may execute, here as there.
    """
    settings: Settings = ctx["settings"]
    redis = connect_redis(settings)
    connection = await connect(settings, "execute", timeout_seconds=STATEMENT_SECONDS, pinned_plans=True)
    try:
        async with Locks(redis, answer_seconds=settings.lock_seconds / 2) as locks:
            while True:
                row = await connection.fetchrow(_PLACE, UUID(command_id))
                if row is None or row["status"] != "accepted":
                    return None if row is None else str(row["status"])
                try:
                    async with borrowed(connection, locks, settings, row["partition"]) as fence:
                        await run_batch(connection, settings, {row["partition"]: fence}, settings.batch_max)
                except (LockTimeout, Fenced):
                    await asyncio.sleep(_AGAIN_SECONDS)
    finally:
        await connection.close()
        with suppress(RedisError, OSError):
            await redis.aclose()


def refuse(options: Iterable[str]) -> None:
    """Raises TypeError, a sentence for each option of arq's worker that would have no effect on ours."""
    sentences = []
    for name in options:
        if name not in inspect.signature(Worker).parameters:
            sentences.append(f"neither a Souk worker nor arq's knows {name!r}")
        else:
            instead = _INSTEAD.get(name, "its settings are SOUK_… variables")
            sentences.append(f"a Souk worker takes no {name}: {instead}")
    if sentences:
        raise TypeError("; ".join(sentences))


class SoukWorker(Worker):
    """Drains its share of the partitions until a signal, or with `burst` until nothing is left to do.

    Of the options of arq's worker it takes those named here, and refuses the others with a sentence."""

    def __init__(
        self,
        settings: Settings,
        *,
        burst: bool = False,
        handle_signals: bool = True,
        on_startup: StartupShutdown | None = None,
        on_shutdown: StartupShutdown | None = None,
        **options: Any,
    ) -> None:
        refuse(options)
        redis = connect_redis(settings)
        worker_id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        super().__init__(
            functions=[func(execute, name=FUNCTION)],
            queue_name=WORKERS_KEY,
            redis_pool=workers_redis(redis),
            burst=burst,
            handle_signals=handle_signals,
            on_startup=on_startup,
            on_shutdown=on_shutdown,
            ctx={"settings": settings},
            job_serializer=serialize,
            job_deserializer=deserialize,
            job_completion_wait=STOP_SECONDS,
            health_check_interval=HEALTH_SECONDS,
            health_check_key=health_key(worker_id),
        )
        self._redis = redis
        queue = Queue(redis, settings.arq_results_seconds or 0)
        self._health = Health(queue, worker_id)
        self._hints = Hints(queue)
        self._lanes = Lanes(settings, self._finish)
        self._progress = Progress(self._lanes.in_hand, self._hints)
        self._locks = Locks(redis, answer_seconds=settings.lock_seconds / 2)
        self._leases = Leases(settings, worker_id, self._lanes, self._locks)
        self._bells = Listener(redis, BELLS_CHANNEL, self._heard)
        self._sweeper = Sweeper(
            settings, queue, self._lanes.fences.keys, self._lanes.ring, lambda: self._bells.connected
        )
        self._timers = Timers(settings, self._accepted)
        self._couriers = Couriers(settings, self._locks, self._accepted)
        self._webhooks = Webhooks(settings)
        self._retention = Retention(settings)
        self._lane_count = settings.lanes

    async def main(self) -> None:
        """Run until a signal stops the lanes, then hand the leases back."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)  # blocked, perhaps, until we are here
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        services = [
            self._bells.run(),
            self._sweeper.run(),
            self._timers.run(),
            self._couriers.run(),
            self._webhooks.run(),
            self._retention.run(),
            self._progress.run(),
            self._beat(),
        ]
        try:
            async with self._locks, asyncio.TaskGroup() as group:
                leasing = group.create_task(self._leases.run())
                running = [group.create_task(service) for service in services]
                lanes = [group.create_task(self._lanes.run_lane(number)) for number in range(self._lane_count)]
                self.tasks = {f"lane {number}": lane for number, lane in enumerate(lanes)}
                try:
                    await asyncio.wait(lanes)
                finally:
                    self._lanes.stop()
                    await end([leasing])
                    await self._leases.leave()
                await end(running)
        finally:
            await self._hints.close()

    def handle_sig_wait_for_completion(self, signum: signal.Signals) -> None:
        """The lanes finish the batches in hand; `main` then hands the leases back and returns."""
        logger.info("stopping on %s", signal.Signals(signum).name)
        self.allow_pick_jobs = False
        self._lanes.stop()
        self.loop.call_later(_BATCH_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        """Wait no longer for a server that hangs. A batch that is cut off has happened or has not: whoever has its
        partitions next reads in the journal which."""
        for lane in self.tasks.values():
            lane.cancel()

    async def close(self) -> None:
        """As arq's does, whether Redis is there or not."""
        if self._pool is None:
            return
        self._pool = None
        with suppress(RedisError, OSError):
            await self._health.forget()
        if self.on_shutdown is not None:
            await self.on_shutdown(self.ctx)
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _beat(self) -> None:
        """Arq's health key, and in a burst the end."""
        while True:
            with suppress(RedisError, OSError):
                await self.heart_beat()
            if self.burst and self._lanes.fences and self._lanes.idle:
                self._lanes.stop()
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def record_health(self) -> None:
        """Arq's line of health, of commands where arq counts jobs, and of the queues of this worker's partitions."""
        said = await self._health.record(self._counters, self._lanes.fences)
        if said not in (None, self._last_health_check_log):
            logger.info("recording health: %s", said)
            self._last_health_check_log = said

    def _counters(self) -> str:
        self._count()
        return (
            f"j_complete={self.jobs_complete} j_failed={self.jobs_failed} j_retried={self.jobs_retried}"
            f" j_ongoing={len(self._lanes.in_hand())}"
        )

    def _count(self) -> None:
        """Commands, not batches: those set aside by a bug failed, those of batches that are repeated are retried."""
        self.jobs_failed = self._lanes.endings[Status.FAILED]
        self.jobs_complete = self._lanes.endings.total() - self.jobs_failed
        self.jobs_retried = self._lanes.retried

    def __repr__(self) -> str:
        return f"<SoukWorker {self._counters()}>"

    def _heard(self, partitions: str) -> None:
        """Numbers joined by spaces; anybody may publish anything."""
        self._lanes.ring(int(partition) for partition in partitions.split() if partition.isdecimal())

    def _finish(self, batch: Batch) -> None:
        self._count()
        self._hints.finish(batch.finished, batch.records)
        self._accepted(batch.follow_ups)
        self._webhooks.ring()

    def _accepted(self, commands: Collection[tuple[int, UUID]]) -> None:
        if commands:
            self._lanes.ring({partition for partition, _ in commands})
            self._hints.enqueue(commands)
