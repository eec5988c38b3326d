"""An operator's bridge: a small real server that checks signatures as Standard Webhooks asks, begins nothing under a
fencing token that is smaller than one it has seen, and answers as told."""

import base64
import hashlib
import hmac
import json
import time
from asyncio import create_task
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from storage.embedded.stack import free_port
from tests.deadline import eventually

SECRET = "whsec_" + base64.b64encode(b"a secret of the bridge's and ours").decode()
_TOLERANCE_SECONDS = 300

Respond = Callable[[str, dict[str, Any]], Awaitable[Response]]


class Seen(NamedTuple):
    """A request: `perform` or `lookup`, and its fields."""

    call: str
    fields: dict[str, Any]


class ABridge:
    """Does everything, unless `respond` is replaced. `tokens`: the largest that it has seen of each account."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/souk"
        self.seen: list[Seen] = []
        self.tokens: dict[str, int] = {}
        self._begun: set[str] = set()
        self.respond: Respond = done

    async def answer(self, request: Request) -> Response:
        content = await request.body()
        if not verified(request, content):
            return Response(status_code=401)
        seen = Seen(request.url.path.rpartition("/")[2], json.loads(content))
        assert seen.fields["reference"] == request.headers["webhook-id"]
        self.seen.append(seen)
        if self._overtaken(seen):
            return JSONResponse({"reference": seen.fields["reference"], "outcome": "unknown"})
        return await self.respond(*seen)

    def _overtaken(self, seen: Seen) -> bool:
        """Whether the call would begin something after a later call for one of its accounts."""
        token, reference = int(seen.fields["fencing_token"]), str(seen.fields["reference"])
        largest = max(self.tokens.get(account, 0) for account in seen.fields["accounts"])
        for account in seen.fields["accounts"]:
            self.tokens[account] = max(token, self.tokens.get(account, 0))
        if seen.call == "lookup" or reference in self._begun:
            return False
        if token >= largest:
            self._begun.add(reference)
        return token < largest


async def done(call: str, fields: dict[str, Any]) -> Response:
    return JSONResponse({"reference": fields["reference"], "outcome": "done"})


def verified(request: Request, content: bytes) -> bool:
    """What a receiver does: the signature of id, time and body, and the time within bounds."""
    message_id, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    key = base64.b64decode(SECRET.split("_", 1)[1])
    signature = hmac.new(key, f"{message_id}.{timestamp}.".encode() + content, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(signature).decode()
    in_time = abs(time.time() - int(timestamp)) < _TOLERANCE_SECONDS
    return in_time and hmac.compare_digest(expected, request.headers["webhook-signature"])


@asynccontextmanager
async def a_bridge() -> AsyncIterator[ABridge]:
    port = free_port("127.0.0.1")
    bridge = ABridge(port)
    app = Starlette(routes=[Route("/souk/{call}", bridge.answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
    serving = create_task(server._serve())  # without its hold on the signals

    async def started() -> bool:
        return server.started

    await eventually(started)
    try:
        yield bridge
    finally:
        server.should_exit = True
        await serving
