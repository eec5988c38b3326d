"""Examples made from schemas: valid by construction of their schemas, and with values that could be real."""

from collections.abc import Mapping
from typing import Any

from api.openapi.columns import Schema

_UUID = "0197b0c4-7f3a-7c1e-9a51-3d2f6b8c4e10"
_BY_NAME: dict[str, Any] = {
    "actor": 42,
    "address": "EQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPrHF",
    "asset": "nft:17",
    "backdrop": "Onyx Black",
    "code": "12345",
    "collection": "Plush Pepe",
    "detail": "The available balance does not cover the amount.",
    "duration_seconds": 3_600,
    "gifts_hash": "9f2c",
    "hash": "5e" * 32,
    "idempotency_key": "order-8121",
    "language": "en",
    "market": "souk",
    "memo": "souk-42",
    "model": "Cozy",
    "name": "Plush Pepe",
    "next": None,
    "not_after": None,
    "pattern": "Stars",
    "phone": "+12025550123",
    "run_at": None,
    "self": f"/v1/commands/{_UUID}",
    "slug": "PlushPepe-17",
    "step_bp": 1_000,
    "username": "gifts",
}
_BY_FORMAT = {"uuid": _UUID, "date-time": "2030-01-01T00:00:00Z"}
_TON = 1_000_000_000


def example_of(schema: Schema, components: Mapping[str, Schema], name: str = "") -> Any:
    """A value of the schema; `name` is the property's."""
    if "$ref" in schema:
        return example_of(components[schema["$ref"].rpartition("/")[2]], components, name)
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if name in _BY_NAME and not schema.get("properties") and _BY_NAME[name] in schema.get("enum", [_BY_NAME[name]]):
        return _BY_NAME[name]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return example_of(schema[choice][0], components, name)
    if "allOf" in schema:
        parts = [example_of(part, components, name) for part in schema["allOf"]]
        return {key: value for part in parts for key, value in part.items()}
    kind = schema.get("type", "object")
    return _of_type(kind if isinstance(kind, str) else kind[0], schema, components, name)


def _of_type(kind: str, schema: Schema, components: Mapping[str, Schema], name: str) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {key: example_of(part, components, key) for key, part in properties.items()}
        case "array":
            return [example_of(schema["items"], components, name.removesuffix("s"))]
        case "integer" | "number":
            least = schema.get("minimum", 0)
            wanted = 5 * _TON if name.endswith("_nano") else 17
            return max(least, min(wanted, schema.get("maximum", wanted)))
        case "boolean":
            return False
        case "null":
            return None
    return _BY_FORMAT.get(schema.get("format", ""), "text")
