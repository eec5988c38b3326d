"""Many commands as lines of JSON: read, sent body by body, answered in their order. One bad line harms no other."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

from api.client.client import BODY_COMMANDS, Outcome, Submission
from api.client.errors import Problem
from api.client.sync import SyncClient


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
    souk: SyncClient, lines: Iterable[bytes], *, actor: int | None = None, key: str | None = None, wait: float = 0.0
) -> Iterator[list[Line]]:
    """What came of the lines, a body's at a time; of empty ones nothing.

    With `key`, line 7 has the idempotency key `key:7`: the same file sent again does nothing twice.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while some := list(islice(numbered, BODY_COMMANDS)):
        read = [(number, _read(number, line, key)) for number, line in some]
        commands = [each for _, each in read if not isinstance(each, Problem)]
        outcomes = iter(souk.submit_many(commands, actor=actor, wait=wait))
        yield [Line(number, each if isinstance(each, Problem) else next(outcomes)) for number, each in read]


def _read(number: int, line: bytes, key: str | None) -> Submission | Problem:
    try:
        command = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        return Problem(0, {"code": "malformed", "detail": f"The line is not JSON: {error}"})
    if not isinstance(command, dict):
        return Problem(0, {"code": "malformed", "detail": "The line is not a JSON object."})
    return cast("Submission", command if key is None else {"idempotency_key": f"{key}:{number}", **command})
