"""Server-sent events that outlive their connections: each is opened again where the last one ended."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx
from httpx_sse import EventSource
from pydantic_core import from_json

from souk_client.answers import Answer
from souk_client.retries import Retries, backoff
from souk_client.transport import CONNECT_SECONDS, unreachable

SILENCE_SECONDS = 40.0
"""The API says something every 15 s; a connection that is silent for longer is dead."""

_STREAM = "text/event-stream"
_FAREWELL = "resume"
"""The event with which the API ends a stream that is to be opened again, at once and elsewhere perhaps."""


class Streams:
    """Streams of one origin."""

    def __init__(self, url: str, headers: Mapping[str, str], retries: Retries) -> None:
        self._url = url
        self._headers = {**headers, "Accept": _STREAM, "Cache-Control": "no-store"}
        self._retries = retries
        self._http: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def messages(self, path: str, after: str | None = None) -> AsyncIterator[Any]:
        """What the stream says from `after` on, as JSON values, without end. Raises Problem, and Unreachable."""
        position = after
        retry_seconds = 0.0
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
                        retry_seconds = event.retry / 1_000 if event.retry is not None else retry_seconds
                        if event.event == _FAREWELL:
                            position = from_json(event.data).get("after", position)
                        elif event.data:
                            yield from_json(event.data)
            except httpx.TransportError:
                pass  # it goes on where it was
            finally:
                await response.aclose()
            await asyncio.sleep(backoff(silent) + random.uniform(retry_seconds / 2, retry_seconds))  # noqa: S311

    async def _opened(self, path: str, position: str | None) -> httpx.Response:
        async for attempt in self._retries.attempts():
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
            self._retries.reached = True
            if response.headers.get("content-type", "").startswith(_STREAM):
                return response
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        except (httpx.TransportError, AttributeError) as error:
            raise unreachable(error, self._url) from error
        raise Answer(
            response.status_code, {name.lower(): value for name, value in response.headers.raw}, body
        ).problem()
