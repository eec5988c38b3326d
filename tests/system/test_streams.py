"""A stream that is cut again and again, by its client, by drains and by kills of the API: each event once, in order."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import httpx
from httpx_sse import EventSource

from storage.embedded.stack import free_port
from storage.feed import Cursor
from storage.keys import Role, create_key
from tests.deadline import eventually
from tests.installation import connected
from tests.system.processes import Process
from tests.system.site import START_SECONDS, STOP_SECONDS, Site

CUTS = 200
WRITERS = 4
SILENCE_SECONDS = 20
TOPICS = ("nft:1", "market")

# Of no command, and named so that the audit does not miss one.
_WRITE = """
INSERT INTO events (command_id, name, topics, fields, at)
SELECT NULL, 'webhook.disabled', ARRAY[topic], '{}', now()
FROM unnest(ARRAY['nft:1', 'nft:2', 'market']) AS topic WHERE random() < 0.5
"""


class Apis:
    """API processes side by side; a client may ask any of them."""

    def __init__(self, site: Site, key: str) -> None:
        self._site = site
        self._headers = {"Authorization": f"Bearer {key}"}
        self._running: list[tuple[Process, httpx.AsyncClient]] = []

    async def start(self) -> None:
        port = free_port("127.0.0.1")
        process = self._site.start("api", "--port", str(port))
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=self._headers, timeout=SILENCE_SECONDS)

        async def ready() -> bool:
            assert process.poll() is None, self._site.log()
            with suppress(httpx.TransportError):
                return (await client.get("/readyz")).is_success
            return False

        await eventually(ready, START_SECONDS)
        self._running.append((process, client))

    async def replace(self, end: signal.Signals) -> None:
        """Start another, then end the oldest."""
        await self.start()
        process, client = self._running.pop(0)
        process.send_signal(end)
        began = time.monotonic()

        async def ended() -> bool:
            return process.poll() is not None

        await eventually(ended, STOP_SECONDS)
        if end is signal.SIGTERM:
            assert (process.returncode, time.monotonic() - began < 5) == (0, True)
        await client.aclose()

    def any(self) -> httpx.AsyncClient:
        return random.choice(self._running)[1]

    async def close(self) -> None:
        for _, client in self._running:
            await client.aclose()


async def events(apis: Apis, last_id: str) -> AsyncGenerator[tuple[str, str]]:
    """What one connection gives after `last_id`: each id, with the name when it is of an event."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with suppress(httpx.TransportError):  # the API was killed
        async with apis.any().stream("GET", "/v1/events", params={"topic": TOPICS}, headers=headers) as response:
            if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # it is about to end
                return
            assert response.status_code == httpx.codes.OK, await response.aread()
            async for event in EventSource(response).aiter_sse():
                if event.event == "resume":
                    assert event.json() == {"after": event.id, "reason": "restart"}
                    return
                yield event.id, event.event if event.data else ""


async def write(site: Site, stop: asyncio.Event) -> None:
    """Transactions of any length, so that they commit in any order."""
    async with connected(site.settings) as connection:
        while not stop.is_set():
            async with connection.transaction():
                await connection.execute(_WRITE)
                await connection.execute("SELECT pg_sleep(random() ^ 3 * 0.1)")
                await connection.execute(_WRITE)
            await asyncio.sleep(random.random() * 0.02)


async def test_a_client_that_is_cut_two_hundred_times_sees_each_event_once_in_order(site: Site) -> None:
    _, key = await create_key(site.engine, Role.SERVICE)
    apis = Apis(site, key)
    await apis.start()
    await apis.start()
    stop = asyncio.Event()
    writing = [asyncio.create_task(write(site, stop)) for _ in range(WRITERS)]
    ends = iter([signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL])
    replacing: asyncio.Task[None] | None = None
    seen: list[str] = []
    last_id = "0-0"
    cuts = 0
    while cuts < CUTS or replacing is not None:
        if replacing is None or replacing.done():
            if replacing is not None:
                await replacing
            end = next(ends, None)
            replacing = None if end is None else asyncio.create_task(apis.replace(end))
        until = time.monotonic() + random.random() ** 2
        async with aclosing(events(apis, last_id)) as connection:
            async for last_id, name in connection:
                if name:
                    seen.append(last_id)
                if time.monotonic() > until or random.random() < 0.05:
                    break
        cuts += 1
    stop.set()
    await asyncio.gather(*writing)
    due = [
        str(Cursor(int(txid), id_))
        for txid, id_ in await site.rows(
            "SELECT txid::text, id FROM events WHERE topics && ARRAY['nft:1', 'market'] ORDER BY events.txid, id"
        )
    ]
    async with asyncio.timeout(SILENCE_SECONDS):
        while last_id != due[-1]:
            async with aclosing(events(apis, last_id)) as connection:
                async for last_id, name in connection:
                    if name:
                        seen.append(last_id)
                    if last_id == due[-1]:
                        break
    await apis.close()
    assert len(due) > CUTS
    assert seen == due
