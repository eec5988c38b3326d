"""An installation worked on by real processes, and a load of trades that shows any loss, repeat or disorder."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import httpx
import psutil

from storage.audit import audit
from storage.embedded.stack import free_port
from storage.keys import Role, create_key
from storage.postgres.connection import Connection
from storage.postgres.connection import engine as make_engine
from storage.settings import Settings
from tests.deadline import eventually
from tests.installation import PASSWORD, as_environment, connected
from tests.market import TON, buy, fund, receive, register, set_price
from tests.system.processes import PROJECT, Process

START_SECONDS = 60
STOP_SECONDS = 20
CONNECTIONS_MAX = 100


class Site:
    """Processes of one installation, their logs in a directory; nothing of it outlives the context."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.settings = settings
        self.engine = make_engine(settings)
        self.directory = directory
        self.processes: list[Process] = []
        self.client = httpx.AsyncClient(timeout=60)
        self.key = ""
        self._connection: Connection | None = None
        self._looking = asyncio.Lock()
        self._told: dict[Path, int] = {}

    # -- processes

    def start(self, *command: str, program: str = "souk", log: Path | None = None) -> Process:
        log = log or self.directory / f"{len(self.processes)}-{command[0]}.log"
        process = Process(program, command, os.environ | as_environment(self.settings), log)
        self.processes.append(process)
        return process

    def output(self, *command: str) -> str:
        """What the command line says, which must end well."""
        done = subprocess.run(
            [sys.executable, "-m", "souk", *command],
            cwd=PROJECT,
            env=os.environ | as_environment(self.settings) | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_arq(self, *options: str) -> "subprocess.Popen[bytes]":
        """Arq's own command line on our worker settings."""
        command = [sys.executable, "-m", "arq", "workers.settings.WorkerSettings", *options]
        return subprocess.Popen(command, cwd=PROJECT, env=os.environ | as_environment(self.settings))

    async def is_healthy(self) -> bool:
        """What `arq --check` says."""
        return await asyncio.to_thread(self.start_arq("--check").wait, START_SECONDS) == 0

    def start_worker(self) -> Process:
        return self.start("worker")

    async def start_api(self) -> None:
        """Returns when it is ready; `client` asks it as an operator."""
        _, self.key = await create_key(self.engine, Role.OPERATOR)
        port = free_port("127.0.0.1")
        process = self.start("api", "--port", str(port))
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX),
        )

        async def ready() -> bool:
            assert process.poll() is None, self.log()
            try:
                return (await self.client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready, START_SECONDS)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    def _new_log(self) -> str:
        new = ""
        for path in sorted(self.directory.glob("*.log")):
            text = path.read_text()
            new += text[self._told.get(path, 0) :]
            self._told[path] = len(text)
        return new

    async def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        await self.client.aclose()
        await self.engine.dispose()
        if self._connection is not None:
            await self._connection.close()

    # -- what there is to see

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Each row of a query."""
        async with self._looking:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self.settings.database_url.get_secret_value())
            return [tuple(row) for row in await self._connection.fetch(query)]

    async def value(self, query: str) -> Any:
        """The first value of a query's first row."""
        return (await self.rows(query))[0][0]

    async def finished(self) -> int:
        return int(await self.value("SELECT count(*) FROM commands WHERE finished_at IS NOT NULL"))

    async def all_are_finished(self) -> bool:
        return bool(await self.value("SELECT count(*) = count(finished_at) FROM commands"))

    async def owners(self) -> dict[str | None, int]:
        """How many partitions each worker has."""
        rows = await self.rows("SELECT owner, count(*) FROM partitions GROUP BY owner")
        return {row[0]: row[1] for row in rows}

    async def assert_sound(self) -> None:
        """The audit holds, and no process told a secret or fell over since this was asked last."""
        broken = {finding.name: finding.broken for finding in await audit(self.engine, self.settings) if finding.broken}
        assert not broken
        log = self._new_log()
        assert "Traceback" not in log, log
        for secret in (PASSWORD, self.key):
            assert not secret or secret not in log

    # -- commands

    async def submit(self, commands: Sequence[Mapping[str, Any]], wait: int = 0) -> list[dict[str, Any]]:
        """The receipts of a batch, of which none was refused; sent again while the database is away."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            response = await self.client.post("/v1/commands/batch", json={"commands": commands}, headers=headers)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            assert time.monotonic() < deadline, response.text
            await asyncio.sleep(float(response.headers["retry-after"]))
        receipts: list[dict[str, Any]] = response.json()["receipts"]
        assert all("id" in receipt for receipt in receipts), response.text
        return receipts

    async def succeed(self, commands: Sequence[Mapping[str, Any]]) -> None:
        """Submit, and wait until all have succeeded."""
        receipts = await self.submit(commands, wait=30)
        assert {receipt["status"] for receipt in receipts} == {"succeeded"}, receipts


@asynccontextmanager
async def site_of(settings: Settings, directory: Path) -> AsyncIterator[Site]:
    """A site that is found sound when its test has passed."""
    site = Site(settings, directory)
    try:
        yield site
        await site.assert_sound()
    finally:
        await site.close()


@asynccontextmanager
async def account_locked(site: Site, user_id: int) -> AsyncIterator[None]:
    """Within, whoever executes a command that touches the user's money waits in the middle of a transaction."""
    async with connected(site.settings) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE", user_id)
        yield
        await transaction.rollback()


async def until_waiting(site: Site, connections: str = "souk lane") -> None:
    """Until some worker's connection of that name waits for a lock."""

    async def waits() -> bool:
        return bool(
            await site.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                f" AND application_name LIKE '{connections}%' AND wait_event_type = 'Lock'"
            )
        )

    await eventually(waits, claim=f"no {connections} waits for a lock")


@asynccontextmanager
async def batch_under_way(site: Site, user_id: int) -> AsyncIterator[None]:
    """Keeps a user's account locked: within, some worker is in the middle of a transaction, waiting for it."""
    async with account_locked(site, user_id):
        await until_waiting(site)
        yield


class Submits(Protocol):
    """Where commands can be sent; a site, or whatever a test puts before it."""

    async def submit(self, commands: Sequence[Mapping[str, Any]]) -> object: ...


class Trades:
    """Items that go to and fro between two users each: listed by the one, bought by the other, and so on.

    Every command succeeds if, and only if, those of its item are executed in the order sent, each once.
    """

    def __init__(self, items: int = 24, users: int = 8, rounds: int = 30) -> None:
        self.items = range(1, items + 1)
        self.users = range(1, users + 1)
        self._rounds = rounds
        self.commands_total = items * rounds * 4

    def parties(self, item: int) -> tuple[int, int]:
        return self.users[item % len(self.users)], self.users[(item + 1 + item % 3) % len(self.users)]

    def setup(self) -> Iterable[list[dict[str, Any]]]:
        yield [register(user) for user in self.users]
        yield [fund(user, 10_000 * TON) for user in self.users]
        yield [receive(item, self.parties(item)[0]) for item in self.items]

    async def prepare(self, site: Site) -> None:
        for commands in self.setup():
            await site.succeed(commands)

    async def send(self, site: Submits, streams: int = 4) -> None:
        """Send all, in batches of a round, each stream its own items."""

        async def stream(items: Sequence[int]) -> None:
            for number in range(self._rounds):
                price = TON + number
                batch: list[dict[str, Any]] = []
                for item in items:
                    first, second = self.parties(item)
                    batch += [set_price(first, item, price), buy(second, item, price)]
                    batch += [set_price(second, item, price), buy(first, item, price)]
                batch = [command | {"idempotency_key": f"{number}:{place}"} for place, command in enumerate(batch)]
                await site.submit(batch)

        await asyncio.gather(*(stream(self.items[number::streams]) for number in range(streams)))

    async def assert_each_happened_once_in_order(self, site: Site) -> None:
        """Every command has one outcome, and the effects are those of executing each once, in the order sent."""
        statuses = {row[0]: row[1] for row in await site.rows("SELECT status, count(*) FROM commands GROUP BY 1")}
        assert statuses == {"succeeded": 2 * len(self.users) + len(self.items) + self.commands_total}
        assert await site.value("SELECT count(*) FROM deals") == self.commands_total // 2
        owners = {row[0]: row[1] for row in await site.rows("SELECT id, owner_id FROM nfts")}
        assert owners == {item: self.parties(item)[0] for item in self.items}
        executed = """
            SELECT count(*), count(*) FILTER (WHERE late) FROM (
                SELECT events.id < lag(events.id) OVER (PARTITION BY asset ORDER BY seq) AS late
                FROM events JOIN commands ON commands.id = command_id WHERE name IN ('nft.priced', 'nft.sold')
            ) AS effects
        """
        assert await site.rows(executed) == [(self.commands_total, 0)]


def end(process: Process, number: signal.Signals) -> int:
    """Send the signal and return the exit status."""
    process.send_signal(number)
    return process.wait(STOP_SECONDS)


def gone(processes: Iterable[psutil.Process], seconds: float) -> bool:
    """Whether all end within the time; children that nobody waited for count as ended."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if is_alive(process)]:
        if time.monotonic() > deadline:
            sys.stderr.write(f"still alive: {alive}\n")
            return False
        time.sleep(0.02)
    return True


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
