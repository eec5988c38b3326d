"""What a load costs: processor time of each part of an installation, and what PostgreSQL and Redis did for it.

Parts are recognised by their command lines among the descendants of this process, so the installation must be ours.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import asyncpg
import psutil
from redis.asyncio import Redis

API, WORKER, POSTGRES, REDIS, LOAD = PARTS = ("API", "worker", "PostgreSQL", "Redis", "load generator")
OTHERS = "others"
"""Whatever else ran on the machine, the kernel's own work and stolen time included."""

SATURATED = 0.95
"""Of a core, or of the machine: what is busier has nothing left to give."""
LOOK_SECONDS = 0.1

RUNNING, ACCOUNTS, PLATFORM, LOG, OTHER = STATES = ("running", "accounts", "platform", "log", "other")
"""What a session of PostgreSQL is at: running, or waiting for the rows of users' accounts, for those of the platform's,
for the write-ahead log, for anything else."""
_ACTIVE = """
SELECT coalesce(wait_event_type, ''), coalesce(wait_event, ''), query
FROM pg_stat_activity WHERE application_name LIKE 'souk %' AND state = 'active'
"""
_SIZES = """
SELECT relname, pg_total_relation_size(oid) FROM pg_class
WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
"""


class Times(NamedTuple):
    """Processor seconds up to a moment: of each of our processes, by (part, pid), and of the whole machine."""

    at: float
    processes: Mapping[tuple[str, int], float]
    machine: float


@dataclass(frozen=True)
class Usage:
    """Between two moments: processor seconds of each part and of others, and the busiest process of each part, in
    cores."""

    seconds: float
    cores: int
    parts: Mapping[str, float]
    busiest: Mapping[str, float]

    def microseconds_each(self, commands: int) -> dict[str, float]:
        return {part: self.parts[part] / max(commands, 1) * 1e6 for part in PARTS}

    def shares(self) -> dict[str, float]:
        """Of the machine."""
        return {part: spent / (self.seconds * self.cores) for part, spent in self.parts.items()}

    def bound(self) -> str:
        """What has nothing left to give: the machine, else one process, else nothing that a processor could mend."""
        if sum(self.shares().values()) >= SATURATED:
            return "all cores"
        part = max(self.busiest, key=lambda part: self.busiest[part])
        return f"one {part} process" if self.busiest[part] >= SATURATED else "waits"


def part_of(name: str, command_line: Sequence[str]) -> str | None:
    """The part of the installation that a process with this name is."""
    if name == "postgres":
        return POSTGRES
    words = [Path(word).stem for word in command_line]
    if name in {"redis-server", "valkey-server"} or "fake_redis" in words:
        return REDIS
    verb = words[words.index("souk") + 1 :][:1] if "souk" in words else []
    return API if verb == ["api"] else WORKER if verb == ["worker"] else None


def times() -> Times:
    """As of now."""
    ours = psutil.Process()
    spent = {(LOAD, ours.pid): _seconds(ours)}
    for process in ours.children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            part = part_of(process.name(), process.cmdline())
            if part is not None:
                spent[part, process.pid] = _seconds(process)
    machine = psutil.cpu_times()
    return Times(monotonic(), spent, sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - _guests(machine))


def _seconds(process: psutil.Process) -> float:
    """Of the process, and of its ended children when it is a server's: PostgreSQL's come and go."""
    spent = process.cpu_times()
    own: float = spent.user + spent.system
    return own + spent.children_user + spent.children_system if process.name() == "postgres" else own


def _guests(machine: Any) -> float:
    """Counted twice by Linux."""
    return float(getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0))


def usage(before: Times, after: Times, cores: int) -> Usage:
    """What went on in between. A backend that ended has left its time to PostgreSQL's first process."""
    seconds = after.at - before.at
    parts: defaultdict[str, float] = defaultdict(float)
    busiest: defaultdict[str, float] = defaultdict(float)
    for (part, pid), spent in after.processes.items():
        parts[part] += spent
        busiest[part] = max(busiest[part], (spent - before.processes.get((part, pid), 0.0)) / seconds)
    for (part, _), spent in before.processes.items():
        parts[part] -= spent
    parts = defaultdict(float, {part: max(parts[part], 0.0) for part in PARTS})
    parts[OTHERS] = max(after.machine - before.machine - sum(parts.values()), 0.0)
    return Usage(seconds, cores, dict(parts), dict(busiest))


def evenness(counts: Iterable[int]) -> float:
    """The least share over the greatest: 1 is perfectly even, 0 says that somebody had nothing."""
    shares = sorted(counts)
    return shares[0] / shares[-1] if shares and shares[-1] else 0.0


def state_of(wait_type: str, wait: str, query: str) -> str:
    """What a session that executes this statement is doing, by PostgreSQL's names for waits."""
    if not wait_type:
        return RUNNING
    if "wal" in wait.lower():
        return LOG
    if wait_type == "Lock" and "accounts" in query:
        return PLATFORM if query.endswith("COMMIT") else ACCOUNTS
    return OTHER


class Sessions:
    """What PostgreSQL's sessions of ours were seen to do, time and again."""

    def __init__(self) -> None:
        self._looks = 0
        self._seen: Counter[str] = Counter()

    def see(self, states: Iterable[str]) -> None:
        self._looks += 1
        self._seen.update(states)

    def mean(self) -> dict[str, float]:
        """How many were in each state at a time."""
        return {state: self._seen[state] / max(self._looks, 1) for state in STATES}


class Servers:
    """What PostgreSQL and Redis have done so far."""

    def __init__(self, postgres: "asyncpg.Connection[Any]", redis: Redis) -> None:
        self._postgres = postgres
        self._redis = redis

    async def figures(self) -> Counter[str]:
        """Subtract an earlier answer from a later one."""
        found: Counter[str] = Counter()
        found["WAL bytes"] = int(await self._postgres.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))
        for table, size in await self._postgres.fetch(_SIZES):
            found[f"stored in {table}"] = size
            found["stored bytes"] += size
        commands = await self._redis.info("commandstats")
        found["Redis commands"] = sum(int(each["calls"]) for name, each in commands.items() if name != "cmdstat_info")
        network = await self._redis.info("stats")
        found["Redis bytes"] = int(network["total_net_input_bytes"]) + int(network["total_net_output_bytes"])
        return found

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Sessions]:
        """Looks at the sessions as long as the body takes."""
        sessions = Sessions()
        looking = asyncio.create_task(self._look(sessions))
        try:
            yield sessions
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _look(self, sessions: Sessions) -> None:
        while True:
            sessions.see(state_of(*row) for row in await self._postgres.fetch(_ACTIVE))
            await asyncio.sleep(LOOK_SECONDS)
