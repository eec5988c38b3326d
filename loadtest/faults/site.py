"""Real servers and processes to break: PostgreSQL, Redis, some APIs and workers, each started again when it ends.

The servers are started by the project's own hands: here alone the campaign is no stranger.
"""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import httpx
from pydantic_core import from_json
from redis.asyncio import Redis

from loadtest.faults.redises import SentinelSet, sentinel_set
from loadtest.stack import SOUK
from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.1


class Redises(StrEnum):
    """What Redis is: one server; or a master, its replica and three sentinels."""

    ONE = "one"
    SENTINEL = "sentinel"


def redis_of(kind: Redises, directory: Path) -> AbstractContextManager[EmbeddedRedis | SentinelSet]:
    """Runs within the context."""
    if kind is Redises.SENTINEL:
        return sentinel_set(directory / "sentinel", replicas=1)
    return EmbeddedRedis(directory)


class Process:
    """One of ours, with its log; `asleep` while it is stopped by a signal."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log = log
        self.starts = 0
        self.child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*SOUK, *self._command],
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.child.send_signal(number)

    def restart_if_ended(self) -> None:
        if self.child.poll() is not None:
            self.child = self._start()


class Site:
    """An installation that can be broken. `partitions` and `lease_seconds` are known once it has started."""

    def __init__(
        self,
        directory: Path,
        redis: EmbeddedRedis | SentinelSet,
        *,
        apis: int,
        workers: int,
        settings: Mapping[str, str],
    ) -> None:
        self.postgres = EmbeddedPostgres(directory)
        self.redis = redis
        self._directory = directory
        self._api_count, self._worker_count = apis, workers
        self._settings = settings
        self.partitions = 0
        self.lease_seconds = 0.0
        self.urls: list[str] = []
        self.key = ""
        self.apis: list[Process] = []
        self.workers: list[Process] = []
        self.watching = True

    @property
    def environment(self) -> dict[str, str]:
        return {**self._settings, "SOUK_DATABASE_URL": self.postgres.url, "SOUK_REDIS_URL": self.redis.url}

    @property
    def processes(self) -> list[Process]:
        return [*self.apis, *self.workers]

    @asynccontextmanager
    async def connected(self) -> "AsyncIterator[asyncpg.Connection[Any]]":
        connection = await asyncpg.connect(self.postgres.url)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def talking_to_redis(self) -> AsyncIterator[Redis]:
        """To the one server, or to that which is the master now."""
        server = self.redis if isinstance(self.redis, EmbeddedRedis) else await asyncio.to_thread(self.redis.master)
        redis = Redis.from_url(server.url, socket_timeout=5)
        try:
            yield redis
        finally:
            await redis.aclose()

    async def start(self, logs: str) -> None:
        """`logs` is SQL for what is to watch the database from before the first worker on."""
        self._souk("migrate")
        async with self.connected() as connection:
            await connection.execute(logs)
        key, settings = await asyncio.gather(
            asyncio.to_thread(self._souk, "keys", "create", "--role", "operator"),
            asyncio.to_thread(self._souk, "config"),
        )
        self.key = from_json(key)["key"]
        config = {row["setting"]: row["value"] for row in from_json(settings)}
        self.partitions = int(config["SOUK_PARTITIONS"])
        self.lease_seconds = float(config["SOUK_LEASE_SECONDS"])
        for number in range(self._api_count):
            port = _free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            self.apis.append(self._process(f"api {number}", "api", "--port", str(port)))
        self.workers = [self._process(f"worker {number}", "worker") for number in range(self._worker_count)]
        await self.until_ready()

    def _souk(self, *command: str) -> str:
        done = subprocess.run(
            [*SOUK, *command],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=READY_SECONDS,
        )
        return done.stdout

    def _process(self, name: str, *command: str) -> Process:
        return Process(name, list(command), self.environment, self._directory / f"{name}.log")

    async def until_ready(self) -> None:
        deadline = monotonic() + READY_SECONDS
        async with httpx.AsyncClient() as client:
            for url in self.urls:
                while True:
                    with suppress(httpx.TransportError):
                        if (await client.get(f"{url}/readyz")).status_code == httpx.codes.OK:
                            break
                    if monotonic() > deadline:
                        raise TimeoutError(url)
                    await asyncio.sleep(LOOK_SECONDS)

    async def watch(self) -> None:
        """Start again what ends, as any supervisor does."""
        while True:
            if self.watching:
                for process in self.processes:
                    process.restart_if_ended()
            await asyncio.sleep(LOOK_SECONDS)

    def stop(self) -> dict[str, int]:
        """Ends all in good order; the exit status of each."""
        for process in self.processes:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        return {process.name: process.child.wait(STOP_SECONDS) for process in self.processes}

    def kill(self) -> None:
        for process in self.processes:
            process.send(signal.SIGKILL)
            process.child.wait()

    def tracebacks(self) -> list[str]:
        """Processes whose logs tell of a bug."""
        return [path.name for path in self._directory.glob("*.log") if "Traceback" in path.read_text(errors="replace")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
