"""How long partitions stand still is reckoned right and held to its bar; and a small run of it all."""

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtest.faults.gaps import (
    BARS,
    Bar,
    Case,
    Measured,
    bar_of,
    first_after,
    longest_gap,
    usual_gaps,
    worst_gap,
)
from loadtest.faults.takeovers import TakeoverPlan, table_of, takeover

TIMES = st.lists(st.floats(0, 100), max_size=30).map(sorted)


@pytest.mark.parametrize(
    ("times", "gap"),
    [
        ([], 10.0),
        ([9.0, 21.0], 10.0),  # before the signal, and after all was well: neither counts
        ([10.5, 11.0, 14.0, 14.5, 19.0], 4.5),
        ([17.0], 7.0),
        ([11.0], 9.0),
    ],
)
def test_the_longest_gap_lies_between_executions_the_signal_and_the_end(times: list[float], gap: float) -> None:
    assert longest_gap(times, 10.0, 20.0) == gap


@given(TIMES, st.floats(0, 50), st.floats(50, 100))
def test_a_gap_is_never_longer_than_the_time_looked_at_and_an_execution_never_lengthens_it(
    times: list[float], begin: float, end: float
) -> None:
    gap = longest_gap(times, begin, end)
    assert 0 <= gap <= end - begin
    assert longest_gap(sorted([*times, (begin + end) / 2]), begin, end) <= gap


def test_the_partition_that_stood_still_the_longest_counts() -> None:
    assert worst_gap([[10.5, 11.0], [10.5]], 10.0, 11.5) == 1.0
    assert worst_gap([], 10.0, 11.5) == 0.0


def test_the_usual_time_is_that_between_two_executions_of_one_partition() -> None:
    partitions = [[0.0, 1.0, 1.25, 1.75], [1.125, 3.0], []]
    assert usual_gaps(partitions, 1.0, 2.0) == [0.25, 0.5]


def test_what_comes_after_a_moment_is_not_at_it() -> None:
    assert first_after([1.0, 2.0, 3.0], 2.0) == 3.0
    assert first_after([1.0, 2.0], 2.0) is None


def test_without_redis_a_take_over_may_last_a_lease() -> None:
    assert {bar_of(case, redis_away=True, lease_seconds=3) for case in Case} == {Bar(3, 3)}
    assert {case: bar_of(case, redis_away=False, lease_seconds=3) for case in Case} == BARS


@pytest.mark.parametrize(
    ("seconds", "held"),
    [
        ([1.0, 1.5, 2.5], True),
        ([1.0, 1.0, 2.6], False),  # the worst
        ([1.6, 1.6, 1.0], False),  # the median
        ([], False),  # nothing was measured
    ],
)
def test_a_bar_that_is_missed_is_seen(seconds: list[float], *, held: bool) -> None:
    measured = Measured(Case.KILLED, redis_away=False, bar=BARS[Case.KILLED], seconds=seconds)
    assert measured.held is measured.as_json()["held"] is held


def test_the_table_has_a_row_for_each_case_with_its_bar() -> None:
    console = Console(file=StringIO(), record=True, width=120)
    missed = Measured(Case.STOPPED, redis_away=True, bar=Bar(3, 3), seconds=[1.25, 4.5, 2.0], taken=[1, 4, 1.5])
    console.print(table_of([missed, Measured(Case.ADDED, redis_away=False, bar=BARS[Case.ADDED])], 3))
    rows = [line.split("│")[1:-1] for line in console.export_text().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["stopped past its lease", "away", "3", "1.50", "2.00", "4.50", "3, 3"],
        ["added", "there", "0", "", "", "", "1, 1"],
    ]


async def test_a_worker_that_ends_and_comes_back_is_measured_and_nothing_is_lost() -> None:
    console = Console(file=StringIO(), record=True)
    plan = TakeoverPlan(rounds=1, workers=2, cases=(Case.LEAVING,), redis_away=(False,))
    result = await takeover(plan, console)
    assert result.figures["problems"] == [], console.export_text()
    assert [(case["case"], case["times"]) for case in result.figures["cases"]] == [(Case.LEAVING, 1), (Case.ADDED, 1)]
    assert result.figures["commands"] > 0
