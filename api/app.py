"""The API process: routes, and what lives as long as it does. It accepts, tells and reads; it decides nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from api.auth import Keyring
from api.events.hub import Hub
from api.events.limits import Places
from api.events.session import Sessions
from api.events.sse import Streams
from api.events.websocket import WebSockets
from api.health import Health
from api.metrics import Metrics
from api.openapi.docs import Docs
from api.outcomes import Outcomes
from api.problems import EXPECTED, answer_http_error, answer_problem
from api.replica import CONNECT_SECONDS, Reader
from api.results import Results
from api.submit import Submit
from api.views import Views
from api.webhooks.routes import Webhooks
from storage.journal.accept import Journal
from storage.postgres.connection import engine as make_engine
from storage.redis.hints import Hints
from storage.redis.notices import Listener
from storage.redis.queue import OUTCOMES_CHANNEL, Queue, connect_redis
from storage.settings import Settings
from storage.tasks import end

_FAREWELL_SECONDS = 3.0


def make_app(settings: Settings) -> Starlette:
    """The application. Connects when first asked something; its background work starts with it and ends with it.

    `state.drain()`, called before the end, sends home whoever waits for an outcome or listens to events.
    """
    engine = make_engine(settings)
    url = settings.read_database_url
    replica = make_engine(settings, url, connect_seconds=CONNECT_SECONDS) if url is not None else None
    redis = connect_redis(settings)
    journal = Journal(settings)
    keyring = Keyring(engine)
    outcomes = Outcomes(journal)
    hub = Hub(settings)

    def heard(notice: str) -> None:
        outcomes.heard(notice)
        hub.heard()

    def drain() -> None:
        sockets.drain()
        outcomes.drain()
        hub.drain()

    listener = Listener(redis, OUTCOMES_CHANNEL, heard)
    outcomes.notices_work = hub.notices_work = lambda: listener.connected
    queue = Queue(redis, settings.arq_results_seconds or 0)
    hints = Hints(queue)
    metrics = Metrics(engine, queue, settings.partitions, hints, lambda: listener.connected)
    submit = Submit(settings, journal, hints, outcomes, keyring, metrics.accepted)
    results = Results(settings, engine, journal, hints, submit, keyring)
    webhooks = Webhooks(settings, engine, keyring)
    places = Places(settings.streams_max)
    sockets = WebSockets(submit, hub, keyring, places)
    streams = Streams(hub, outcomes, journal, keyring, places)
    sessions = Sessions(engine, keyring)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        services = [asyncio.create_task(service.run()) for service in (listener, outcomes, hub)]
        yield
        await end(services)
        await hub.close()
        await webhooks.close()
        await hints.close()
        await journal.close()
        with suppress(TimeoutError):  # a server that hangs is not waited for
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await redis.aclose()
                for pool in filter(None, (replica, engine)):
                    await pool.dispose()

    docs = Docs(settings)
    app = Starlette(
        routes=[
            *Health(engine, queue, settings.partitions, lambda: listener.connected).routes,
            *docs.routes,
            Route("/metrics", metrics.answer),
            Route("/v1/commands", submit.one, methods=["POST"]),
            Route("/v1/commands", results.many),
            Route("/v1/commands/batch", submit.many, methods=["POST"]),
            Route("/v1/commands/{id}", results.one),
            Route("/v1/commands/{id}", results.cancel, methods=["DELETE"]),
            Route("/v1/commands/{id}/stream", streams.command),
            Route("/v1/events", streams.events),
            Route("/v1/session", sessions.begin, methods=["POST"]),
            Route("/v1/session", sessions.end, methods=["DELETE"]),
            WebSocketRoute("/v1/ws", sockets.answer),
            *webhooks.routes,
            *Views(settings, Reader(engine, replica), keyring).routes,
        ],
        exception_handlers={HTTPException: answer_http_error, Exception: answer_problem}
        | dict.fromkeys(EXPECTED, answer_problem),
        middleware=[Middleware(metrics.middleware)],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a path has one form, and no answer repeats the header Host
    app.state.drain, app.state.body_max_bytes = drain, settings.body_max_bytes
    return app
