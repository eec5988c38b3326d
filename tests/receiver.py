"""A receiver of webhooks: a small real server that verifies with the library which receivers use, and does as told."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from standardwebhooks import Webhook

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", "content-length: 0", *headers, "", ""]).encode()


class Seen(NamedTuple):
    """A request: its target, its headers and its body."""

    target: str
    headers: dict[str, str]
    content: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def place(self) -> str:
        """Of the event in the feed."""
        return str(self.body["data"]["id"])

    def verified(self, secret: str) -> Any:
        """The body. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.content, self.headers)


Respond = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """Says yes to everything, unless `respond` is replaced. `connections` counts those ever made."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[Seen] = []
        self.connections = 0
        self.under_way = 0
        self.under_way_max = 0
        self.respond: Respond = yes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def of(self, target: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.target == target]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        lines = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in lines}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        seen = Seen(head[0].split(" ")[1], headers, content)
        self.seen.append(seen)
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            await self.respond(seen, writer)
            await writer.drain()
        finally:
            self.under_way -= 1


async def yes(_: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


def says(content: bytes) -> Respond:
    async def respond(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(content)

    return respond


@asynccontextmanager
async def a_receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    serving: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
