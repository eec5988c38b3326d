"""The process around the application: uvicorn, which on a signal answers what is under way, nothing more, and ends.

Whoever waits for an outcome is sent home with what is known, so a drain takes no longer than the work in hand.
"""

import socket

import uvicorn
from starlette.applications import Starlette

DRAIN_SECONDS = 10


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.drain()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def serve(app: Starlette, host: str, port: int) -> None:
    """Until a signal."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
    server = _Server(config)
    server.run()
    if not server.started:
        raise SystemExit(1)
