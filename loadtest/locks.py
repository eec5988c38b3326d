"""`loadtest locks`: Souk's lock beside redis-py's, in turns in one run on the same Redis.

A lock has no face over HTTP, so here, and only here, the load test imports a part of what it measures.
"""

import asyncio
import operator
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.lock import Lock as RedisPyLock
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from loadtest.run import RunResult
from loadtest.stack import Target
from storage.redis.locks import LockError, Locks

PAIRS = 1_000
LATENCY_PAIRS = 100
TASKS, PAIRS_EACH, WORK_SECONDS = 50, 20, 0.001
CONTENDERS, SECTION_SECONDS = 10, 0.01
MANY, MANY_TIMES = 100, 50

_WHOLE = 100
"""Figures from here on are shown without decimals."""
_COMPARE = {">": operator.gt, "≥": operator.ge, "=": operator.eq, "≤": operator.le, "<": operator.lt}

Hold = Callable[[str], AbstractAsyncContextManager[Any]]
Figures = dict[str, float]


class Bar(NamedTuple):
    """What a figure must reach, or stay below; `sign` is a key of _COMPARE."""

    figure: str
    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        return bool(_COMPARE[self.sign](value, self.limit))

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:,g}"


REQUIRED = (
    Bar("pairs/s in sequence", ">", 100),
    Bar("mean ms", "<", 10),
    Bar("p99 ms", "<", 50),
    Bar("pairs/s of 50 tasks", ">", 50),
    Bar("errors of 50 tasks", "=", 0),
    Bar("entered of 10", "=", 10),
    Bar("at once of 10", "=", 1),
    Bar("mean wait of 10, ms", "<", 100),
)
"""What every lock must hold, in each round."""
GOALS = (
    Bar("ratio in sequence", "≥", 1.3),
    Bar("pairs/s in sequence", "≥", 338),
    Bar("p50 ms", "≤", 1),
    Bar("p95 ms", "≤", 1.5),
    Bar("pairs/s of 50 tasks", "≥", 440),
    Bar("mean wait of 10, ms", "≤", 60),
    Bar("keys/s, 100 at once", "≥", 20_000),
)
"""What ours must reach besides, in the median of the rounds."""


class Comparison(NamedTuple):
    """Each lock's figures by round. Only ours is judged."""

    ours: Sequence[Figures]
    theirs: Sequence[Figures]

    @classmethod
    def of(cls, ours: Sequence[Figures], theirs: Sequence[Figures]) -> "Comparison":
        sequence = "pairs/s in sequence"
        return cls(
            [
                mine | {"ratio in sequence": mine[sequence] / other[sequence]}
                for mine, other in zip(ours, theirs, strict=True)
            ],
            theirs,
        )

    def missed(self) -> list[str]:
        """The bars that our lock does not hold, each as a sentence."""
        medians = _medians(self.ours)
        in_rounds = [
            f"{bar.figure} is {_figure(one[bar.figure])} in round {number}, must be {bar}"
            for bar in REQUIRED
            for number, one in enumerate(self.ours, 1)
            if not bar.holds(one[bar.figure])
        ]
        return in_rounds + [
            f"{bar.figure} is {_figure(medians[bar.figure])} in the median, should be {bar}"
            for bar in GOALS
            if not bar.holds(medians[bar.figure])
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "souk": _medians(self.ours),
            "redis-py": _medians(self.theirs),
            "rounds": {"souk": self.ours, "redis-py": self.theirs},
            "missed": self.missed(),
        }


async def compare_locks(target: Target, rounds: int, console: Console) -> RunResult:
    """Good when ours holds every bar."""
    redis = Redis.from_url(target.environment["SOUK_REDIS_URL"], socket_timeout=5)
    ours, theirs = [], []
    try:
        async with Locks(redis) as locks:
            for number in range(rounds):
                measured = await measure(locks.hold, f"souk {number}")
                ours.append(measured | {"keys/s, 100 at once": await _many(locks, number)})
                theirs.append(await measure(lambda key: RedisPyLock(redis, key, timeout=5), f"redis-py {number}"))
    finally:
        await redis.aclose()
    comparison = Comparison.of(ours, theirs)
    _print(comparison, console)
    return RunResult(not comparison.missed(), comparison.as_json())


async def measure(hold: Hold, name: str) -> Figures:
    """One round of a lock, on keys of this name."""
    return (
        await _in_sequence(hold, name)
        | await _latency(hold, f"{name} latency")
        | await _concurrent(hold, f"{name} concurrent")
        | await contention(hold, f"{name} contended")
    )


async def _in_sequence(hold: Hold, name: str) -> Figures:
    began = perf_counter()
    for number in range(PAIRS):
        async with hold(f"{name} {number}"):
            pass
    return {"pairs/s in sequence": PAIRS / (perf_counter() - began)}


async def _latency(hold: Hold, name: str) -> Figures:
    pairs_ms = []
    for number in range(LATENCY_PAIRS):
        began = perf_counter()
        async with hold(f"{name} {number}"):
            pass
        pairs_ms.append((perf_counter() - began) * 1_000)
    percentiles = statistics.quantiles(pairs_ms, n=100)
    return {
        "mean ms": statistics.mean(pairs_ms),
        "p50 ms": percentiles[49],
        "p95 ms": percentiles[94],
        "p99 ms": percentiles[98],
    }


async def _concurrent(hold: Hold, name: str) -> Figures:
    errors = 0

    async def work(task: int) -> None:
        nonlocal errors
        for number in range(PAIRS_EACH):
            try:
                async with hold(f"{name} {task} {number}"):
                    await asyncio.sleep(WORK_SECONDS)
            except (LockError, RedisError):
                errors += 1

    began = perf_counter()
    await asyncio.gather(*(work(task) for task in range(TASKS)))
    pairs = TASKS * PAIRS_EACH - errors
    return {"pairs/s of 50 tasks": pairs / (perf_counter() - began), "errors of 50 tasks": errors}


async def contention(hold: Hold, name: str) -> Figures:
    """Tasks that all want one key at once; who is refused has waited, and does not enter."""
    waits_ms: list[float] = []
    inside = entered = most = 0
    began = perf_counter()

    async def contend() -> None:
        nonlocal inside, entered, most
        try:
            async with hold(name):
                waits_ms.append((perf_counter() - began) * 1_000)
                entered += 1
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(SECTION_SECONDS)
                inside -= 1
        except (LockError, RedisError):
            waits_ms.append((perf_counter() - began) * 1_000)

    await asyncio.gather(*(contend() for _ in range(CONTENDERS)))
    return {
        "entered of 10": entered,
        "at once of 10": most,
        "mean wait of 10, ms": statistics.mean(waits_ms),
        "worst wait of 10, ms": max(waits_ms),
    }


async def _many(locks: Locks, round_: int) -> float:
    """Keys a second, MANY at once."""
    began = perf_counter()
    for number in range(MANY_TIMES):
        async with locks.hold(*(f"many {round_} {number} {key}" for key in range(MANY))):
            pass
    return MANY * MANY_TIMES / (perf_counter() - began)


def _medians(rounds: Sequence[Figures]) -> Figures:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def _print(comparison: Comparison, console: Console) -> None:
    ours, theirs = _medians(comparison.ours), _medians(comparison.theirs)
    required, goals = ({bar.figure: bar for bar in bars} for bars in (REQUIRED, GOALS))
    table = Table(title=f"Locks, medians of {len(comparison.ours)} rounds")
    table.add_column("")
    for heading in ("Souk", "redis-py", "must, in each round", "goal"):
        table.add_column(heading, justify="right")
    for name, value in ours.items():
        beside = _figure(theirs[name]) if name in theirs else ""
        table.add_row(name, _figure(value), beside, *(str(bars.get(name, "")) for bars in (required, goals)))
    console.print(table)
    for sentence in comparison.missed():
        console.print(f"missed: {sentence}", style="bold red", highlight=False)


def _figure(value: float) -> str:
    return f"{value:,.4g}" if value < _WHOLE else f"{value:,.0f}"
