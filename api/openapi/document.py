"""The description itself: every route of the application, with what its handler declares, and what all share."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from starlette.routing import BaseRoute

from api.openapi.columns import Schema
from api.openapi.commands import command_components
from api.openapi.components import HEADERS, SECURITY, TAGS, components
from api.openapi.examples import example_of
from api.openapi.operation import JSON, Answer, Operation, operation_of, ref
from api.problems import PROBLEMS, RETRY_SECONDS
from api.submit import CommandBody
from storage.settings import Settings

_INFO = """Commands to a marketplace of collectible gifts: accepted durably, executed in order per asset, once.

Money is integers of nanoTON. Ids of nfts, gifts and channels are decimal strings in answers; commands take integers
too.
A refusal by the rules is an outcome, in a receipt; a problem is an answer to a request that was not valid."""

_BOUNDS = ("minimum", "maximum", "maxItems")


def build(routes: Iterable[BaseRoute], settings: Settings) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    schemas = components() | command_components(CommandBody, settings)
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for path, method, operation in operations(routes):
        described = _Described(operation, schemas).as_json(operation_id(method, path))
        paths[path][method] = _bounded(described, settings)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Souk", "version": version("souk"), "description": _INFO, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": dict(paths),
        "components": {"schemas": schemas, "headers": HEADERS, "securitySchemes": SECURITY},
    }


def operations(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str, Operation]]:
    """Path, method and declaration of every route that describes itself, in order."""
    for route in routes:
        operation = operation_of(route)
        if operation is not None:
            path = re.sub(r":\w+}", "}", getattr(route, "path", ""))
            methods = sorted(getattr(route, "methods", None) or {"GET"}, reverse=True)
            yield from ((path, name.lower(), operation) for name in methods if name != "HEAD")  # which every GET has


def operation_id(method: str, path: str) -> str:
    return "_".join([method, *re.findall(r"\w+", path.removeprefix("/v1"))])


class _Described:
    """One operation on its way into the document."""

    def __init__(self, operation: Operation, schemas: Mapping[str, Schema]) -> None:
        self._operation = operation
        self._schemas = schemas

    def as_json(self, name: str) -> dict[str, Any]:
        operation = self._operation
        facts: dict[str, Any] = {
            "operationId": name,
            "tags": [operation.tag],
            "summary": operation.summary,
            "parameters": [parameter.as_json() for parameter in operation.parameters],
            "responses": self._answers() | self._problems(),
            "security": [{scheme: []} for scheme in operation.access],
        }
        if operation.description:
            facts["description"] = operation.description
        if operation.body is not None:
            facts["requestBody"] = {"required": True, "content": {JSON: self._content(operation.body)}}
        return facts

    def _answers(self) -> dict[str, Any]:
        return {str(status): self._answer(answer) for status, answer in self._operation.answers.items()}

    def _answer(self, answer: Answer) -> dict[str, Any]:
        facts: dict[str, Any] = {"description": answer.description}
        if answer.headers:
            facts["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in answer.headers}
        if answer.links:
            facts["links"] = answer.links
        if answer.content is not None:
            by_type = any("/" in key for key in answer.content)
            schemas: Mapping[str, Schema] = answer.content if by_type else {JSON: dict(answer.content)}
            facts["content"] = {
                media_type: self._content(schema, answer.example) for media_type, schema in schemas.items()
            }
        return facts

    def _content(self, schema: Schema, example: Any = None) -> dict[str, Any]:
        discriminated = self._schemas.get(schema.get("$ref", "").rpartition("/")[2], {}).get("oneOf")
        if discriminated is not None:
            names = [part["$ref"].rpartition("/")[2] for part in discriminated]
            examples = {name: {"value": example_of(ref(name), self._schemas)} for name in names}
            return {"schema": schema, "examples": examples}
        return {"schema": schema, "example": example_of(schema, self._schemas) if example is None else example}

    def _problems(self) -> dict[str, Any]:
        always = ("unauthenticated", "unavailable", "internal") if self._operation.access else ("internal",)
        by_status: defaultdict[int, list[str]] = defaultdict(list)
        for code in (*always, *self._operation.problems):
            by_status[PROBLEMS[code][0]].append(code)
        return {
            str(status): self._problem(status, codes)
            for status, codes in sorted(by_status.items())
            if status not in self._operation.answers
        }

    def _problem(self, status: int, codes: Sequence[str]) -> dict[str, Any]:
        narrowed = {"properties": {"status": {"const": status}, "code": {"enum": list(codes)}}}
        schema = {"allOf": [ref("Problem"), narrowed]}
        example = {
            "type": "about:blank",
            "title": codes[0].replace("_", " "),
            "status": status,
            "code": codes[0],
            "detail": PROBLEMS[codes[0]][1],
        }
        facts: dict[str, Any] = {
            "description": " ".join(f"`{code}`: {PROBLEMS[code][1]}" for code in codes),
            "content": {"application/problem+json": {"schema": schema, "example": example}},
        }
        headers = ["Retry-After"] if RETRY_SECONDS.keys() & set(codes) else []
        headers += ["WWW-Authenticate"] if "unauthenticated" in codes else []
        if headers:
            facts["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
        return facts


def _bounded(part: Any, settings: Settings) -> Any:
    """The same, with the numbers of settings that are named as bounds."""
    if isinstance(part, list):
        return [_bounded(each, settings) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        key: getattr(settings, each) if key in _BOUNDS and isinstance(each, str) else _bounded(each, settings)
        for key, each in part.items()
    }
