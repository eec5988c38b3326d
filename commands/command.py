"""The language: what a command is, how it is read from JSON, and what travels with it.

A command type is one class in the file of its mechanism: wire form (pydantic fields), bounds (`check`), the asset that
routes it, the documents it touches, and its rule (`execute`). Declaring the class is all there is to adding one:

    class Buy(Command, kind="nft.buy", sent_by=USER, rejects=(Code.NFT_NOT_FOUND, …)): …
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from commands.outcome import Code
from commands.terms import Terms

if TYPE_CHECKING:
    from commands.book import Book
    from commands.document import Need


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
BIG_ID_FORMAT = "big-id"
BigId = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=1, le=BIGINT_MAX),
    WithJsonSchema({"type": ["integer", "string"], "format": BIG_ID_FORMAT}),
]
PriceNano = Annotated[int, Field(ge=1, lt=2**53)]


class Within(NamedTuple):
    """Marks an integer that the terms bound: the names of its least and its most."""

    least: str
    most: str


Price = Annotated[PriceNano, Within("price_min_nano", "price_max_nano")]
"""What users name."""
# A moment has an offset on the wire. The bounds leave room for what is added to one.
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC)),
    AfterValidator(lambda moment: moment.astimezone(UTC)),
]
# PostgreSQL keeps no NUL, and nobody reads the other control characters.
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=PRINTABLE)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=PRINTABLE)]
"""Why an operator did something; kept with the command."""


SEALED = "sealed"
"""What stands for a secret in stored payloads and in whatever rules make of them."""
_STORED = "stored"


class Secret:
    """Marks a text that is stored encrypted, shown nowhere, and erased when the request it feeds is final. The last
    mark of its field: the others bound what is submitted, and a stored payload has SEALED there."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(self._read, handler(source))

    @staticmethod
    def _read(value: object, submitted: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        return value if info.context == _STORED and value == SEALED else submitted(value)


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

    Class facts: `kind`, its stable name on the wire; `sent_by`, who may send it; `rejects`, the codes that `execute`
    raises, in the order in which it looks for them; `releases_only`, whether a blocked user may send it, because it
    only gives things back; `needs_key`, whether it is refused without an idempotency key; `for_newcomers`, whether a
    user who is not registered may send it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ClassVar[str]
    sent_by: ClassVar[frozenset[Sender]]
    rejects: ClassVar[tuple[Code, ...]]
    releases_only: ClassVar[bool]
    needs_key: ClassVar[bool]
    for_newcomers: ClassVar[bool]

    @classmethod
    def __init_subclass__(
        cls,
        *,
        kind: str = "",
        sent_by: frozenset[Sender] = frozenset(),
        rejects: tuple[Code, ...] = (),
        releases_only: bool = False,
        needs_key: bool = False,
        for_newcomers: bool = False,
        **_: Any,
    ) -> None:
        """A class without a kind is a base of several commands."""
        cls.kind, cls.sent_by, cls.rejects = kind, sent_by, rejects
        cls.releases_only, cls.needs_key, cls.for_newcomers = releases_only, needs_key, for_newcomers
        if kind:
            KINDS[kind] = cls

    def check(self, terms: Terms) -> None:
        """Raises Invalid when a field is outside the bounds of the terms. Checked once, at submission."""
        for name, (least, most) in bounds(type(self), terms).items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise Invalid((f"payload.{name}", f"must be between {least} and {most}"))

    def asset(self, envelope_id: UUID, actor: int | None) -> str:
        """What the command is about, `<type>:<id>`: commands of one asset execute in the order of acceptance."""
        raise NotImplementedError

    def touches(self, book: "Book", envelope: "Envelope") -> Iterator["Need"]:
        """The documents that `execute` will ask for, as far as those already in the book tell; asked until it adds
        none. The actor's user record needs no mention."""
        raise NotImplementedError

    def execute(self, book: "Book", envelope: "Envelope") -> dict[str, Any]:
        """The rule: guards in their documented order, then effects. Returns the result; raises Rejection with one of
        the codes that the kind declares."""
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


def rejection_codes(command_type: type[Command]) -> tuple[Code, ...]:
    """Returns what a command of the kind may be rejected with, in the order in which it is looked for: the guards of
    the user in whose name it is sent, then what its rule declares."""
    guards: tuple[Code, ...] = ()
    if command_type.sent_by & USER and not command_type.for_newcomers:
        guards = (Code.USER_NOT_FOUND,) if command_type.releases_only else (Code.USER_NOT_FOUND, Code.USER_BLOCKED)
    return tuple(dict.fromkeys((*guards, *command_type.rejects)))


def _marks(annotation: object) -> Iterator[object]:
    yield annotation
    for part in get_args(annotation):
        yield from _marks(part)


@cache
def _marked(command_type: type[Command], mark: type[Secret | Within]) -> dict[str, Any]:
    """The fields that have a mark of the type, with the mark."""
    fields = command_type.model_fields.items()
    return {
        name: found
        for name, field in fields
        for part in (field.annotation, *field.metadata)
        for found in _marks(part)
        if isinstance(found, mark)
    }


def secret_fields(command_type: type[Command]) -> tuple[str, ...]:
    """The fields marked with SECRET."""
    return tuple(_marked(command_type, Secret))


def bounds(command_type: type[Command], terms: Terms) -> dict[str, tuple[int, int]]:
    """The least and the most of the fields that the terms bound."""
    marked = _marked(command_type, Within).items()
    return {name: (getattr(terms, within.least), getattr(terms, within.most)) for name, within in marked}


def decode(kind: str, payload: bytes | str, *, stored: bool = False) -> Command:
    """The command of a kind from its payload, JSON: as submitted, or as stored with its secrets sealed. Raises Invalid,
    paths relative to the submission."""
    command_type = KINDS.get(kind)
    if command_type is None:
        raise Invalid(("kind", "unknown kind"))
    try:
        return command_type.model_validate_json(payload, context=_STORED if stored else None)
    except ValidationError as error:
        raise Invalid.from_pydantic(error, "payload") from None


class Unreadable(Command):
    """A stored command that this version cannot read; executing it sets it aside as failed."""

    reason: str

    def touches(self, book: "Book", envelope: "Envelope") -> Iterator["Need"]:
        yield from ()

    def execute(self, book: "Book", envelope: "Envelope") -> dict[str, Any]:
        raise ValueError(self.reason)
