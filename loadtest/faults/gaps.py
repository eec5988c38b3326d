"""The arithmetic of take-overs: how long nothing was executed, by the times that the journal gives, and how long that
may be.

Times are seconds by the database's clock, in ascending order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple


class Case(StrEnum):
    """What becomes of a worker."""

    KILLED = "killed"
    STOPPED = "stopped past its lease"
    LEAVING = "asked to end"
    ADDED = "added"


class Bar(NamedTuple):
    """Seconds that a case may take."""

    median: float
    worst: float


BARS = {
    Case.KILLED: Bar(1.5, 2.5),
    Case.STOPPED: Bar(1.5, 2.5),
    Case.LEAVING: Bar(0.1, 0.1),
    Case.ADDED: Bar(1.0, 1.0),
}
"""With Redis there."""


def bar_of(case: Case, *, redis_away: bool, lease_seconds: float) -> Bar:
    """Without Redis, the sign of life in PostgreSQL decides, which lasts a lease."""
    return Bar(lease_seconds, lease_seconds) if redis_away else BARS[case]


def longest_gap(times: Sequence[float], begin: float, end: float) -> float:
    """The longest time between `begin` and `end` without an execution."""
    marks = [begin, *(time for time in times if begin < time < end), end]
    return max(later - earlier for earlier, later in pairwise(marks))


def worst_gap(partitions: Iterable[Sequence[float]], begin: float, end: float) -> float:
    """Of the partition that stood still the longest."""
    return max((longest_gap(times, begin, end) for times in partitions), default=0.0)


def usual_gaps(partitions: Iterable[Sequence[float]], begin: float, end: float) -> list[float]:
    """All times between two executions of the same partition, both between `begin` and `end`."""
    return [
        later - earlier
        for times in partitions
        for earlier, later in pairwise(time for time in times if begin <= time <= end)
    ]


def first_after(times: Sequence[float], moment: float) -> float | None:
    return next((time for time in times if time > moment), None)


@dataclass
class Measured:
    """One case, over the rounds. `seconds` until the worst partition was executed again, and `taken` until
    the last one had its new owner, once an event."""

    case: Case
    redis_away: bool
    bar: Bar
    seconds: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether it was measured, and within its bar."""
        return bool(self.seconds) and median(self.seconds) <= self.bar.median and max(self.seconds) <= self.bar.worst

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "redis": "away" if self.redis_away else "there",
            "times": len(self.seconds),
            "taken": round(median(self.taken), 3) if self.taken else None,
            "median": round(median(self.seconds), 3) if self.seconds else None,
            "worst": round(max(self.seconds), 3) if self.seconds else None,
            "bar": self.bar._asdict(),
            "held": self.held,
            "seconds": [round(seconds, 3) for seconds in self.seconds],
            "taken_seconds": [round(seconds, 3) for seconds in self.taken],
        }
