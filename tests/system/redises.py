"""Many Redis servers: a Sentinel set and a Cluster, each server in a directory of its own; and what
a site makes of them."""

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
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from storage.child import spawn
from storage.embedded import find_redis
from storage.queue import Queue, connect_redis
from tests.system.site import Site

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
        assert binary is not None
        settings = {"port": str(self.port), "bind": HOST, "dir": str(self.directory)} | self.settings
        words = [word for name, value in settings.items() for word in (f"--{name}", *value.split())]
        with (self.directory / "log").open("ab") as log:
            command: list[str | Path] = [binary, *options, *words]
            self._process, _ = spawn(command, signal.SIGKILL, cwd=self.directory, stdout=log, stderr=log)
        until(self.answers, f"{self.directory.name} does not answer")

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """It keeps its connections and answers nothing, until `wake`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
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
    """One master, two replicas, three sentinels."""

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
        raise AssertionError("no sentinel answers")


class RedisCluster:
    """Three masters, each with a third of the slots; `doubled` has a replica that takes over when it dies."""

    def __init__(self, nodes: Sequence[RedisNode], doubled: RedisNode) -> None:
        self.nodes = nodes
        self.doubled = doubled
        self.url = f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in nodes)}"

    def master_of(self, key: str) -> RedisNode:
        """Who has the key's slot, as a living node knows it."""
        for node in self.nodes:
            with suppress(RedisError):
                for first, last, (_, port, *_), *_ in node.ask("CLUSTER SLOTS"):
                    if first <= key_slot(key.encode()) <= last:
                        return next(each for each in self.nodes if each.port == port)
        raise AssertionError("no node answers")


@contextmanager
def sentinel_set(directory: Path) -> Iterator[SentinelSet]:
    servers = [RedisNode(directory / f"server{number}") for number in range(3)]
    sentinels = [SentinelNode(directory / f"sentinel{number}", servers[0]) for number in range(3)]
    try:
        for server in servers:
            if server is not servers[0]:
                server.settings["replicaof"] = f"{HOST} {servers[0].port}"
            server.start()
        until(lambda: servers[0].info("replication")["connected_slaves"] == 2, "the replicas do not come")
        for sentinel in sentinels:
            sentinel.start()
        until(lambda: all(sentinel.others() == (2, 2) for sentinel in sentinels), "the sentinels do not meet")
        yield SentinelSet(servers, sentinels)
    finally:
        for node in (*servers, *sentinels):
            node.close()


@contextmanager
def redis_cluster(directory: Path) -> Iterator[RedisCluster]:
    settings = {"cluster-enabled": "yes", "cluster-node-timeout": str(DOWN_MS), "cluster-replica-validity-factor": "0"}
    nodes = [RedisNode(directory / f"node{number}", **settings) for number in range(4)]
    *masters, replica = nodes
    try:
        for node in nodes:
            node.start()
        bounds = [REDIS_CLUSTER_HASH_SLOTS * number // len(masters) for number in range(len(masters) + 1)]
        for master, first, end in zip(masters, bounds, bounds[1:], strict=False):
            master.ask("CLUSTER ADDSLOTS", *range(first, end))
        for number, node in enumerate(nodes):
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER MEET", HOST, nodes[0].port)
        until(lambda: all(_state(node, "cluster_known_nodes") == "4" for node in nodes), "the nodes do not meet")
        until(lambda: all(_state(node, "cluster_state") == "ok" for node in nodes), "the cluster does not come up")
        doubled = masters[key_slot(b"lock") * len(masters) // REDIS_CLUSTER_HASH_SLOTS]  # where the locks are
        replica.ask("CLUSTER REPLICATE", doubled.ask("CLUSTER MYID"))
        until(lambda: replica.info("replication").get("master_link_status") == "up", "the replica does not come")
        yield RedisCluster(nodes, doubled)
    finally:
        for node in nodes:
            node.close()


def _state(node: RedisNode, name: str) -> str:
    answer = node.ask("CLUSTER INFO")
    found: dict[str, str] = (
        answer if isinstance(answer, dict) else dict(line.split(":", 1) for line in answer.splitlines() if line)
    )
    return found[name]


async def redis_is(site: Site, *states: str) -> bool:
    """What `/readyz` says of it."""
    return (await site.client.get("/readyz")).json()["parts"]["redis"] in states


async def nothing_is_queued(site: Site) -> bool:
    redis = connect_redis(site.settings)
    try:
        return not await Queue(redis).peek(range(site.settings.partitions), 1)
    finally:
        await redis.aclose()


async def longest_pause(site: Site) -> float:
    """Seconds without execution, at most, while sales went on."""
    seconds = await site.value("""
        SELECT extract(epoch FROM max(pause)) FROM (
            SELECT finished_at - lag(finished_at) OVER (ORDER BY finished_at) AS pause
            FROM commands WHERE kind IN ('nft.set_price', 'nft.buy')
        ) AS pauses
    """)
    return float(seconds)


def until(holds: Callable[[], bool], claim: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not holds():
        assert time.monotonic() < deadline, claim
        time.sleep(0.02)


def _free_port() -> int:
    """One whose cluster bus, ten thousand above, is free as well."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, socket.socket() as bus, suppress(OSError):
            probe.bind((HOST, port))
            bus.bind((HOST, port + _BUS_OFFSET))
            return port
