"""Percentiles and the accounting of a run."""

import pytest

from loadtest.measure import Latencies, Tally, percentile


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50.0, 7.0),
        ([1.0, 2.0], 50.0, 1.0),
        ([1.0, 2.0, 3.0, 4.0], 75.0, 3.0),
        (list(range(1, 101)), 95.0, 95),
        (list(range(1, 101)), 99.0, 99),
        (list(range(1, 1001)), 99.9, 999),
        ([1.0, 2.0, 3.0], 100.0, 3.0),
        ([1.0, 2.0, 3.0], 0.0, 1.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50.0)


def test_latencies_are_summed_up_in_milliseconds_whatever_their_order() -> None:
    latencies = Latencies()
    for seconds in (0.003, 0.001, 0.002, 0.004):
        latencies.add(seconds)
    assert latencies.summary_ms() == {"p50": 2.0, "p95": 4.0, "p99": 4.0, "max": 4.0}


def test_the_tail_of_latencies_is_the_latest() -> None:
    latencies = Latencies()
    for seconds in (9.0, 0.001, 0.002):
        latencies.add(seconds)
    assert latencies.tail(2).summary_ms()["max"] == 2.0


def test_outcomes_are_counted_by_status_and_by_code() -> None:
    tally = Tally(submitted=3)
    tally.settled({"status": "succeeded"}, "succeeded", due=tally.started)
    tally.settled({"status": "rejected", "rejection": {"code": "PRICE_CHANGED"}}, "PRICE_CHANGED", due=tally.started)
    tally.settled({"status": 422, "code": "invalid"}, "invalid", due=tally.started)
    assert tally.statuses == {"succeeded": 1, "rejected": 1}
    assert tally.rejections == {"PRICE_CHANGED": 1}
    assert tally.problems == {"invalid": 1}
    assert tally.final == 2
    assert not tally.unforeseen
    assert tally.sound()


def test_an_outcome_that_the_model_did_not_foresee_is_named() -> None:
    tally = Tally(submitted=1)
    tally.settled({"status": "succeeded"}, "PRICE_CHANGED", due=tally.started)
    assert tally.unforeseen == {"succeeded instead of PRICE_CHANGED": 1}


@pytest.mark.parametrize("answer", [None, {"status": "failed"}])
def test_a_run_with_a_command_unanswered_or_failed_is_not_sound(answer: dict[str, str] | None) -> None:
    tally = Tally(submitted=1)
    tally.settled(answer, "succeeded", due=tally.started)
    assert not tally.sound()


def test_a_run_whose_submissions_do_not_add_up_is_not_sound() -> None:
    tally = Tally(submitted=2)
    tally.settled({"status": "succeeded"}, "succeeded", due=tally.started)
    assert not tally.sound()
