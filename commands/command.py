"""The language: what a command is, how it is read from JSON, and what travels with it.

A command type is one class in the file of its mechanism: wire form (pydantic fields), bounds (`check`), the asset that
routes it, the documents it touches, and its rule (`execute`). Declaring the class is all there is to adding one:

    class Buy(Command, kind="nft.buy", sent_by=USER): …
"""

import re
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from commands.terms import Terms

if TYPE_CHECKING:
    from commands.book import Book, Need


class Sender(StrEnum):
    """In whose name a kind may be sent."""

    USER = "user"
    SYSTEM = "system"
    OPERATOR = "operator"


USER = frozenset({Sender.USER})
SYSTEM = frozenset({Sender.SYSTEM, Sender.OPERATOR})
OPERATOR = frozenset({Sender.OPERATOR})

BIGINT_MAX = 2**63 - 1
_DECIMAL = re.compile(r"[1-9][0-9]{0,18}")


def _whole(value: object) -> object:
    """Ids of Telegram's making may exceed 2^53, where JavaScript's numbers end: a decimal string is as good."""
    return int(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else value


UserId = Annotated[int, Field(ge=1, lt=2**53)]
BigId = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=BIGINT_MAX)]
PriceNano = Annotated[int, Field(ge=1, lt=2**53)]
# PostgreSQL keeps no NUL, and nobody reads the other control characters.
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=PRINTABLE)]


class Secret:
    """Marks a field that is stored encrypted, shown nowhere, and erased when the request it feeds is final."""


SECRET = Secret()


class Invalid(Exception):
    """A submission that is not a command. `errors` is [(path, message)], path in dotted form."""

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{path}: {message}" for path, message in errors))
        self.errors = errors

    @classmethod
    def from_pydantic(cls, error: ValidationError, prefix: str) -> "Invalid":
        """One error a path."""
        seen: dict[str, str] = {}
        for item in error.errors(include_url=False, include_input=False, include_context=False):
            path = ".".join([prefix, *(str(step) for step in item["loc"])]).strip(".")
            seen.setdefault(path, item["msg"])
        return cls(*seen.items())


class Command(BaseModel):
    """An immutable request to change state; may be refused.

    Class facts: `kind`, its stable name on the wire; `sent_by`, who may send it; `releases_only`, whether a blocked
    user may send it, because it only gives things back; `needs_key`, whether it is refused without an idempotency key;
    `for_newcomers`, whether a user who is not registered may send it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ClassVar[str]
    sent_by: ClassVar[frozenset[Sender]]
    releases_only: ClassVar[bool]
    needs_key: ClassVar[bool]
    for_newcomers: ClassVar[bool]

    @classmethod
    def __init_subclass__(
        cls,
        *,
        kind: str = "",
        sent_by: frozenset[Sender] = frozenset(),
        releases_only: bool = False,
        needs_key: bool = False,
        for_newcomers: bool = False,
        **_: Any,
    ) -> None:
        """A class without a kind is a base of several commands."""
        cls.kind, cls.sent_by = kind, sent_by
        cls.releases_only, cls.needs_key, cls.for_newcomers = releases_only, needs_key, for_newcomers
        if kind:
            KINDS[kind] = cls

    def check(self, terms: Terms) -> None:
        """Raises Invalid when a field is outside the bounds of the terms. Checked once, at submission."""

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        """What the command is about, `<type>:<id>`: commands of one asset execute in the order of acceptance."""
        raise NotImplementedError

    def touches(self, book: "Book", envelope: "Envelope") -> Iterator["Need"]:
        """The documents that `execute` will ask for, as far as those already in the book tell; asked until it adds
        none. The actor's user record needs no mention."""
        raise NotImplementedError

    def execute(self, book: "Book", envelope: "Envelope") -> dict[str, Any]:
        """The rule: guards in their documented order, then effects. Returns the result; raises Rejection."""
        raise NotImplementedError


KINDS: dict[str, type[Command]] = {}
"""Every command type by its kind; filled by declaring them."""


class Envelope(NamedTuple):
    """A command with its delivery facts. Times are the database's, in UTC."""

    id: UUID
    seq: int
    asset: str
    partition: int
    actor: int | None
    command: Command
    accepted_at: datetime
    not_after: datetime | None


def decode(kind: str, payload: bytes | str) -> Command:
    """The command of a kind from its payload, JSON. Raises Invalid, paths relative to the submission."""
    command_type = KINDS.get(kind)
    if command_type is None:
        raise Invalid(("kind", "unknown kind"))
    try:
        return command_type.model_validate_json(payload)
    except ValidationError as error:
        raise Invalid.from_pydantic(error, "payload") from None


def require_within(path: str, value: int | None, minimum: int, maximum: int) -> None:
    """Raises Invalid unless minimum ≤ value ≤ maximum; None passes."""
    if value is not None and not minimum <= value <= maximum:
        raise Invalid((f"payload.{path}", f"must be between {minimum} and {maximum}"))


class Unreadable(Command):
    """A stored command that this version cannot read; executing it sets it aside as failed."""

    reason: str

    def touches(self, book: "Book", envelope: "Envelope") -> Iterator["Need"]:
        yield from ()

    def execute(self, book: "Book", envelope: "Envelope") -> dict[str, Any]:
        raise ValueError(self.reason)
