"""The comparison of locks measures both in one run, holds ours to its bars, and finds a lock that is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from rich.console import Console

from loadtest.locks import GOALS, REQUIRED, Bar, Comparison, compare_locks, contention
from loadtest.stack import Target
from storage.redis.locks import LockTimeout
from storage.settings import Settings

GOOD = {
    "pairs/s in sequence": 1_000.0,
    "mean ms": 0.5,
    "p50 ms": 0.5,
    "p95 ms": 0.7,
    "p99 ms": 1.0,
    "pairs/s of 50 tasks": 5_000.0,
    "errors of 50 tasks": 0.0,
    "entered of 10": 10.0,
    "at once of 10": 1.0,
    "mean wait of 10, ms": 50.0,
    "worst wait of 10, ms": 100.0,
    "keys/s, 100 at once": 30_000.0,
}
BAD = GOOD | {"pairs/s in sequence": 250.0, "errors of 50 tasks": 7.0, "at once of 10": 2.0}
"""As a stranger's lock may be."""


async def test_every_figure_of_both_locks_is_reported_with_its_bars(settings: Settings) -> None:
    target = Target("", "", {"SOUK_REDIS_URL": settings.redis_url.get_secret_value()})
    console = Console(record=True, width=120)
    result = await compare_locks(target, 1, console)
    ours, theirs = result.figures["souk"], result.figures["redis-py"]
    assert ours.keys() >= {bar.figure for bar in (*REQUIRED, *GOALS)}
    assert ours.keys() - theirs.keys() == {"keys/s, 100 at once", "ratio in sequence"}
    assert result.good == (not result.figures["missed"])
    assert (ours["errors of 50 tasks"], ours["entered of 10"], ours["at once of 10"]) == (0, 10, 1)
    text = console.export_text()
    assert all(str(bar) in text for bar in (*REQUIRED, *GOALS))
    assert all(name in text for name in ours)


def test_good_figures_miss_nothing_whatever_the_other_lock_does() -> None:
    assert Comparison.of([GOOD] * 3, [BAD] * 3).missed() == []


@pytest.mark.parametrize(
    ("bar", "off"),
    [(bar, off) for bar in REQUIRED for off in {">": [-1], "<": [1], "=": [-1, 1]}[bar.sign]],
    ids=lambda given: getattr(given, "figure", given),
)
def test_what_must_hold_is_missed_when_one_round_of_many_misses_it(bar: Bar, off: int) -> None:
    figure, sign, limit = bar
    one = GOOD | {figure: limit + off / 100}
    [missed, *_] = Comparison.of([GOOD, one, GOOD, GOOD, GOOD], [BAD] * 5).missed()
    assert missed.startswith(figure)
    assert missed.endswith(f"in round 2, must be {sign} {limit:,g}")


@pytest.mark.parametrize("bar", GOALS, ids=lambda bar: bar.figure)
def test_a_goal_is_missed_in_the_median_only(bar: Bar) -> None:
    figure, sign, limit = bar
    value = limit * (0.99 if sign == "≥" else 1.01)
    one, stranger = GOOD | {figure: value}, BAD
    if figure == "ratio in sequence":
        one, stranger = GOOD, BAD | {"pairs/s in sequence": 1_000 / value}
    assert Comparison.of([one, GOOD, GOOD], [stranger, BAD, BAD]).missed() == []
    [missed] = Comparison.of([one, one, GOOD], [stranger, stranger, BAD]).missed()
    assert missed.startswith(figure)


async def test_a_lock_that_lets_two_in_or_one_not_at_all_is_found_by_the_contention_run() -> None:
    two = asyncio.Semaphore(2)
    figures = await contention(lambda _: two, "key")
    assert (figures["entered of 10"], figures["at once of 10"]) == (10, 2)

    mutex, refused = asyncio.Lock(), iter([True])

    @asynccontextmanager
    async def impatient(key: str) -> AsyncIterator[None]:
        async with mutex:
            if next(refused, False):
                raise LockTimeout(key)
            yield

    figures = await contention(impatient, "key")
    assert (figures["entered of 10"], figures["at once of 10"]) == (9, 1)
    for bar in REQUIRED:
        if bar.figure == "entered of 10":
            assert not bar.holds(figures[bar.figure])
