"""Requests to addresses that users name, which must not reach what only we can reach.

A name is resolved at each request; when any of its addresses is not of the public internet, nothing is sent. The
connection goes to the very address that was looked at, so an answer that differs the second time helps nobody. The
name remains what TLS verifies and what the request is for. Connections are not kept: no request inherits another's
address. Redirects are not followed; a proxy of the environment is not asked.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

URL_MAX = 2_048
ANSWER_MAX_BYTES = 4_096
"""Of an answer's body, which nobody reads; a short one is heard to its end, lest its sender see a broken connection."""

_RESOLVERS_MAX = 16
_ADDRESSES_MAX = 3
"""Addresses of one name that are tried."""
_CONNECT_SECONDS = 5.0
_BODY_SECONDS = 1.0
_PORT_MAX = 65_535

_UNICAST = IPv6Network("2000::/3")
_OTHER_THAN_THEY_SEEM = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocols, and the metadata of Oracle; partly public to older Pythons
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # the metadata of Azure, an address of its own on every host
        "2001::/23",  # Teredo and other special purposes
        "2002::/16",  # 6to4: an IPv4 address, any
        "3fff::/20",  # documentation
    )
)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class Unacceptable(ValueError):
    """The URL is none that may be named; the text says why."""


class Unanswered(Exception):
    """No answer came; the text is one word."""


def is_public(address: str) -> bool:
    """Whether it is an address of the public internet and of one host. IPv6 addresses that stand for IPv4 ones, mapped,
    translated or tunnelled, are not."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:  # one with a zone, or none at all
        return False
    if isinstance(ip, IPv6Address) and (ip not in _UNICAST or ip.scope_id is not None):
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _OTHER_THAN_THEY_SEEM)


class Outbound:
    """Requests of one process. `private`: any address will do, and so will plain HTTP."""

    def __init__(
        self,
        *,
        private: bool,
        timeout_seconds: float,
        resolve: Resolve | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._private = private
        self._timeout_seconds = timeout_seconds
        self._resolvers = ThreadPoolExecutor(_RESOLVERS_MAX, "resolve")  # others' slow servers of names keep only these
        self._resolve = resolve or self._ask
        self._transport = httpx.AsyncHTTPTransport(
            verify=verify or httpx.create_ssl_context(),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def close(self) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)
        await self._transport.aclose()

    def read(self, text: str) -> httpx.URL:
        """The URL, if it has the form of one that may be named. Raises Unacceptable."""
        if len(text) > URL_MAX:
            raise Unacceptable(f"at most {URL_MAX} characters")
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL:
            raise Unacceptable("must be a URL") from None
        if url.scheme != "https" and not (self._private and url.scheme == "http"):
            raise Unacceptable("must be an https:// URL")
        if url.userinfo or "@" in text.partition("://")[2].partition("/")[0]:
            raise Unacceptable("must be without credentials")
        if not url.host or "%" in url.host:
            raise Unacceptable("must name a host")
        if url.fragment:
            raise Unacceptable("must be without a fragment")
        if url.port is not None and not 0 < url.port <= _PORT_MAX:
            raise Unacceptable("must name a port that can be connected to")
        return url

    async def check(self, text: str) -> None:
        """Raises Unacceptable when no request would be sent there as things are. A name that leads nowhere yet may."""
        url = self.read(text)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._addresses(url)
        except Unanswered as error:
            if str(error) == "forbidden_address":
                raise Unacceptable("must lead to the public internet") from None
        except TimeoutError:
            pass

    async def post(self, text: str, headers: Mapping[str, str], content: bytes) -> int:
        """The status of the answer. Raises Unanswered."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(self.read(text), headers, content)
        except Unacceptable:
            raise Unanswered("forbidden_url") from None
        except (TimeoutError, httpx.TimeoutException):
            raise Unanswered("timeout") from None
        except httpx.ConnectError as error:
            raise Unanswered("tls" if _is_of_tls(error) else "not_connected") from None
        except httpx.TransportError:
            raise Unanswered("broken_off") from None

    async def _post(self, url: httpx.URL, headers: Mapping[str, str], content: bytes) -> int:
        addresses = list(dict.fromkeys(await self._addresses(url)))[:_ADDRESSES_MAX]
        while True:
            address = addresses.pop(0)
            try:
                return await self._send(url, address, headers, content)
            except (httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent
                if not addresses:
                    raise

    async def _send(self, url: httpx.URL, address: str, headers: Mapping[str, str], content: bytes) -> int:
        within = self._timeout_seconds
        request = httpx.Request(
            "POST",
            url.copy_with(host=address),
            headers={**headers, "host": url.netloc.decode("ascii"), "connection": "close"},
            content=content,
            extensions={
                "sni_hostname": url.raw_host.decode("ascii").rstrip("."),
                "timeout": {"connect": min(_CONNECT_SECONDS, within), "read": within, "write": within, "pool": within},
            },
        )
        response = await self._transport.handle_async_request(request)
        try:
            with suppress(TimeoutError, httpx.TransportError):  # the status has said all
                async with asyncio.timeout(_BODY_SECONDS):
                    heard = 0
                    async for chunk in response.aiter_raw():
                        heard += len(chunk)
                        if heard >= ANSWER_MAX_BYTES:
                            break
        finally:
            await response.aclose()
        return response.status_code

    async def _addresses(self, url: httpx.URL) -> Sequence[str]:
        """All that the host's name leads to. Raises Unanswered when one of them is forbidden, or there is none."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(url.raw_host.decode("ascii"), port)
        except (OSError, UnicodeError):  # the latter for labels that are empty or too long
            addresses = []
        if not addresses:
            raise Unanswered("unresolvable")
        if not self._private and not all(is_public(address) for address in addresses):
            raise Unanswered("forbidden_address")
        return addresses

    async def _ask(self, host: str, port: int) -> Sequence[str]:
        def ask() -> list[str]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return [str(sockaddr[0]) for *_, sockaddr in found]

        return await asyncio.get_running_loop().run_in_executor(self._resolvers, ask)


def _is_of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
