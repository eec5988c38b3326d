"""What the API says, as objects: any answer, receipts of commands, events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self

from pydantic_core import from_json

from souk_client.errors import Problem, Unsuccessful

Status = Literal["scheduled", "accepted", "succeeded", "rejected", "failed", "cancelled", "expired"]
FINAL = frozenset({"succeeded", "rejected", "failed", "cancelled", "expired"})

_BAD = 400


class Answer(NamedTuple):
    """A whole answer to one request."""

    status: int
    headers: Mapping[bytes, bytes]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """Returns the body as JSON. Raises Problem when it is a refusal, or no JSON."""
        if self.status >= _BAD:
            raise self.problem()
        try:
            return from_json(self.body)
        except ValueError:
            raise Problem(
                self.status, {"code": "not_json", "detail": "The answer is not JSON: is this Souk?"}
            ) from None

    def problem(self) -> Problem:
        """Returns the refusal that it is."""
        try:
            raw = from_json(self.body)
        except ValueError:
            raw = None
        return Problem(self.status, raw if isinstance(raw, dict) else {}, self.retry_after)

    @property
    def retry_after(self) -> float:
        """Seconds after which to try again; 0.0 when the API does not say."""
        value = self.headers.get(b"retry-after", b"")
        return float(value) if value.isdigit() else 0.0


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the rules refused a command; `facts` are what the refusal was about."""

    code: str
    detail: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A command and what came of it so far; `raw` is the JSON object as it came. Times are aware."""

    id: str
    kind: str
    actor: int | None
    asset: str
    partition: int
    status: Status
    accepted_at: datetime | None
    """None as long as the command is scheduled."""
    finished_at: datetime | None
    """None until the command is final."""
    result: Mapping[str, Any] | None
    rejection: Rejection | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Returns the receipt that the JSON object is."""
        rejection = raw["rejection"]
        if rejection is not None:
            facts = {name: value for name, value in rejection.items() if name not in ("code", "detail")}
            rejection = Rejection(rejection["code"], rejection.get("detail", ""), facts)
        return cls(
            raw["id"],
            raw["kind"],
            raw["actor"],
            raw["asset"],
            raw["partition"],
            raw["status"],
            _time(raw["accepted_at"]),
            _time(raw["finished_at"]),
            raw["result"],
            rejection,
            raw,
        )

    @property
    def is_final(self) -> bool:
        """Whether the status will not change any more (but `failed` does when an operator redrives the command)."""
        return self.status in FINAL

    @property
    def succeeded(self) -> bool:
        """Whether the command took effect."""
        return self.status == "succeeded"

    def raise_for_outcome(self) -> Self:
        """Returns itself when the command has succeeded. Raises Unsuccessful otherwise, also when it is not final."""
        if not self.succeeded:
            raise Unsuccessful(self)
        return self


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `id` is its place in the feed: events(…, after=id) goes on after it."""

    id: str
    name: str
    command_id: str | None
    topics: tuple[str, ...]
    at: datetime
    fields: Mapping[str, Any]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Returns the event that the JSON object is."""
        at = datetime.fromisoformat(raw["at"])
        return cls(raw["id"], raw["name"], raw["command_id"], tuple(raw["topics"]), at, raw["fields"], raw)
