"""The application behind a real server in this process, and clients of its WebSocket."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from api.app import make_app
from api.server import make_server
from storage.keys import Role, create_key
from storage.postgres.connection import engine as make_engine
from storage.settings import Settings
from tests.api.api import Api
from tests.deadline import eventually

PATIENCE_SECONDS = 20
SMALL_BUFFER = 4_096
"""Of a socket whose client stops reading: little fits in between."""


class Client:
    """One connection, in messages."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, op: str, **message: Any) -> None:
        await self.connection.send(json.dumps({"op": op} | message))

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        return message

    async def ask(self, op: str, **message: Any) -> dict[str, Any]:
        await self.send(op, **message)
        return await self.receive()

    async def rest(self) -> tuple[list[dict[str, Any]], int, str]:
        """All messages until the connection is closed; the code and the reason."""
        messages = []
        with pytest.raises(ConnectionClosed) as end:  # noqa: PT012 - whichever message is the last
            while True:
                messages.append(await self.receive())
        closed = end.value.rcvd
        assert closed is not None, "no close frame"
        return messages, closed.code, closed.reason


class Served:
    """An application and the address of its server."""

    def __init__(self, api: Api, server: uvicorn.Server, address: tuple[str, int], key: str) -> None:
        self.api = api
        self.server = server
        self.key = key
        self._address = address

    @asynccontextmanager
    async def connected(self, key: str | None = None, **options: Any) -> AsyncIterator[Client]:
        """A client with this key, or the operator's."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        async with connect(self.url, additional_headers=headers, proxy=None, close_timeout=1, **options) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def slow(self, key: str | None = None) -> AsyncIterator[Client]:
        """A client whose connection holds little, and that reads only when it is told to."""
        bare = socket.socket()
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        bare.setblocking(False)
        await asyncio.get_running_loop().sock_connect(bare, self._address)
        async with self.connected(key, sock=bare, max_queue=1) as client:
            yield client

    async def key_of(self, role: Role, user_id: int | None = None) -> tuple[str, str]:
        """The id of a new key, and the key."""
        return await create_key(self.api.engine, role, user_id)

    @property
    def base_url(self) -> str:
        return f"http://{self._address[0]}:{self._address[1]}"

    @property
    def url(self) -> str:
        return f"ws://{self._address[0]}:{self._address[1]}/v1/ws"


@asynccontextmanager
async def served(settings: Settings, send_buffer: int | None = SMALL_BUFFER) -> AsyncIterator[Served]:
    """As long as the context lasts, and until the drain at its end is over."""
    app = make_app(settings)
    engine = make_engine(settings)
    listening = socket.socket()
    if send_buffer is not None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listening.bind(("127.0.0.1", 0))
    server = make_server(app, "127.0.0.1", 0)
    serving = asyncio.create_task(server._serve([listening]))  # without its hold on the signals

    async def started() -> bool:
        return server.started

    try:
        await eventually(started)
        api = Api(settings, engine, httpx.ASGITransport(app))
        _, key = await create_key(engine, Role.OPERATOR)
        api.operator = api.with_key(key)
        yield Served(api, server, listening.getsockname(), key)
    finally:
        server.should_exit = True
        await serving
        await engine.dispose()


def assert_refused(message: dict[str, Any], request_id: object, code: str, paths: list[str] | None = None) -> None:
    """The answer is this problem, about the message of that id."""
    assert (message["type"], message["id"], message["problem"]["code"]) == ("problem", request_id, code), message
    assert {"type", "title", "status", "detail"} <= message["problem"].keys()
    if paths is not None:
        assert [error["path"] for error in message["problem"]["errors"]] == paths
