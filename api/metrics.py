"""GET /metrics, for Prometheus: what this process accepted and answered, and what the journal says of all of them.

Open to whoever can ask, like /healthz: figures only, no names of users, hosts or assets. Labels are routes, statuses
and workers alive, so their number is bounded. The journal is asked once a second at most, whoever scrapes.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.openapi.operation import Answer, described
from storage.journal.backlog import backlog
from storage.redis.hints import Hints
from storage.redis.queue import Queue

_FRESH_SECONDS = 1.0
_METHODS = ("GET", "HEAD", "POST", "DELETE")
_ENDINGS = ("succeeded", "rejected", "failed", "expired")
# A worker's id begins with its host, which is nobody's business; its end tells it from the others.
_WORKERS = text("""
    SELECT substring(id FROM '[^:]*$') AS name, by_locks, batches, round_trips, succeeded, rejected, failed, expired,
        (SELECT count(*) FROM partitions WHERE owner = workers.id) AS partitions
    FROM workers WHERE alive_until > clock_timestamp() ORDER BY id
""")


# What endpoints that are disabled have waiting is nobody's concern.
_WEBHOOKS = text("""
    SELECT (SELECT count(*) FROM webhooks WHERE disabled_at IS NOT NULL) AS disabled, count(*) AS waiting,
        coalesce(extract(epoch FROM clock_timestamp() - min(deliveries.created_at)), 0)::float8 AS oldest_seconds
    FROM deliveries JOIN webhooks ON webhooks.id = webhook_id
    WHERE state = 'pending' AND NOT by_hand AND disabled_at IS NULL
""")


class _Seen(NamedTuple):
    """What was last read; nothing of the journal while PostgreSQL is away."""

    postgresql: bool
    redis: str
    depth: int = 0
    oldest_seconds: float = 0.0
    free: int = 0
    workers: tuple[Any, ...] = ()
    webhooks: Any = None


class Metrics(Collector):
    """Counts what goes through `middleware`, and what `accepted` is told; the rest is read when asked for."""

    def __init__(
        self, engine: AsyncEngine, queue: Queue, partitions: int, hints: Hints, hears: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._partitions = partitions
        self._hints = hints
        self._hears = hears
        self._lock = asyncio.Lock()
        self._seen = _Seen(postgresql=False, redis="unavailable")
        self._seen_at = float("-inf")
        self._registry = CollectorRegistry()
        self._accepted = Counter("souk_accepted", "Commands accepted by this process", registry=self._registry)
        self._requests = Counter(
            "souk_http_requests", "Answers of this process", ("method", "route", "status"), registry=self._registry
        )
        self._registry.register(self)

    def accepted(self, commands: int) -> None:
        self._accepted.inc(commands)

    @described("process", answers={200: Answer("Figures.", {"text/plain": {"type": "string"}})}, access=())
    async def answer(self, _: Request) -> Response:
        """GET /metrics: for Prometheus."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._seen_at > _FRESH_SECONDS:
                self._seen = await self._look()
                self._seen_at = now
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    method = scope["method"] if scope["method"] in _METHODS else "other"
                    path = getattr(scope.get("route"), "path", "none")
                    self._requests.labels(method, path, message["status"]).inc()
                await send(message)

            await app(scope, receive, sent)

        return counted

    async def _look(self) -> _Seen:
        redis = await self._queue.state(self._partitions) if self._hears() else "unavailable"
        try:
            waiting = await backlog(self._engine)
            async with self._engine.connect() as connection:
                workers = tuple((await connection.execute(_WORKERS)).all())
                webhooks = (await connection.execute(_WEBHOOKS)).one()
        except (SQLAlchemyError, OSError, TimeoutError):
            return _Seen(postgresql=False, redis=redis)
        return _Seen(
            postgresql=True,
            redis=redis,
            depth=sum(each["depth"] for each in waiting),
            oldest_seconds=max(each["oldest_seconds"] for each in waiting),
            free=sum(each["owner"] is None for each in waiting),
            workers=workers,
            webhooks=webhooks,
        )

    def collect(self) -> Iterable[Metric]:
        """What was last read, in Prometheus' families."""
        seen = self._seen
        up = GaugeMetricFamily(
            "souk_up", "Whether a part serves; Redis does not while it refuses writes", labels=["part"]
        )
        up.add_metric(["postgresql"], seen.postgresql)
        up.add_metric(["redis"], seen.redis == "ok")
        yield up
        yield GaugeMetricFamily("souk_notices_connected", "Whether outcomes are heard of at once", self._hears())
        yield CounterMetricFamily("souk_hints_lost", "Hints thrown away; the sweeper repairs them", self._hints.lost)
        if not seen.postgresql:
            return
        yield GaugeMetricFamily("souk_backlog_commands", "Accepted commands without outcome", seen.depth)
        yield GaugeMetricFamily("souk_backlog_oldest_seconds", "Age of the oldest of them", seen.oldest_seconds)
        yield GaugeMetricFamily("souk_partitions_free", "Partitions that nobody drains", seen.free)
        yield GaugeMetricFamily("souk_workers", "Workers alive", len(seen.workers))
        webhooks = seen.webhooks
        yield GaugeMetricFamily("souk_webhooks_disabled", "Endpoints that nothing is delivered to", webhooks.disabled)
        yield GaugeMetricFamily("souk_webhook_deliveries_waiting", "Deliveries to the others", webhooks.waiting)
        yield GaugeMetricFamily("souk_webhook_oldest_seconds", "Age of the oldest of these", webhooks.oldest_seconds)
        leases = GaugeMetricFamily("souk_worker_partitions", "Partitions a worker drains", labels=["worker"])
        by_locks = GaugeMetricFamily(
            "souk_worker_by_locks",
            "Whether the locks in Redis tell a worker who is gone; if not, the signs of life in PostgreSQL do",
            labels=["worker"],
        )
        batches = CounterMetricFamily("souk_worker_batches", "Transactions of a worker", labels=["worker"])
        trips = CounterMetricFamily("souk_worker_round_trips", "Its statements", labels=["worker"])
        outcomes = CounterMetricFamily("souk_worker_outcomes", "Its outcomes", labels=["worker", "status"])
        for worker in seen.workers:
            leases.add_metric([worker.name], worker.partitions)
            by_locks.add_metric([worker.name], worker.by_locks)
            batches.add_metric([worker.name], worker.batches)
            trips.add_metric([worker.name], worker.round_trips)
            for status in _ENDINGS:
                outcomes.add_metric([worker.name, status], getattr(worker, status))
        yield from (leases, by_locks, batches, trips, outcomes)
