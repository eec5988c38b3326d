"""What operations share: receipts, problems, headers, and how to show who one is."""

from typing import Any

from api.openapi.columns import NAMED, Schema, list_of, object_of
from api.openapi.operation import Parameter, ref
from api.problems import PROBLEMS
from commands.outcome import Status

TAGS = {
    "commands": "Submitting commands, and what came of them",
    "events": "What happened, as it happens",
    "webhooks": "What happened, delivered",
    "market": "What everybody may see",
    "mine": "What is one's own",
    "operators": "What operators look at",
    "process": "The process itself",
}
SECURITY: dict[str, Schema] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of any role.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "souk_session",
        "description": "What `POST /v1/session` sets, for browsers, whose streams cannot send headers.",
    },
}

_ID = "0197b0c4-7f3a-7c1e-9a51-3d2f6b8c4e10"
RECEIPT: dict[str, Any] = {
    "id": _ID,
    "kind": "nft.buy",
    "actor": 42,
    "asset": "nft:17",
    "partition": 11,
    "status": "accepted",
    "accepted_at": "2030-01-01T00:00:00.000000Z",
    "finished_at": None,
    "result": None,
    "rejection": None,
    "links": {"self": f"/v1/commands/{_ID}"},
}
_REJECTION = {
    "code": "INSUFFICIENT_BALANCE",
    "detail": "The available balance does not cover the amount.",
    "required_nano": 5_000_000_000,
    "available_nano": 1_000_000_000,
}
_FINISHED = {"finished_at": "2030-01-01T00:00:00.007000Z"}
REJECTED_RECEIPT = RECEIPT | _FINISHED | {"status": "rejected", "rejection": _REJECTION}
SUCCEEDED_RECEIPT = RECEIPT | _FINISHED | {"status": "succeeded", "result": {"deal_id": _ID}}


def _header(description: str, example: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string", **schema}, "example": example}


HEADERS: dict[str, dict[str, Any]] = {
    "ETag": _header("Names this answer: sent as If-None-Match, it saves sending the same again.", '"9f2c5e"'),
    "Idempotency-Replayed": _header("An earlier submission with the same key made the command.", "true", const="true"),
    "Location": _header("Where the receipt is.", f"/v1/commands/{_ID}"),
    "Preference-Applied": _header("The wait that was granted.", "wait=5", pattern="^wait="),
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}, "example": 1},
    "Set-Cookie": _header("The session.", "souk_session=…; HttpOnly; Path=/v1; SameSite=strict"),
    "WWW-Authenticate": _header("How to show who one is.", "Bearer"),
}
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "The same as `idempotency_key` in the body: a repeated key answers as the first time did.",
    "header",
)
PREFER = Parameter(
    "Prefer",
    {"type": "string", "examples": ["wait=5"]},
    "`wait=S`: answer with the final receipt if there is one within S seconds.",
    "header",
)
IF_NONE_MATCH = Parameter("If-None-Match", {"type": "string"}, "The ETag of an answer that is there already.", "header")
_NULLABLE_OBJECT: Schema = {"type": ["object", "null"]}
_TIME_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}


def components() -> dict[str, Schema]:
    """Schemas by name."""
    return NAMED | {"Receipt": _receipt(), "Rejection": _rejection(), "Problem": _problem(), "ProblemCode": _codes()}


def _receipt() -> Schema:
    return object_of(
        {
            "id": {"type": "string", "format": "uuid", "description": "UUIDv7."},
            "kind": {"type": "string", "examples": ["nft.buy"]},
            "actor": {"type": ["integer", "null"], "format": "int64", "description": "In whose name it was sent."},
            "asset": {"type": "string", "description": "What it is about; commands of one asset execute in order."},
            "partition": {"type": "integer", "minimum": 0},
            "status": {"type": "string", "enum": [str(status) for status in Status], "examples": ["rejected"]},
            "accepted_at": _TIME_OR_NULL,
            "finished_at": _TIME_OR_NULL,
            "result": _NULLABLE_OBJECT | {"description": "What came of it, if it succeeded.", "examples": [None]},
            "rejection": {"anyOf": [ref("Rejection"), {"type": "null"}]},
            "links": object_of({"self": {"type": "string"}}),
        }
    ) | {"examples": [REJECTED_RECEIPT, SUCCEEDED_RECEIPT, RECEIPT]}


def _rejection() -> Schema:
    properties = {"code": ref("RejectionCode"), "detail": {"type": "string"}}
    return {
        "type": "object",
        "description": "Why the rules said no; some codes tell more.",
        "properties": properties,
        "required": list(properties),
        "examples": [_REJECTION],
    }


def _problem() -> Schema:
    error = object_of({"path": {"type": "string"}, "message": {"type": "string"}})
    required: dict[str, Schema] = {
        "type": {"type": "string", "format": "uri-reference", "examples": ["about:blank"]},
        "title": {"type": "string"},
        "status": {"type": "integer", "examples": [422]},
        "code": ref("ProblemCode"),
        "detail": {"type": "string"},
    }
    more: dict[str, Schema] = {
        "errors": list_of(error) | {"description": "What is wrong, and where; paths in dotted form."},
        "limit": {"type": "integer", "description": "How many there may be."},
        "id": {"type": "string", "description": "Of the incident."},
    }
    return {
        "type": "object",
        "description": "RFC 9457: why a request is not answered.",
        "properties": required | more,
        "required": list(required),
    }


def _codes() -> Schema:
    codes = "\n".join(f"- `{code}` ({status}): {says}" for code, (status, says) in PROBLEMS.items())
    return {"type": "string", "enum": list(PROBLEMS), "description": codes, "examples": ["invalid"]}
