"""The process around the application: uvicorn, which on a signal answers what is under way, nothing more, and ends.

Whoever waits for an outcome is sent home with what is known, so a drain takes no longer than the work in hand.
"""

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

DRAIN_SECONDS = 10
STALLED_SECONDS = 60.0
"""How long a client may take none of what was sent to it, before the system drops the connection: a stream's would
otherwise stay for ever."""
_PING_SECONDS = 20.0
_LINGER_SECONDS = 10.0
"""How long a peer that does not read may keep a WebSocket's last bytes in our memory."""


class _WebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that the application closes, also in a drain, and that does not outlive it by much."""

    def shutdown(self) -> None:
        """`state.drain()` was called: the application answers what is under way, then closes."""

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        super().on_task_complete(task)
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:  # the client's fault, not one for the log
                self.conn.fail(1007, "not UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.drain()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def make_server(app: Starlette, host: str, port: int) -> uvicorn.Server:
    """Not running yet."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws=_WebSocket,
        ws_max_size=app.state.body_max_bytes,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        ws_per_message_deflate=False,  # messages are small: it would cost each connection memory and win little
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
    return _Server(config)


def listen(config: uvicorn.Config) -> socket.socket:
    """The address, bound. What is accepted on it has the same patience with who takes nothing."""
    listening = config.bind_socket()
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_SECONDS * 1_000))
    return listening


def serve(app: Starlette, host: str, port: int) -> None:
    """Until a signal."""
    server = make_server(app, host, port)
    server.run([listen(server.config)])
    if not server.started:
        raise SystemExit(1)
