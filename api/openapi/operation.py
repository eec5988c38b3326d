"""How a route describes itself: a declaration on its handler, whose docstring gives the summary.

@described("commands", answers={200: Answer("…", RECEIPT)}, problems=("not_found",))
async def one(self, request: Request) -> Response:
    \"\"\"GET /v1/commands/{id}: a receipt, waited for if wanted.\"\"\"
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from api.openapi.columns import Schema

Handler = TypeVar("Handler", bound=Callable[..., Any])

JSON = "application/json"
_ROUTE = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) /\S*[^\s:]: ")


def ref(name: str) -> Schema:
    """The component of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


class Parameter(NamedTuple):
    """`place` is query, path or header."""

    name: str
    schema: Schema
    description: str = ""
    place: str = "query"
    required: bool = False

    def as_json(self) -> dict[str, Any]:
        described = {"description": self.description} if self.description else {}
        many = {"style": "form", "explode": True} if self.schema.get("type") == "array" else {}
        facts = {"name": self.name, "in": self.place, "required": self.required, "schema": self.schema}
        return facts | described | many


class Answer(NamedTuple):
    """An answer: its content by media type (a schema alone is JSON's), and the names of its headers."""

    description: str
    content: Schema | Mapping[str, Schema] | None = None
    headers: Sequence[str] = ()
    example: Any = None
    links: Mapping[str, Any] = {}


class Operation(NamedTuple):
    """What a route takes and answers, besides what all routes do. `access` is how to show who one is."""

    tag: str
    summary: str
    description: str = ""
    parameters: Sequence[Parameter] = ()
    body: Schema | None = None
    answers: Mapping[int, Answer] = {}
    problems: Sequence[str] = ()
    access: Sequence[str] = ("bearer",)


def described(tag: str, **facts: Any) -> Callable[[Handler], Handler]:
    """Declares the operation of a handler."""

    def declare(handler: Handler) -> Handler:
        text = _ROUTE.sub("", handler.__doc__ or "", count=1)
        summary, _, description = (part.strip() for part in re.sub(r"\n +", "\n", text).partition("\n\n"))
        words = " ".join(summary.split())
        declared = {"summary": words[:1].upper() + words[1:], "description": " ".join(description.split())} | facts
        handler.operation = Operation(tag, **declared)  # type: ignore[attr-defined]
        return handler

    return declare


def operation_of(route: Any) -> Operation | None:
    """What the route's handler declares."""
    found: Operation | None = getattr(getattr(route, "endpoint", None), "operation", None)
    return found
