"""APIs and workers by the number, beside the API that a stack of our own already has."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import asyncpg

from loadtest.client import open_client
from loadtest.stack import SOUK, StackFailed, Target
from souk_client import Client, Unreachable

START_SECONDS = 30.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.05

_WORKED = """
SELECT id, batches, commands, round_trips FROM workers
WHERE split_part(id, ':', 2)::integer = ANY($1::integer[]) ORDER BY id
"""
_SHARES = "SELECT count(*) FROM partitions GROUP BY owner HAVING owner = ANY($1::text[]) ORDER BY 1"
_OTHERS = "SELECT count(*) FROM partitions WHERE owner IS NULL OR owner <> ALL($1::text[])"


class Worked(NamedTuple):
    """By a worker since it started."""

    batches: int
    commands: int
    round_trips: int


@dataclass
class Staff:
    """A client of each API, and the workers. `executed`: commands that they have been given so far."""

    clients: list[Client]
    postgres: "asyncpg.Connection[Any]"
    pids: list[int]
    executed: int = 0

    async def worked(self) -> dict[str, Worked]:
        """What each worker has done, once they tell of all that was executed. Raises StackFailed."""
        deadline = monotonic() + START_SECONDS
        while True:
            found = await self._known()
            if sum(worked.commands for worked in found.values()) >= self.executed:
                return found
            if monotonic() > deadline:
                message = f"the workers tell of less than the {self.executed} commands that were executed"
                raise StackFailed(message)
            await asyncio.sleep(LOOK_SECONDS)

    async def partitions(self) -> list[int]:
        """How many each worker has, in ascending order."""
        return [row[0] for row in await self.postgres.fetch(_SHARES, list(await self._known()))]

    async def ready(self) -> None:
        """All partitions are theirs, in even shares, and all APIs answer."""
        await _until(self._shared)
        for client in self.clients:
            await _until(partial(_is_ready, client))

    async def _known(self) -> dict[str, Worked]:
        return {row[0]: Worked(*row[1:]) for row in await self.postgres.fetch(_WORKED, self.pids)}

    async def _shared(self) -> bool:
        if await self.postgres.fetchval(_OTHERS, list(await self._known())):
            return False
        shares = await self.partitions()
        return len(shares) == len(self.pids) and shares[-1] - shares[0] <= 1


@asynccontextmanager
async def staffed(
    target: Target, postgres: "asyncpg.Connection[Any]", *, apis: int, workers: int, connections: int
) -> AsyncIterator[Staff]:
    """So many of each, ready; the target's own API is the first. Raises StackFailed."""
    ports = [_free_port() for _ in range(apis - 1)]
    urls = [target.url, *(f"http://127.0.0.1:{port}" for port in ports)]
    commands = [*(["api", "--port", str(port)] for port in ports), *(["worker"] for _ in range(workers))]
    environment = {**os.environ, **target.environment}
    children = [await asyncio.create_subprocess_exec(*SOUK, *command, env=environment) for command in commands]
    try:
        async with AsyncExitStack() as open_clients:
            clients = [
                await open_clients.enter_async_context(open_client(url, target.key, connections)) for url in urls
            ]
            staff = Staff(clients, postgres, [child.pid for child in children[len(ports) :]])
            try:
                async with asyncio.timeout(START_SECONDS):
                    await staff.ready()
            except TimeoutError:
                message = f"{apis} APIs and {workers} workers were not at work after {START_SECONDS} s"
                raise StackFailed(message) from None
            yield staff
    finally:
        statuses = await _end(children)
    if any(statuses):
        message = f"processes that were asked to end did so with status {statuses}"
        raise StackFailed(message)


async def _end(children: Sequence[asyncio.subprocess.Process]) -> list[int]:
    for child in children:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
    statuses = []
    for child in children:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                statuses.append(await child.wait())
        except TimeoutError:
            child.kill()
            statuses.append(await child.wait())
    return statuses


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():  # noqa: ASYNC110 - other processes are looked at
        await asyncio.sleep(LOOK_SECONDS)


async def _is_ready(client: Client) -> bool:
    with suppress(Unreachable):
        return (await client.request("GET", "/readyz", timeout_seconds=1)).status == 200  # noqa: PLR2004
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
