"""Problems: what the API says when a request is not answered, as application/problem+json (RFC 9457).

PROBLEMS names all there are.
"""

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from commands.command import Invalid
from storage.journal.accept import KeyReused, Overloaded, TooManyUnfinished
from storage.postgres.connection import Unavailable, is_weather

logger = logging.getLogger(__name__)

PROBLEMS = {
    "malformed": (400, "The body is not JSON, or ended early."),
    "unauthenticated": (401, "There is no credential, or it is unknown or revoked."),
    "forbidden": (403, "The credential may not do or read this."),
    "not_found": (404, "There is no such thing, or it is somebody else's."),
    "method_not_allowed": (405, "The path is there, but not for this method."),
    "already_final": (409, "The command has its outcome; `receipt` shows it."),
    "limit_reached": (409, "There are as many of them as one may have; `limit` says how many."),
    "too_large": (413, "The body or the batch is larger than is taken."),
    "unsupported_media_type": (415, "The body is not declared as application/json."),
    "invalid": (422, "The request is well-formed but not valid; `errors` says where."),
    "idempotency_key_reused": (422, "The key was used before, with another kind or payload."),
    "too_many_requests": (429, "The actor has too many unfinished commands, or the credential too many streams."),
    "internal": (500, "Something is wrong on our side; `id` names the incident."),
    "overloaded": (503, "Too many commands are waiting for execution."),
    "unavailable": (503, "The database cannot be reached, or this is not offered here."),
}
"""The status of each code, and what it says."""
RETRY_SECONDS = {"too_many_requests": 1, "overloaded": 2, "unavailable": 1}


class Problem(Exception):
    """An answer other than the one asked for. `more` are further members of its object, JSON values."""

    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.more = more

    def as_json(self) -> dict[str, Any]:
        title = self.code.replace("_", " ")
        return {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        } | (self.more)

    def response(self) -> Response:
        headers: dict[str, str] = {}
        if self.code in RETRY_SECONDS:
            headers["Retry-After"] = str(RETRY_SECONDS[self.code])
        if self.code == "unauthenticated":
            headers["WWW-Authenticate"] = "Bearer"
        return json_response(self.as_json(), self.status, headers, media_type="application/problem+json")


# What routes raise to answer with; anything else is a bug, which the server logs too.
EXPECTED = (
    Problem,
    Invalid,
    KeyReused,
    Overloaded,
    TooManyUnfinished,
    Unavailable,
    SQLAlchemyError,
    OSError,
    TimeoutError,
)


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    return Response(to_json(content), status, headers, media_type)


def not_found() -> Problem:
    """There is no such thing, or it is not the caller's: nobody can tell which."""
    return Problem(404, "not_found", "There is nothing here for you.")


def problem_of(error: Exception) -> Problem:
    """The problem that an exception means to the client. What nobody foresaw is logged under an id, and only that goes
    out."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Invalid):
        errors = [{"path": path, "message": message} for path, message in error.errors]
        return Problem(422, "invalid", "The request is well-formed but not valid.", errors=errors)
    if isinstance(error, KeyReused):
        detail = "The idempotency key was used before, with another kind or payload."
        return Problem(422, "idempotency_key_reused", detail)
    if isinstance(error, Overloaded):
        return Problem(503, "overloaded", "Too many commands are waiting for execution; try again soon.")
    if isinstance(error, TooManyUnfinished):
        return Problem(429, "too_many_requests", "The actor has too many unfinished commands.", limit=error.args[0])
    if isinstance(error, Unavailable) or is_weather(error):
        logger.warning("unavailable: %r", error)
        return Problem(
            503, "unavailable", "The database cannot be reached right now. Repeat with the same idempotency key."
        )
    incident = secrets.token_hex(8)
    logger.error("internal error %s", incident, exc_info=error)
    return Problem(500, "internal", "Something is wrong on our side.", id=incident)


async def answer_problem(_: Request, error: Exception) -> Response:
    return problem_of(error).response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such route, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    if error.status_code == HTTPStatus.NOT_FOUND:
        return not_found().response()
    code = {405: "method_not_allowed"}.get(error.status_code, "malformed")
    response = Problem(error.status_code, code, error.detail).response()
    response.headers.update(error.headers or {})
    if "allow" in response.headers:
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """Those of all routes of the path: each is a route of its own, and the first alone is named otherwise."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    path = next((route.path for route in routes if route.path_regex.match(request.scope["path"])), None)
    return {method for route in routes if route.path == path for method in route.methods or ()}
