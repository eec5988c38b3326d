"""Whether the process lives, and whether it can serve."""

from collections.abc import Callable

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from api.openapi.columns import object_of
from api.openapi.operation import Answer, described
from api.problems import json_response
from storage.redis.queue import Queue

_PART = {"type": "string", "examples": ["ok"]}
_READINESS = object_of({"ready": {"type": "boolean"}, "parts": object_of({"postgresql": _PART, "redis": _PART})})


class Health:
    """`hears` tells whether notices come, which is how Redis is known to be there."""

    def __init__(self, engine: AsyncEngine, queue: Queue, partitions: int, hears: Callable[[], bool]) -> None:
        self._engine = engine
        self._queue = queue
        self._partitions = partitions
        self._hears = hears
        self.routes: list[BaseRoute] = [Route("/healthz", self.alive), Route("/readyz", self.ready)]

    @described("process", answers={200: Answer("It is.", {"text/plain": {"const": "alive\n"}})}, access=())
    async def alive(self, _: Request) -> Response:
        """GET /healthz: whether the process is alive."""
        return PlainTextResponse("alive\n")

    @described(
        "process",
        answers={200: Answer("They can.", _READINESS), 503: Answer("They cannot.", _READINESS)},
        access=(),
    )
    async def ready(self, _: Request) -> Response:
        """GET /readyz: whether commands can be accepted, and which part is away. Redis is not needed for that."""
        try:
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            postgresql = "ok"
        except (SQLAlchemyError, OSError, TimeoutError):
            postgresql = "unavailable"
        redis = await self._queue.state(self._partitions) if self._hears() else "unavailable"
        serves = postgresql == "ok"
        parts = {"postgresql": postgresql, "redis": redis}
        return json_response({"ready": serves, "parts": parts}, 200 if serves else 503)
