"""What a schema cannot say: where a valid body may be refused nevertheless, and which times there are."""

from datetime import datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st

UNSAID = (
    "actor",  # to be named for kinds of users', unless the key is a user's
    "not_after",  # comes after run_at
    "idempotency_key",  # in the body or in the header, and the same in both
    "payload.address",  # has a checksum
    "payload.amount_nano",  # not 0
    "payload.comment",  # has so many bytes
    "payload.gift.id",  # the same as gift_id
    "payload.gift_id",
    "payload.market",  # one of the integrations
    "payload.nft_ids",  # 17 and "17" are the same item
    "payload.requirements",
)

moments = st.datetimes(datetime(1970, 1, 2), datetime(2999, 12, 30))  # noqa: DTZ001 - its offset follows
schemathesis.openapi.format("date-time", moments.map(lambda moment: f"{moment.isoformat()}Z"))


def _with_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_integers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_integers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """A cursor is what a page gave: any other text is not valid, and no schema can tell. For a schema, 5.0 is an
    integer; for us it is not, lest somebody computes money in floats."""
    if case.meta is not None and case.meta.generation.mode.is_positive:
        case.body = _with_integers(case.body)
        for place, name in ((case.query, "cursor"), (case.query, "after"), (case.headers, "Last-Event-ID")):
            if place:
                place.pop(name, None)


@schemathesis.check
def valid_commands_are_accepted(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Unless the schema could not have said what is wrong."""
    if case.operation.label != "POST /v1/commands" or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code == 422:
        problem = response.json()
        wrong = [error for error in problem.get("errors", ()) if error["path"] not in UNSAID]
        assert not wrong, wrong
        assert problem["code"] == "idempotency_key_reused" or problem["errors"]
    else:
        assert response.status_code in (200, 202, 403, 409, 429, 503), response.status_code
