"""The load test's client: Souk's own, on a transport that keeps connections open, one request at a time on each.

It shares the machine with the servers it measures, so it is thrifty: some 30 µs of processor time a request, where the
general-purpose transports take several hundred.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from math import inf
from time import monotonic
from typing import cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from souk_client import Answer, Client, NoConnection, Unreachable

CONNECT_SECONDS = 5.0
SWEEP_SECONDS = 0.25
"""How often overdue requests are looked for: one timer for all instead of one for each."""


def open_client(url: str, key: str, connections: int = 256) -> Client:
    """A client on a transport of its own, to be used by the event loop that runs."""
    return Client(url, key, transport=ThriftyTransport(url, connections))


class _Connection(asyncio.Protocol):
    __slots__ = ("_answer", "_body", "_headers", "_parser", "_pool", "_transport", "deadline")

    def __init__(self, pool: "ThriftyTransport") -> None:
        self._pool = pool
        self._parser = HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.deadline = inf

    def send(self, request: bytes, deadline: float) -> asyncio.Future[Answer]:
        if self._transport is None:
            raise Unreachable("the connection was closed")
        self.deadline = deadline
        self._answer = answer = self._pool.loop.create_future()
        self._transport.write(request)
        return answer

    def close(self, reason: str) -> None:
        """Give up the connection and whatever waits on it."""
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(Unreachable(reason))

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(f"the server closed the connection ({exc or 'no reason given'})")

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self.close(f"not HTTP: {error}")

    # -- the parser's side

    def on_message_begin(self) -> None:
        self._headers = {}
        self._body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        answer, self._answer = self._answer, None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if answer is None or not self._parser.should_keep_alive():
            self.close("the server ended the connection")
        else:
            self._pool.release(self)
        if answer is not None and not answer.done():
            answer.set_result(Answer(self._parser.get_status_code(), self._headers, body))


class ThriftyTransport:
    """Up to `connections` connections to one origin; requests beyond that wait for a free one, first come first served.

    It never repeats a request; that is the caller's decision.
    """

    def __init__(self, url: str, connections: int = 256) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = f"not an http address: {url!r}"
            raise ValueError(message)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._fixed = f" HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        self._connections = connections
        self._open: set[_Connection] = set()
        self._opening = 0
        self._idle: list[_Connection] = []
        self._queue: deque[asyncio.Future[_Connection | None]] = deque()
        self.loop = asyncio.get_running_loop()
        self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    async def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float
    ) -> Answer:
        deadline = monotonic() + timeout_seconds
        connection = self._idle.pop() if self._idle else await self._connection()
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {self._prefix}{path}{self._fixed}{lines}{length}\r\n".encode()
        return await connection.send(head + body, deadline)

    async def aclose(self) -> None:
        self._sweeper.cancel()
        for connection in tuple(self._open):
            connection.close("the client was closed")

    # -- the connections' side

    def release(self, connection: _Connection) -> None:
        connection.deadline = inf
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        if connection not in self._open:
            return
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake_one()

    def _wake_one(self) -> None:
        """There is room for a new connection: the first in the queue may open it."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _connection(self) -> _Connection:
        while len(self._open) + self._opening >= self._connections:
            waiter: asyncio.Future[_Connection | None] = self.loop.create_future()
            self._queue.append(waiter)
            free = await waiter
            if free is not None:
                return free
        self._opening += 1
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await self.loop.create_connection(
                    lambda: _Connection(self), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            self._wake_one()
            message = f"cannot connect to {self._host}:{self._port}: {str(error) or 'timed out'}"
            raise NoConnection(message) from None
        finally:
            self._opening -= 1
        self._open.add(connection)
        return connection

    def _sweep(self) -> None:
        now = monotonic()
        for connection in [each for each in self._open if each.deadline < now]:
            connection.close("no answer in time")
        self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)
