"""`loadtest locks`: Souk's lock beside redis-py's, in turns in one run on the same Redis.

A lock has no face over HTTP, so here, and only here, the load test imports a part of what it measures.
"""

import asyncio
import statistics
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.lock import Lock as RedisPyLock
from rich.console import Console
from rich.table import Table

from loadtest.run import RunResult
from loadtest.stack import Target
from storage.locks import Locks

PAIRS = 1_000
LATENCY_PAIRS = 100
TASKS, PAIRS_EACH, WORK_SECONDS = 50, 20, 0.001
CONTENDERS, SECTION_SECONDS = 10, 0.01
MANY, MANY_TIMES = 100, 50

_WHOLE = 100
"""Figures from here on are shown without decimals."""

Hold = Callable[[str], AbstractAsyncContextManager[Any]]


class Bar(NamedTuple):
    """What a figure must reach, or stay below."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f"≥ {self.at_least:,g}" if self.at_least is not None else f"≤ {self.at_most:,g}"


BARS = {
    bar.figure: bar
    for bar in (
        Bar("ratio in sequence", at_least=1.3),
        Bar("pairs/s in sequence", at_least=338),
        Bar("p50 ms", at_most=1),
        Bar("p95 ms", at_most=1.5),
        Bar("pairs/s of 50 tasks", at_least=440),
        Bar("mean wait of 10, ms", at_most=60),
        Bar("keys/s, 100 at once", at_least=20_000),
    )
}


async def compare_locks(target: Target, rounds: int, console: Console) -> RunResult:
    """Medians over the rounds. Good when every bar is reached."""
    redis = Redis.from_url(target.environment["SOUK_REDIS_URL"], socket_timeout=5)
    try:
        async with Locks(redis) as locks:
            ways: dict[str, Hold] = {"souk": locks.hold, "redis-py": lambda key: RedisPyLock(redis, key, timeout=5)}
            found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for number in range(rounds):
                for way, hold in ways.items():
                    found[way].append(await _measure(hold, f"{way} {number}"))
                found["souk"][-1]["keys/s, 100 at once"] = await _many(locks, number)
    finally:
        await redis.aclose()
    figures = {
        way: {name: statistics.median(one[name] for one in each) for name in each[0]} for way, each in found.items()
    }
    ours, theirs = figures["souk"], figures["redis-py"]
    ours["ratio in sequence"] = ours["pairs/s in sequence"] / theirs["pairs/s in sequence"]
    good = all(bar.holds(ours[bar.figure]) for bar in BARS.values())
    _print(ours, theirs, console)
    return RunResult(good, figures)


async def _measure(hold: Hold, name: str) -> dict[str, float]:
    began = perf_counter()
    for number in range(PAIRS):
        async with hold(f"{name} {number}"):
            pass
    in_sequence = PAIRS / (perf_counter() - began)

    pairs_ms = []
    for number in range(LATENCY_PAIRS):
        began = perf_counter()
        async with hold(f"{name} latency {number}"):
            pass
        pairs_ms.append((perf_counter() - began) * 1_000)

    async def work(task: int) -> None:
        for number in range(PAIRS_EACH):
            async with hold(f"{name} {task} {number}"):
                await asyncio.sleep(WORK_SECONDS)

    began = perf_counter()
    await asyncio.gather(*(work(task) for task in range(TASKS)))
    concurrent = TASKS * PAIRS_EACH / (perf_counter() - began)

    waits_ms: list[float] = []

    async def contend() -> None:
        began = perf_counter()
        async with hold(f"{name} contended"):
            waits_ms.append((perf_counter() - began) * 1_000)
            await asyncio.sleep(SECTION_SECONDS)

    await asyncio.gather(*(contend() for _ in range(CONTENDERS)))
    percentiles = statistics.quantiles(pairs_ms, n=100)
    return {
        "pairs/s in sequence": in_sequence,
        "mean ms": statistics.mean(pairs_ms),
        "p50 ms": percentiles[49],
        "p95 ms": percentiles[94],
        "p99 ms": percentiles[98],
        "pairs/s of 50 tasks": concurrent,
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


def _print(ours: dict[str, float], theirs: dict[str, float], console: Console) -> None:
    table = Table(title="Locks, medians")
    for heading, justify in (("", "left"), ("Souk", "right"), ("redis-py", "right"), ("bar", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for name, value in ours.items():
        bar = BARS.get(name)
        style = None if bar is None or bar.holds(value) else "bold red"
        table.add_row(
            name, _figure(value), _figure(theirs[name]) if name in theirs else "", str(bar or ""), style=style
        )
    console.print(table)


def _figure(value: float) -> str:
    return f"{value:,.4g}" if value < _WHOLE else f"{value:,.0f}"
