"""Many commands as lines of JSON: read, sent body by body, answered in their order. One bad line harms no other."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

from souk_client import Outcome, Problem, Submission, SyncClient

AT_A_TIME = 1_000
"""How many lines are read before they are sent: as many commands as go into one request."""


class Line(NamedTuple):
    number: int
    outcome: Outcome

    @property
    def is_bad(self) -> bool:
        """Refused, failed or not even sent; what is not final yet is not bad."""
        outcome = self.outcome
        return isinstance(outcome, Exception) or (outcome.is_final and not outcome.succeeded)

    @property
    def raw(self) -> dict[str, Any]:
        """A receipt as it was sent, or what went wrong with its line's number."""
        if isinstance(self.outcome, Problem):
            return {"line": self.number, **self.outcome.raw, "code": self.outcome.code, "detail": self.outcome.detail}
        if isinstance(self.outcome, Exception):
            return {"line": self.number, "code": "unreachable", "detail": str(self.outcome)}
        return dict(self.outcome.raw)


def submit_lines(
    souk: SyncClient,
    lines: Iterable[bytes],
    *,
    actor: int | None = None,
    idempotency_key: str | None = None,
    wait: float = 0.0,
) -> Iterator[list[Line]]:
    """Yields what came of the lines, those of a request at a time, and skips empty ones.

    With an idempotency key `K`, that of line 7 is `K:7`: the same file sent again does nothing twice.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while some := list(islice(numbered, AT_A_TIME)):
        read = [(number, _read(number, line, idempotency_key)) for number, line in some]
        commands = [each for _, each in read if not isinstance(each, Problem)]
        outcomes = iter(souk.submit_many(commands, actor=actor, wait=wait))
        yield [Line(number, each if isinstance(each, Problem) else next(outcomes)) for number, each in read]


def _read(number: int, line: bytes, idempotency_key: str | None) -> Submission | Problem:
    try:
        command = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        return Problem(0, {"code": "malformed", "detail": f"The line is not JSON: {error}"})
    if not isinstance(command, dict):
        return Problem(0, {"code": "malformed", "detail": "The line is not a JSON object."})
    return cast(
        "Submission",
        command if idempotency_key is None else {"idempotency_key": f"{idempotency_key}:{number}", **command},
    )
