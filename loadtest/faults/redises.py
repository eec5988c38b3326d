"""Redis on several servers: nodes on TCP ports, and a set of them that sentinels watch over.

The servers are started by the project's own hands, as those of the site are.
"""

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from storage.embedded.child import EmbeddedError, spawn
from storage.embedded.servers import find_redis

HOST = "127.0.0.1"
MASTER = "souk"
DOWN_MS = 1_000
"""How long a master is silent before it counts as dead."""
_READY_SECONDS = 30
_BUS_OFFSET = 10_000
_PORTS = (20_000, 30_000)


class RedisNode:
    """One server on a TCP port, which it keeps over restarts."""

    def __init__(self, directory: Path, **settings: str) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.port = _free_port()
        self.settings = {"save": "", "appendonly": "no", "repl-diskless-sync-delay": "0"} | settings
        self.client = Redis(HOST, self.port, socket_timeout=2, decode_responses=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        binary = find_redis()
        if binary is None:
            message = "there is no redis-server to run: install one, or the wheel that carries it"
            raise EmbeddedError(message)
        settings = {"port": str(self.port), "bind": HOST, "dir": str(self.directory)} | self.settings
        words = [word for name, value in settings.items() for word in (f"--{name}", *value.split())]
        with (self.directory / "log").open("ab") as log:
            command: list[str | Path] = [binary, *options, *words]
            self._process, _ = spawn(command, signal.SIGKILL, cwd=self.directory, stdout=log, stderr=log)
        until(self.answers, f"{self.directory.name} does not answer")

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """It keeps its connections and answers nothing, until `wake`."""
        self._send(signal.SIGSTOP)

    def wake(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def close(self) -> None:
        self.wake()
        self.kill()
        self.client.close()

    def ask(self, *words: str | int) -> Any:
        """Any command."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.info(section)  # type: ignore[assignment]
        return found


class SentinelNode(RedisNode):
    """One sentinel, which writes what it learns into its own configuration."""

    def __init__(self, directory: Path, master: RedisNode) -> None:
        super().__init__(directory)
        self._file = directory / "sentinel.conf"
        self._file.write_text(
            f"port {self.port}\nbind {HOST}\ndir {directory}\n"
            f"sentinel monitor {MASTER} {HOST} {master.port} 2\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_MS}\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
            f"sentinel parallel-syncs {MASTER} 2\n"
        )
        self.settings = {}

    def start(self, *options: str) -> None:
        super().start(str(self._file), "--sentinel")

    def others(self) -> tuple[int, int]:
        """How many replicas and how many other sentinels it knows."""
        with suppress(RedisError):
            state: dict[str, Any] = self.client.sentinel_master(MASTER)  # type: ignore[no-untyped-call]
            return int(state["num-slaves"]), int(state["num-other-sentinels"])
        return 0, 0


class SentinelSet:
    """One master, its replicas, three sentinels."""

    def __init__(self, servers: Sequence[RedisNode], sentinels: Sequence[SentinelNode]) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self.url = f"redis+sentinel://{','.join(f'{HOST}:{node.port}' for node in sentinels)}/{MASTER}"

    def master(self) -> RedisNode:
        """The one the sentinels name now."""
        for sentinel in self.sentinels:
            with suppress(RedisError):
                _, port = sentinel.client.sentinel_get_master_addr_by_name(MASTER)  # type: ignore[no-untyped-call]
                return next(server for server in self.servers if server.port == int(port))
        message = "no sentinel answers"
        raise TimeoutError(message)

    def kill(self) -> None:
        """The master dies."""
        self.master().kill()

    def start(self) -> None:
        """Who is dead comes back as what it was."""
        for server in self.servers:
            if not server.is_running:
                server.start()

    def fail_over(self, unseen_seconds: float) -> None:
        """The master dies, with what it was given in the last seconds, which its replicas have not seen. One of them is
        promoted, and the old master comes back as its replica."""
        until(self.is_whole, "the replicas do not follow the master")
        old = self.master()
        if unseen_seconds:
            for replica in self.servers:
                if replica is not old:
                    replica.ask("REPLICAOF", HOST, "1")
            time.sleep(unseen_seconds)
        old.kill()
        until(lambda: self.master() is not old, "nobody is promoted")
        new = self.master()
        new.settings.pop("replicaof", None)
        old.settings["replicaof"] = f"{HOST} {new.port}"
        old.start()
        until(self.is_whole, "the old master does not follow the new one")

    def is_whole(self) -> bool:
        """Whether all are there, and all but the master follow it."""
        with suppress(RedisError, TimeoutError):
            master = self.master()
            states = [server.info("replication") for server in self.servers if server is not master]
            return master.info("replication")["role"] == "master" and all(
                (state["role"], state.get("master_port"), state.get("master_link_status"))
                == ("slave", master.port, "up")
                for state in states
            )
        return False


@contextmanager
def sentinel_set(directory: Path, replicas: int = 2) -> Iterator[SentinelSet]:
    """Started, and met."""
    servers = [RedisNode(directory / f"server{number}") for number in range(1 + replicas)]
    sentinels = [SentinelNode(directory / f"sentinel{number}", servers[0]) for number in range(3)]
    try:
        for server in servers:
            if server is not servers[0]:
                server.settings["replicaof"] = f"{HOST} {servers[0].port}"
            server.start()
        until(lambda: servers[0].info("replication")["connected_slaves"] == replicas, "the replicas do not come")
        for sentinel in sentinels:
            sentinel.start()
        until(lambda: all(sentinel.others() == (replicas, 2) for sentinel in sentinels), "the sentinels do not meet")
        yield SentinelSet(servers, sentinels)
    finally:
        for node in (*servers, *sentinels):
            node.close()


def until(holds: Callable[[], bool], claim: str) -> None:
    """Looks until it holds. Raises TimeoutError with the claim."""
    deadline = time.monotonic() + _READY_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(claim)
        time.sleep(0.02)


def _free_port() -> int:
    """One whose cluster bus, ten thousand above, is free as well."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, socket.socket() as bus, suppress(OSError):
            probe.bind((HOST, port))
            bus.bind((HOST, port + _BUS_OFFSET))
            return port
