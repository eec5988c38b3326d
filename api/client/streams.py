"""Server-sent events that outlive their connections: each is opened again where the last one ended."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError
from pydantic_core import from_json

from api.client.answers import Answer
from api.client.errors import Unreachable
from api.client.retries import attempts, backoff
from api.client.transport import CONNECT_SECONDS

SILENCE_SECONDS = 40.0
"""The API says something every 15 s; a connection that is silent for longer is dead."""


class Message:
    """A message of a stream; `json` is what it carries."""

    def __init__(self, name: str, data: str) -> None:
        self.name = name
        self.data = data

    def json(self) -> Any:
        return from_json(self.data)


class Streams:
    """Streams of one origin."""

    def __init__(self, url: str, headers: Mapping[str, str], patience: float) -> None:
        self._url = url
        self._headers = {**headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        self._patience = patience
        self._http: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def messages(self, path: str, after: str | None = None) -> AsyncIterator[Message]:
        """What the stream says from `after` on, without end. Raises Problem, and Unreachable when patience ends."""
        position = after
        silent = 0
        """Connections that ended before they said anything."""
        while True:
            response = await self._opened(path, position)
            silent += 1
            try:
                async with aclosing(EventSource(response).aiter_sse()) as events:
                    async for event in events:
                        silent = 0
                        position = event.id or position
                        if event.data:
                            yield Message(event.event, event.data)
            except (httpx.TransportError, SSEError):
                pass  # it goes on where it was
            finally:
                await response.aclose()
            await asyncio.sleep(backoff(silent))

    async def _opened(self, path: str, position: str | None) -> httpx.Response:
        async for attempt in attempts(self._patience):
            with attempt:
                return await self._open(path, position)
        raise AssertionError("unreachable: the last attempt raises")

    async def _open(self, path: str, position: str | None) -> httpx.Response:
        if self._http is None:
            timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
            self._http = httpx.AsyncClient(timeout=timeout, limits=httpx.Limits(max_connections=None))
        headers = self._headers if position is None else {**self._headers, "Last-Event-ID": position}
        try:
            response = await self._http.send(
                self._http.build_request("GET", self._url + path, headers=headers), stream=True
            )
            if response.status_code == httpx.codes.OK:
                return response
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        except (httpx.TransportError, AttributeError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        raise Answer(
            response.status_code, {name.lower(): value for name, value in response.headers.raw}, body
        ).problem()
