"""Server-sent events: what is on a stream, who may read it, and every way in which one ends."""

import asyncio
import contextlib
import itertools
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from api.events import sse as streams
from api.events.hub import BUFFER_MAX
from api.server import STALLED_SECONDS, listen, make_server
from storage.feed import Cursor, read_end
from storage.keys import Role, revoke_key
from storage.postgres.connection import Connection
from storage.redis.queue import OUTCOMES_CHANNEL, connect_redis
from tests.api.api import assert_problem
from tests.api.sockets import SMALL_BUFFER, Served, served
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.market import register
from tests.storage.test_feed import telling
from workers.worker import execute

PATIENCE_SECONDS = 20
STREAMS_MAX = 20
users = itertools.count(70_000)


class Event(dict[str, str]):
    """The fields of one message of a stream: id, event, data, retry; the comment under `comment`."""

    @property
    def name(self) -> str | None:
        return self.get("event")

    @property
    def told(self) -> Any:
        return json.loads(self["data"])


class Stream:
    """What comes on one, as a browser reads it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.last_id = ""

    async def message(self) -> Event:
        """The next message, also one that a browser takes note of only."""
        message = Event()
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for line in self._lines:
                if not line:
                    self.last_id = message.get("id", self.last_id)
                    return message
                name, _, value = line.partition(": ")
                message[name or "comment"] = value
        raise EOFError

    async def event(self) -> Event:
        """The next one that has data."""
        while True:
            message = await self.message()
            if "data" in message:
                return message

    async def names(self, count: int) -> list[str | None]:
        return [(await self.event()).name for _ in range(count)]

    async def rest(self) -> list[Event]:
        """All that have data, to the end."""
        events = []
        with contextlib.suppress(EOFError):
            while True:
                events.append(await self.event())
        return events


@asynccontextmanager
async def opened(client: httpx.AsyncClient, path: str, **options: Any) -> AsyncIterator[Stream]:
    async with client.stream("GET", path, **options) as response:
        if response.status_code != 200:
            await response.aread()
        assert response.status_code == 200, response.text
        yield Stream(response)


def client_of(site: Served, key: str | None, **headers: str) -> httpx.AsyncClient:
    authorization = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=site.base_url, headers=authorization | headers, timeout=PATIENCE_SECONDS)


@asynccontextmanager
async def unread(site: Served, path: str, key: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """A stream that was begun, and of which no more is read until one asks for all of it; it holds little."""
    loop = asyncio.get_running_loop()
    with socket.socket() as bare:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        bare.setblocking(False)
        url = httpx.URL(site.base_url)
        await loop.sock_connect(bare, (url.host, url.port))
        request = f"GET {path} HTTP/1.1\r\nHost: souk\r\nAuthorization: Bearer {key}\r\n\r\n"
        await loop.sock_sendall(bare, request.encode())
        received = bytearray()

        async def read(end: bytes) -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while end not in received:
                    received.extend(await loop.sock_recv(bare, SMALL_BUFFER))

        async def all_of_it() -> str:
            await read(b"\r\n0\r\n\r\n")
            return received.decode()

        await read(b"retry: 1000")
        yield all_of_it


@pytest.fixture(scope="module")
async def site(installer: Installer) -> AsyncIterator[Served]:
    async with served(await installer.install()) as site:
        yield site


@pytest.fixture
async def client(site: Served) -> AsyncIterator[httpx.AsyncClient]:
    """An operator's own, with a key of its own, so that streams of other tests are not counted."""
    _, key = await site.key_of(Role.OPERATOR)
    async with client_of(site, key) as client:
        yield client


@pytest.fixture
async def database(site: Served) -> AsyncIterator[Connection]:
    async with connected(site.api.settings) as connection:
        yield connection


@pytest.fixture
async def tell(site: Served, database: Connection) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Writes events of these names, in one transaction, and gives notice as a worker does."""
    async with connect_redis(site.api.settings) as redis:

        async def tell(topic: str, *names: str, filling: int = 0) -> None:
            await database.execute(
                "INSERT INTO events (command_id, name, topics, fields, at)"
                " SELECT gen_random_uuid(), name, ARRAY[$1], json_build_object('filling', repeat('x', $3)), now()"
                " FROM unnest($2::text[]) AS name",
                topic,
                names,
                filling,
            )
            await redis.publish(OUTCOMES_CHANNEL, str(uuid4()))

        yield tell


Tell = Callable[..., Awaitable[None]]


async def test_a_stream_begins_with_its_place_and_goes_on_with_events(
    client: httpx.AsyncClient, tell: Tell, database: Connection
) -> None:
    await tell("market", "before")
    end = (await read_end(database)).cursor
    async with opened(client, "/v1/events?topic=market&topic=nft:1") as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert await stream.message() == {"id": str(end), "retry": "1000"}
        await tell("market", "nft.priced")
        await tell("nft:2", "unasked")
        await tell("nft:1", "nft.sold")
        first, second = await stream.event(), await stream.event()
    assert (first.name, second.name) == ("nft.priced", "nft.sold")
    row = await database.fetchrow("SELECT * FROM events WHERE name = 'nft.priced'")
    assert row is not None
    assert first.told == {
        "id": f"{row['txid']}-{row['id']}",
        "name": "nft.priced",
        "command_id": str(row["command_id"]),
        "topics": ["market"],
        "at": row["at"].isoformat().replace("+00:00", "Z"),
        "fields": {"filling": ""},
    }
    assert first["id"] == first.told["id"]
    assert end < Cursor.parse(first["id"]) < Cursor.parse(second["id"])


@pytest.mark.parametrize("way", ["header", "query"])
async def test_a_stream_resumes_after_the_last_event(client: httpx.AsyncClient, tell: Tell, way: str) -> None:
    topic = f"nft:{next(users)}"
    path = f"/v1/events?topic={topic}"
    async with opened(client, path) as stream:
        await tell(topic, "one", "two", "three")
        assert await stream.names(2) == ["one", "two"]
        last_id = stream.last_id
    await tell(topic, "four")
    headers = {"Last-Event-ID": last_id} if way == "header" else {}
    async with opened(client, path if headers else f"{path}&after={last_id}", headers=headers) as stream:
        assert await stream.names(2) == ["three", "four"]
        await tell(topic, "five")
        assert await stream.names(1) == ["five"]


async def test_the_header_of_a_browser_that_reconnects_goes_before_the_address(
    client: httpx.AsyncClient, tell: Tell
) -> None:
    topic = f"nft:{next(users)}"
    await tell(topic, "one", "two")
    path = f"/v1/events?topic={topic}&after=0-0"
    async with opened(client, path) as stream:
        assert await stream.names(1) == ["one"]
        last_id = stream.last_id
    async with opened(client, path, headers={"Last-Event-ID": last_id}) as stream:
        assert await stream.names(1) == ["two"]


async def test_a_stream_resumed_between_two_commits_out_of_order_misses_nothing(
    site: Served, client: httpx.AsyncClient, tell: Tell
) -> None:
    path = "/v1/events?topic=market"
    async with AsyncExitStack() as stack:
        stream = await stack.enter_async_context(opened(client, path))
        await tell("market", "first")
        assert await stream.names(1) == ["first"]
        async with telling(site.api.settings, "slow"):
            await tell("market", "quick")
            resumed = await stack.enter_async_context(opened(client, path, headers={"Last-Event-ID": stream.last_id}))
            assert await resumed.message() == {"id": stream.last_id, "retry": "1000"}
        await tell("market", "last")
        assert await stream.names(3) == ["slow", "quick", "last"]
        assert await resumed.names(3) == ["slow", "quick", "last"]


async def test_a_stream_without_notices_is_late_and_loses_nothing(site: Served, client: httpx.AsyncClient) -> None:
    async with opened(client, "/v1/events?topic=market") as stream:
        await stream.message()
        async with telling(site.api.settings, "unnoticed"):
            pass
        assert await stream.names(1) == ["unnoticed"]


async def test_while_redis_is_away_a_stream_is_a_little_late_and_loses_nothing(installer: Installer) -> None:
    settings = await installer.install()
    async with (
        served(settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1")})) as site,
        client_of(site, site.key) as client,
        opened(client, "/v1/events?topic=market") as stream,
    ):
        await stream.message()
        for name in ("one", "two"):
            async with telling(settings, name):
                pass
            assert await stream.names(1) == [name]


async def test_a_beat_tells_where_an_idle_client_resumes(
    client: httpx.AsyncClient, tell: Tell, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BEAT_SECONDS", 0.1)
    async with opened(client, f"/v1/events?topic=nft:{next(users)}") as stream:
        await stream.message()
        await tell("market", "elsewhere")
        end = str((await read_end(database)).cursor)
        messages = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while stream.last_id != end:
                messages.append(await stream.message())
    assert all(message["comment"] == "ping" and "data" not in message for message in messages)


# -- one command


async def test_the_stream_of_a_command_tells_its_receipt_and_ends_when_it_is_final(
    site: Served, client: httpx.AsyncClient
) -> None:
    receipt = await site.api.send(register(next(users)))
    async with opened(client, f"/v1/commands/{receipt['id']}/stream") as stream:
        first = await stream.event()
        assert (first.name, first["id"], first.told) == ("receipt", "accepted", receipt)
        await execute({"settings": site.api.settings}, receipt["id"])
        [last] = await stream.rest()
    final = (await client.get(receipt["links"]["self"])).json()
    assert (last.name, last["id"], last.told) == ("receipt", "succeeded", final)
    async with opened(client, f"/v1/commands/{receipt['id']}/stream") as stream:
        [only] = await stream.rest()
        assert only.told == final


async def test_a_browser_that_has_the_final_receipt_is_told_to_stop(site: Served, client: httpx.AsyncClient) -> None:
    [receipt] = await site.api.settle([register(next(users))])
    path = f"/v1/commands/{receipt['id']}/stream"
    assert (await client.get(path, headers={"Last-Event-ID": receipt["status"]})).status_code == 204
    async with opened(client, path, headers={"Last-Event-ID": "accepted"}) as stream:
        assert (await stream.event()).told == receipt


async def test_the_stream_of_a_command_is_its_owners(site: Served, client: httpx.AsyncClient) -> None:
    receipt = await site.api.send(register(next(users)))
    _, key = await site.key_of(Role.USER, 1)
    async with client_of(site, key) as stranger:
        for command_id in (receipt["id"], uuid4(), "x"):
            assert_problem(await stranger.get(f"/v1/commands/{command_id}/stream"), 404, "not_found")
    for command_id in (uuid4(), "x"):
        assert_problem(await client.get(f"/v1/commands/{command_id}/stream"), 404, "not_found")


# -- pages


async def test_pages_give_what_streams_do(client: httpx.AsyncClient, tell: Tell) -> None:
    topic = f"nft:{next(users)}"
    path = f"/v1/events?topic={topic}"
    json_please = {"Accept": "application/json"}
    start = (await client.get(path, headers=json_please)).json()
    assert (start["items"], start["more"]) == ([], False)
    await tell(topic, *map(str, range(45)))
    seen, cursor, more = [], start["next"], True
    while more:
        page = (await client.get(f"{path}&after={cursor}&limit=20", headers=json_please)).json()
        seen += page["items"]
        cursor, more = page["next"], page["more"]
    assert [event["name"] for event in seen] == [str(number) for number in range(45)]
    assert (await client.get(f"{path}&after={cursor}", headers=json_please)).json()["items"] == []
    async with opened(client, f"{path}&after={start['next']}") as stream:
        assert [(await stream.event()).told for _ in range(45)] == seen


@pytest.mark.parametrize("limit", ["0", "101", "x", "1.5"])
async def test_a_page_has_its_limits(client: httpx.AsyncClient, limit: str) -> None:
    answer = await client.get(f"/v1/events?topic=market&limit={limit}", headers={"Accept": "application/json"})
    assert_problem(answer, 422, "invalid", ["limit"])


# -- who may


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json", "*/*"])
async def test_topics_that_are_private_to_a_user_are_private(site: Served, accept: str) -> None:
    _, key = await site.key_of(Role.USER, 42)
    async with client_of(site, key, Accept=accept) as user, client_of(site, None, Accept=accept) as nobody:
        for topic in ("user:43", "user:999999", "ops"):
            assert_problem(await user.get(f"/v1/events?topic=market&topic={topic}"), 403, "forbidden")
        assert_problem(await nobody.get("/v1/events?topic=market"), 401, "unauthenticated")


async def test_a_user_hears_of_own_things(site: Served, tell: Tell) -> None:
    user_id = next(users)
    _, key = await site.key_of(Role.USER, user_id)
    async with client_of(site, key) as user, opened(user, f"/v1/events?topic=user:{user_id}") as stream:
        await tell("user:1", "not this")
        await tell(f"user:{user_id}", "balance.changed")
        assert await stream.names(1) == ["balance.changed"]


@pytest.mark.parametrize(
    ("query", "headers", "paths"),
    [
        ("", {}, ["topic"]),
        ("topic=nope", {}, ["topic"]),
        ("topic=market&after=x", {}, ["after"]),
        ("topic=market&after=", {}, ["after"]),
        ("topic=market", {"Last-Event-ID": "x"}, ["last-event-id"]),
        ("topic=market", {"Last-Event-ID": "1-2-3"}, ["last-event-id"]),
        (f"topic=market&after={2**63 - 1}-0", {}, ["after"]),
        ("topic=market&limit=3", {}, ["limit"]),
        ("topic=market&token=x", {}, ["token"]),
    ],
)
async def test_what_is_asked_wrongly_is_refused_before_the_stream_begins(
    client: httpx.AsyncClient, query: str, headers: dict[str, str], paths: list[str]
) -> None:
    assert_problem(await client.get(f"/v1/events?{query}", headers=headers), 422, "invalid", paths)


async def test_a_stream_can_be_got_and_nothing_else(client: httpx.AsyncClient) -> None:
    for path in ("/v1/events?topic=market", f"/v1/commands/{uuid4()}/stream"):
        for method in ("POST", "PUT", "DELETE"):
            assert_problem(await client.request(method, path), 405, "method_not_allowed")
    head = await client.head("/v1/events?topic=market")
    assert (head.status_code, head.content) == (200, b"")


async def test_a_key_has_so_many_streams(site: Served, client: httpx.AsyncClient) -> None:
    path = "/v1/events?topic=market"
    async with AsyncExitStack() as stack:
        open_ones = [await stack.enter_async_context(opened(client, path)) for _ in range(STREAMS_MAX)]
        for stream in open_ones:
            await stream.message()
        for _ in range(5):
            problem = assert_problem(await client.get(path), 429, "too_many_requests")
            assert problem["limit"] == STREAMS_MAX
        _, other = await site.key_of(Role.SERVICE)
        async with client_of(site, other) as another, opened(another, path) as stream:
            await stream.message()

    async def there_is_room() -> bool:
        async with client.stream("GET", path) as response:
            return response.status_code == 200

    await eventually(there_is_room)
    for _ in range(2 * STREAMS_MAX):  # what is refused or never begins takes no place
        assert (await client.head(path)).status_code == 200
        assert (await client.get("/v1/events?topic=nope")).status_code == 422


# -- how a stream ends


@pytest.mark.parametrize("busy", [False, True])
async def test_a_revoked_key_ends_its_streams(
    site: Served, tell: Tell, monkeypatch: pytest.MonkeyPatch, *, busy: bool
) -> None:
    monkeypatch.setattr(streams, "BEAT_SECONDS", 0.2)
    receipt = await site.api.send(register(next(users)))
    key_id, key = await site.key_of(Role.OPERATOR)
    async with (
        client_of(site, key) as client,
        opened(client, "/v1/events?topic=market") as events,
        opened(client, f"/v1/commands/{receipt['id']}/stream") as command,
    ):
        await events.message()
        await command.message()
        await revoke_key(site.api.engine, key_id)
        reading = asyncio.gather(events.rest(), command.rest())
        while busy and not reading.done():
            await tell("market", "for those who may")
        [*_, last_event], [*_, last_receipt] = await reading
        assert (last_event.name, last_event.told["reason"]) == ("resume", "credential")
        assert last_event.told["after"] == events.last_id
        assert last_receipt.told == {"reason": "credential"}
        assert_problem(await client.get("/v1/events?topic=market"), 401, "unauthenticated")


async def test_a_client_that_does_not_read_is_told_where_to_resume(
    site: Served, client: httpx.AsyncClient, tell: Tell
) -> None:
    """Another that reads hears everything meanwhile."""
    topic, count = f"nft:{next(users)}", 4_000
    path, names = f"/v1/events?topic={topic}", [str(number) for number in range(count)]
    _, key = await site.key_of(Role.OPERATOR)
    async with opened(client, path) as quick, unread(site, path, key) as all_of_it:
        for number in range(0, count, 100):
            portion = names[number : number + 100]
            await tell(topic, *portion, filling=2_000)
            assert await quick.names(100) == portion
        text = await all_of_it()
    last_id = re.findall(r"^id: (\S+)$", text, re.MULTILINE)[-1]
    assert f'event: resume\ndata: {{"after":"{last_id}","reason":"slow"}}\nretry: 1000\n' in text
    told = text.count("\nevent: ") - 1
    assert 0 < told < count - BUFFER_MAX
    async with opened(client, f"{path}&after={last_id}") as stream:
        assert await stream.names(count - told) == names[told:]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such patience")
def test_the_system_drops_a_connection_that_takes_nothing(site: Served) -> None:
    config = make_server(cast("Starlette", site.server.config.app), "127.0.0.1", 0).config
    with listen(config) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            patience = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert patience == STALLED_SECONDS * 1_000


async def test_a_drain_tells_streams_to_reconnect_and_is_over_soon(installer: Installer) -> None:
    async with served(await installer.install()) as site:
        receipt = await site.api.send(register(next(users)))
        async with (
            client_of(site, site.key) as client,
            opened(client, "/v1/events?topic=market") as events,
            opened(client, f"/v1/commands/{receipt['id']}/stream") as command,
        ):
            await events.message()
            await command.message()
            site.server.should_exit = True
            async with asyncio.timeout(5):
                [last] = await events.rest()
                assert (last.name, last.told, last["retry"]) == (
                    "resume",
                    {"after": events.last_id, "reason": "restart"},
                    "1000",
                )
                [last] = await command.rest()
                assert (last.name, last.told) == ("resume", {"reason": "restart"})


# -- sessions


async def test_a_session_opens_streams_and_nothing_else(site: Served, tell: Tell) -> None:
    user_id = next(users)
    _, key = await site.key_of(Role.USER, user_id)
    async with client_of(site, key) as page, client_of(site, None) as browser:
        begun = await page.post("/v1/session")
        assert begun.status_code == 200
        cookie = begun.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/v1", "Max-Age=900"} <= set(cookie.split("; "))
        assert "Secure" not in cookie.split("; ")  # plain HTTP on this machine
        token = begun.cookies["souk_session"]
        browser.cookies.set("souk_session", token, path="/v1")
        async with opened(browser, f"/v1/events?topic=user:{user_id}") as stream:
            await tell(f"user:{user_id}", "balance.changed")
            assert await stream.names(1) == ["balance.changed"]
        assert_problem(await browser.get("/v1/events?topic=ops"), 403, "forbidden")
        assert_problem(await browser.get("/v1/commands"), 401, "unauthenticated")
        assert_problem(await browser.post("/v1/session"), 401, "unauthenticated")
        as_page = await browser.get("/v1/events?topic=market", headers={"Accept": "application/json"})
        assert_problem(as_page, 401, "unauthenticated")
        as_key = await browser.get("/v1/events?topic=market", headers={"Authorization": f"Bearer {token}"})
        assert_problem(as_key, 401, "unauthenticated")
        elsewhere = await browser.get("/v1/events?topic=market", headers={"Origin": "https://elsewhere.example"})
        assert_problem(elsewhere, 401, "unauthenticated")
        async with opened(browser, "/v1/events?topic=market", headers={"Origin": site.base_url}) as stream:
            await stream.message()
        assert (await browser.delete("/v1/session")).status_code == 204
        browser.cookies.set("souk_session", token, path="/v1")

        async def is_over() -> bool:
            async with browser.stream("GET", "/v1/events?topic=market") as response:
                return response.status_code == 401

        await eventually(is_over)


async def test_a_session_ends_with_its_key_and_with_its_time(
    site: Served, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BEAT_SECONDS", 0.2)
    for ends in ("key", "time"):
        key_id, key = await site.key_of(Role.OPERATOR)
        async with client_of(site, key) as page, client_of(site, None) as browser:
            browser.cookies.set("souk_session", (await page.post("/v1/session")).cookies["souk_session"], path="/v1")
            async with opened(browser, "/v1/events?topic=market") as stream:
                await stream.message()
                if ends == "key":
                    await revoke_key(site.api.engine, key_id)
                else:
                    await database.execute("UPDATE sessions SET expires_at = now() WHERE key_id = $1", key_id)
                [last] = await stream.rest()
                assert last.told["reason"] == "credential"


async def test_a_key_has_so_many_sessions_and_old_ones_are_cleared_away(site: Served, database: Connection) -> None:
    key_id, key = await site.key_of(Role.OPERATOR)
    async with client_of(site, key) as page:
        for _ in range(22):
            await page.post("/v1/session")
        count = "SELECT count(*) FROM sessions WHERE key_id = $1"
        assert await database.fetchval(count, key_id) == 20
        await database.execute("UPDATE sessions SET expires_at = now() - interval '1 second'")
        await page.post("/v1/session")
        assert await database.fetchval("SELECT count(*) FROM sessions") == 1


async def test_a_session_elsewhere_is_for_secure_connections(site: Served) -> None:
    _, key = await site.key_of(Role.OPERATOR)
    async with client_of(site, key) as page:
        for host, secure in (("souk.example", True), ("localhost:8000", False), ("[::1]:8000", False)):
            begun = await page.post("/v1/session", headers={"Host": host})
            assert ("Secure" in begun.headers["set-cookie"].split("; ")) is secure, host
