"""How requests travel: httpx, unless the client is given something else that carries bytes."""

from collections.abc import Mapping
from typing import Protocol

import httpx

from api.client.answers import Answer
from api.client.errors import Unreachable

CONNECT_SECONDS = 5.0
KEEP_OPEN = 100


class Transport(Protocol):
    """Carries one request to one origin, once."""

    async def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float
    ) -> Answer:
        """The whole answer, whatever its status. Raises Unreachable."""
        ...

    async def aclose(self) -> None: ...


class HttpxTransport:
    """The usual one. `http` is a client of one's own, say with proxies or certificates; its base_url is replaced."""

    def __init__(self, url: str, http: httpx.AsyncClient | None = None) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=KEEP_OPEN)
        self._http = http or httpx.AsyncClient(limits=limits)
        try:
            self._http.base_url = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError(f"not an http address: {url!r}") from None
        if self._http.base_url.scheme not in {"http", "https"} or not self._http.base_url.host:
            raise ValueError(f"not an http address: {url!r}")

    async def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float
    ) -> Answer:
        timeout = httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS)
        try:
            response = await self._http.request(method, path, content=body, headers=headers, timeout=timeout)
        except (httpx.TransportError, AttributeError) as error:  # the latter from anyio: reset as it was connected
            raise Unreachable(str(error) or type(error).__name__) from error
        return Answer(
            response.status_code, {name.lower(): value for name, value in response.headers.raw}, response.content
        )

    async def aclose(self) -> None:
        await self._http.aclose()
