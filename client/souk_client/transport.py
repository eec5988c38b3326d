"""How requests travel: httpx, unless the client is given something else that carries bytes."""

from collections.abc import Mapping
from typing import Protocol

import httpx

from souk_client.answers import Answer
from souk_client.errors import NoConnection, Unreachable

CONNECT_SECONDS = 5.0
KEEP_OPEN = 100


class Transport(Protocol):
    """Carries requests to one origin, each once."""

    async def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float
    ) -> Answer:
        """Returns the whole answer, whatever its status.

        Raises Unreachable when none came within `timeout_seconds`, and NoConnection when no connection could be made.
        """
        ...

    async def aclose(self) -> None:
        """Closes all connections."""
        ...


class HttpxTransport:
    """The usual transport.

    `http` is an httpx client to use instead of a new one, say with proxies or certificates; its base_url is replaced.
    Raises ValueError when `url` is not an http address.
    """

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
        """Sends the request once, as Transport says."""
        timeout = httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS)
        try:
            response = await self._http.request(method, path, content=body, headers=headers, timeout=timeout)
        except (httpx.TransportError, AttributeError) as error:  # the latter from anyio: reset as it was connected
            raise unreachable(error, self._http.base_url) from error
        return Answer(
            response.status_code, {name.lower(): value for name, value in response.headers.raw}, response.content
        )

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._http.aclose()


def unreachable(error: Exception, url: object) -> Unreachable:
    """Returns what the client raises when httpx could not bring a request to this address, or no answer back."""
    why = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return NoConnection(f"nothing answers at {url} ({why})")
    return Unreachable(why)
