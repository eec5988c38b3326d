"""Commands in the description: each kind's whole body, told apart by `kind`, made from its class and the terms."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from api.openapi.columns import BIG_ID, DECIMAL, Schema
from api.openapi.operation import ref
from commands.command import BIG_ID_FORMAT, BIGINT_MAX, KINDS, Command, bounds, rejection_codes, secret_fields
from commands.outcome import Code
from commands.terms import Terms
from storage.keys import Role

_TEMPLATE = "#/components/schemas/{model}"
_NOISE = ("title", "ge", "le")


def command_components(envelope: type[BaseModel], terms: Terms) -> dict[str, Schema]:
    """The schemas of all kinds, of what they are made of, and of any command; the envelope is what all have."""
    components: dict[str, Schema] = {}
    shared = _schema_of(envelope, components)["properties"]
    bodies = {kind: _body(command, shared, terms, components) for kind, command in KINDS.items()}
    codes = "\n".join(f"- `{code.name}`: {code.value}" for code in Code)
    return components | {
        **bodies,
        "Command": {
            "description": "A command of any kind.",
            "oneOf": [ref(kind) for kind in bodies],
            "discriminator": {
                "propertyName": "kind",
                "mapping": {kind: ref(kind)["$ref"] for kind in bodies},
            },
        },
        "BigId": {
            "type": "string",
            "pattern": f"^{DECIMAL}$",
            "description": "An id of an nft, gift or channel: a decimal string, for it may exceed 2^53.",
            "examples": ["17"],
        },
        "BigIdGiven": {
            "description": "An id of an nft, gift or channel: an integer, or a decimal string.",
            "anyOf": [BIG_ID, {"type": "integer", "format": "int64", "minimum": 1, "maximum": BIGINT_MAX}],
        },
        "RejectionCode": {
            "type": "string",
            "enum": [code.name for code in Code],
            "description": f"Why the rules said no.\n\n{codes}",
        },
    }


def _body(command: type[Command], shared: dict[str, Schema], terms: Terms, components: dict[str, Schema]) -> Schema:
    payload = _schema_of(command, components)
    does = payload.pop("description", "")
    for name, (least, most) in bounds(command, terms).items():
        _bound(payload["properties"][name], least, most)
    for name in secret_fields(command):
        payload["properties"][name] |= {"writeOnly": True, "description": "Stored encrypted, shown nowhere."}
    roles = [role.value for role in Role if command.sent_by & role.sends_as]
    return {
        "type": "object",
        "title": command.kind,
        "description": " ".join([does, *(note for note in _notes(command, roles) if note not in does)]),
        "x-roles": roles,
        "x-rejections": [code.name for code in rejection_codes(command)],
        "properties": shared | {"kind": {"const": command.kind}, "payload": payload},
        "required": ["kind", "payload"],
        "additionalProperties": False,
    }


def _notes(command: type[Command], roles: list[str]) -> Iterator[str]:
    yield f"Sent with a key of role {', '.join(roles)}."
    if command.needs_key:
        yield "Needs an idempotency key."
    if command.releases_only:
        yield "Open to a blocked user."
    if codes := rejection_codes(command):
        yield f"May be rejected with {', '.join(f'`{code.name}`' for code in codes)}."


def _bound(schema: Schema, least: int, most: int) -> None:
    """Narrow the integer, where the schema has one."""
    for branch in schema.get("anyOf", [schema]):
        if branch.get("type") == "integer":
            branch.pop("exclusiveMaximum", None)
            branch |= {"minimum": least, "maximum": most}


def _schema_of(model: type[BaseModel], components: dict[str, Schema]) -> Schema:
    schema: Schema = _plain(model.model_json_schema(ref_template=_TEMPLATE))
    components |= schema.pop("$defs", {})
    return schema


def _plain(schema: Any, *, names: bool = False) -> Any:
    """Without what says nothing to readers; `names` when the keys are those of properties."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if not names and schema.get("format") == BIG_ID_FORMAT:
        return ref("BigIdGiven")
    kept = {
        key: _plain(part, names=key in ("properties", "$defs"))
        for key, part in schema.items()
        if names or key not in _NOISE
    }
    if not names and kept.get("type") == "integer":
        kept["format"] = "int64"
    return kept
