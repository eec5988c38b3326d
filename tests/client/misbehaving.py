"""A small HTTP server that answers as a test wants, or does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

Reply = Callable[[int, bytes], bytes]
"""The bytes to answer with, given the request's number and body; empty closes the connection."""

SUCCEEDED: dict[str, Any] = {
    "id": "1",
    "kind": "nft.buy",
    "actor": 42,
    "asset": "nft:17",
    "partition": 3,
    "status": "succeeded",
    "accepted_at": "2030-01-01T00:00:00Z",
    "finished_at": "2030-01-01T00:00:01Z",
    "result": {"deal_id": "7"},
    "rejection": None,
    "links": {"self": "/v1/commands/1"},
}
ACCEPTED: dict[str, Any] = SUCCEEDED | {"status": "accepted", "finished_at": None, "result": None}
REJECTED: dict[str, Any] = SUCCEEDED | {
    "status": "rejected",
    "result": None,
    "rejection": {"code": "PRICE_CHANGED", "detail": "The price is another.", "price_nano": 7},
}


def http(status: int, body: object, *headers: str) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def problem(status: int, code: str, *headers: str, **more: Any) -> bytes:
    return http(status, {"status": status, "code": code, "detail": "No.", **more}, *headers)


def sse(*messages: Mapping[str, Any] | bytes, content_type: str = "text/event-stream") -> bytes:
    """A stream that ends after the messages; each an event, or the bytes themselves."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n".encode()
    lines = (
        each if isinstance(each, bytes) else f"id: {each['id']}\nevent: x\ndata: {json.dumps(each)}\n\n".encode()
        for each in messages
    )
    return head + b"".join(lines)


class Server:
    """`requests` are what came, heads and bodies."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""

    def bodies(self) -> list[Any]:
        """The JSON that came."""
        return [json.loads(body) for body in (request.split(b"\r\n\r\n", 1)[1] for request in self.requests) if body]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
                )
                body = await reader.readexactly(length)
                self.requests.append(head + body)
                answer = self.reply(len(self.requests), body)
                if not answer:
                    break
                writer.write(answer)
                if b"Connection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[Server]:
    server = Server(reply)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**22)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
