"""What a run has seen: counts of outcomes and latencies, all by the client's own clock."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from typing import Any

PERCENTILES = (50.0, 95.0, 99.0, 100.0)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in ascending order: the least that `percent` of them do not exceed."""
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


class Latencies:
    """Durations in seconds; summed up in milliseconds."""

    def __init__(self) -> None:
        self._seconds = array("d")

    def __len__(self) -> int:
        return len(self._seconds)

    def add(self, seconds: float, count: int = 1) -> None:
        if count == 1:
            self._seconds.append(seconds)
        else:
            self._seconds.extend([seconds] * count)

    def tail(self, count: int) -> "Latencies":
        """The latest `count` of them."""
        latest = Latencies()
        latest._seconds = self._seconds[-count:]
        return latest

    def summary_ms(self) -> dict[str, float]:
        """`{"p50": …, "p95": …, "p99": …, "max": …}`; empty when nothing was measured."""
        if not self._seconds:
            return {}
        ordered = sorted(self._seconds)
        return {
            "max" if percent == 100.0 else f"p{percent:g}": round(percentile(ordered, percent) * 1000, 3)  # noqa: PLR2004
            for percent in PERCENTILES
        }


@dataclass
class Tally:
    """Everything counted in one run. Each of `submitted` commands ends as final, as a problem, or unfinished.

    Latencies start when a command was due to be sent. `to_acceptance` holds a sample of them, `to_result` all
    others.
    """

    started: float = field(default_factory=monotonic)
    submitted: int = 0
    accepted: int = 0
    final: int = 0
    unfinished: int = 0
    broken_up: int = 0
    """Bodies of which the server took a part only: the rest, sent again, may have lost its place in the order."""
    last_accepted: float = 0.0
    last_final: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind of command and outcome."""
    unforeseen: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    to_acceptance: Latencies = field(default_factory=Latencies)
    to_result: Latencies = field(default_factory=Latencies)

    def settled(self, answer: dict[str, Any] | None, foreseen: str, due: float | None) -> None:
        """One command has got its last answer: a final receipt, a problem, or None when patience ran out. Without
        `due`, its latency does not count."""
        now = monotonic()
        if answer is None:
            self.unfinished += 1
            return
        outcome = outcome_of(answer)
        kind = answer.get("kind")
        if kind is not None:
            self.kinds[kind, outcome] += 1
        if outcome != foreseen and outcome not in foreseen.split("|"):
            self.unforeseen[f"{outcome} instead of {foreseen}"] += 1
        status = answer.get("status")
        if not isinstance(status, str):
            self.problems[outcome] += 1
            return
        self.final += 1
        self.last_final = now
        if due is not None:
            self.to_result.add(now - due)
        self.statuses[status] += 1
        if status == "rejected":
            self.rejections[outcome] += 1

    @property
    def settled_count(self) -> int:
        return self.final + self.unfinished + self.problems.total()

    @property
    def elapsed_seconds(self) -> float:
        return max(self.last_final - self.started, 1e-9)

    def sound(self) -> bool:
        """Every submission has a final outcome, and none failed."""
        return self.settled_count == self.submitted and not self.unfinished and not self.statuses["failed"]

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Of each kind of command, in alphabetical order, how often it had which outcome."""
        kinds: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in sorted(self.kinds.items()):
            kinds.setdefault(kind, {})[outcome] = count
        return kinds

    def as_json(self) -> dict[str, Any]:
        return {
            "submitted": self.submitted,
            "accepted": self.accepted,
            "final": self.final,
            "unfinished": self.unfinished,
            "elapsed_seconds": round(self.elapsed_seconds, 3),
            "accepted_per_second": round(self.accepted / max(self.last_accepted - self.started, 1e-9), 1),
            "final_per_second": round(self.final / self.elapsed_seconds, 1),
            "latency_ms": {"acceptance": self.to_acceptance.summary_ms(), "result": self.to_result.summary_ms()},
            "outcomes": dict(self.statuses),
            "rejections": dict(self.rejections),
            "kinds": self.by_kind(),
            "problems": dict(self.problems),
            "repeats": dict(self.repeats),
            "unforeseen": dict(self.unforeseen),
        }


def outcome_of(answer: dict[str, Any]) -> str:
    """The one word for an answer: the status of a receipt, the code of its rejection, or the code of a problem."""
    status = answer.get("status")
    if status == "rejected":
        return str((answer.get("rejection") or {}).get("code", "rejected"))
    return status if isinstance(status, str) else str(answer.get("code", "no code"))
