"""The WebSocket of real processes: what is acknowledged on it survives them."""

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.deadline import eventually
from tests.market import register
from tests.system.site import Site, end

KILL_AFTER = 300
WINDOW = 150
"""Submissions without an answer: more than the API reads ahead, so that it is always behind."""
FIRST_USER = 70_000


@asynccontextmanager
async def connected(site: Site) -> AsyncIterator[ClientConnection]:
    address = str(site.client.base_url).replace("http", "ws", 1).rstrip("/")
    headers = {"Authorization": f"Bearer {site.key}"}
    async with connect(f"{address}/v1/ws", additional_headers=headers, proxy=None, close_timeout=1) as connection:
        yield connection


async def submit_until_closed(connection: ClientConnection, enough: asyncio.Event) -> tuple[dict[str, str], int | None]:
    """The last status told of each command, by its id, and the code of the end."""
    told: dict[str, str] = {}
    window = asyncio.Semaphore(WINDOW)

    async def send() -> None:
        for user in itertools.count(FIRST_USER):
            await window.acquire()
            await connection.send(json.dumps({"op": "submit", "id": user, "command": register(user)}))

    sending = asyncio.create_task(send())
    try:
        while True:
            message: dict[str, Any] = json.loads(await connection.recv())
            assert message["type"] == "receipt", message
            if message["receipt"]["id"] not in told:
                window.release()
            told[message["receipt"]["id"]] = message["receipt"]["status"]
            if len(told) >= KILL_AFTER:
                enough.set()
    except ConnectionClosed as closed:
        return told, None if closed.rcvd is None else closed.rcvd.code
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def assert_all_happened(site: Site, told: dict[str, str]) -> None:
    await eventually(site.all_are_finished, 60)
    rows = await site.rows("SELECT id::text, status FROM commands")
    stored = dict(rows)
    assert told.keys() <= stored.keys()
    assert set(stored.values()) == {"succeeded"}
    assert set(told.values()) <= {"accepted", "succeeded"}


async def test_killing_the_api_loses_no_acknowledged_command(site: Site) -> None:
    site.start_worker()
    await site.start_api()
    enough = asyncio.Event()
    async with connected(site) as connection:
        submitting = asyncio.create_task(submit_until_closed(connection, enough))
        await asyncio.wait_for(enough.wait(), 60)
        site.processes[-1].kill()
        told, _ = await asyncio.wait_for(submitting, 60)
    assert len(told) >= KILL_AFTER
    await assert_all_happened(site, told)


async def test_a_draining_api_acknowledges_all_it_accepted_then_closes(site: Site) -> None:
    site.start_worker()
    await site.start_api()
    enough = asyncio.Event()
    async with connected(site) as connection:
        submitting = asyncio.create_task(submit_until_closed(connection, enough))
        await asyncio.wait_for(enough.wait(), 60)
        assert await asyncio.to_thread(end, site.processes[-1], signal.SIGTERM) == 0
        told, code = await asyncio.wait_for(submitting, 60)
    assert code == 1012
    await assert_all_happened(site, told)
    assert await site.value("SELECT count(*) FROM commands") == len(told)
