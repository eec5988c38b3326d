"""Commands that are not valid: each is refused with the path of what is wrong, and nothing is stored.

FIELDS says what each field of each kind takes; BAD says what such a field does not take (tests/api/wire.py).
"""

import copy
import json
from typing import Any
from uuid import uuid4

import pytest

from tests.api.api import Api, assert_problem
from tests.api.wire import BAD, FIELDS, GIFT, GOOD, OF_USERS, SAFE, VALID
from tests.market import TON, gift

EVERY_FIELD = [(kind, path) for kind, fields in FIELDS.items() for path in fields]


def body(kind: str, payload: Any) -> dict[str, Any]:
    actor = {"actor": 7} if kind in OF_USERS else {}
    return {"kind": kind, "payload": payload, "idempotency_key": str(uuid4()), **actor}


def changed(kind: str, path: str, value: Any) -> dict[str, Any]:
    """A valid body whose field at the path has another value."""
    payload = copy.deepcopy(VALID[kind])
    *parents, name = path.split(".")
    place = payload
    for parent in parents:
        place = place[parent]
    if value is MISSING:
        del place[name]
    else:
        place[name] = value
    return body(kind, payload)


MISSING = object()


@pytest.mark.parametrize(("kind", "path"), EVERY_FIELD)
async def test_a_field_takes_nothing_but_what_is_documented(api: Api, kind: str, path: str) -> None:
    field = FIELDS[kind][path]
    bad = BAD[field.type] + ([] if field.nullable else [None]) + ([MISSING] if field.required else [])
    async with api.unchanged():
        for value in bad:
            response = await api.operator.post("/v1/commands", json=changed(kind, path, value))
            problem = assert_problem(response, 422, "invalid")
            paths = [error["path"] for error in problem["errors"]]
            # A wrong object may miss fields of its own: those are then named.
            assert all(name == f"payload.{path}" or name.startswith(f"payload.{path}.") for name in paths), value
            assert paths, value


@pytest.mark.parametrize(("kind", "path"), EVERY_FIELD)
async def test_a_field_takes_what_is_documented_to_its_bounds(api: Api, kind: str, path: str) -> None:
    field = FIELDS[kind][path]
    good = GOOD[field.type] + ([None] if field.nullable else []) + ([] if field.required else [MISSING])
    for value in good:
        whole = changed(kind, path, value)
        if kind.startswith("presale.") and path in {"gift_id", "gift.id"}:  # they say the same
            whole["payload"]["gift_id"] = value
            if "gift" in whole["payload"]:
                whole["payload"]["gift"]["id"] = value
        await api.send(whole)


@pytest.mark.parametrize("kind", FIELDS)
async def test_a_field_nobody_knows_is_refused(api: Api, kind: str) -> None:
    async with api.unchanged():
        response = await api.operator.post("/v1/commands", json=body(kind, VALID[kind] | {"surprise": 1}))
        assert_problem(response, 422, "invalid", ["payload.surprise"])


async def test_every_wrong_field_is_named_at_once(api: Api) -> None:
    async with api.unchanged():
        payload = VALID["nft.receive"] | {"nft_id": 0, "gift": gift(17, num=0, model="", surprise=1), "more": 1}
        del payload["message_ref"]
        response = await api.operator.post("/v1/commands", json=body("nft.receive", payload))
        wrong = ["nft_id", "gift.num", "gift.model", "gift.surprise", "more", "message_ref"]
        assert_problem(response, 422, "invalid", [f"payload.{name}" for name in wrong])


@pytest.mark.parametrize("payload", [MISSING, None, 1, "x", [], [VALID["users.register"]], True])
async def test_a_payload_is_an_object(api: Api, payload: Any) -> None:
    whole = {"kind": "users.register"} if payload is MISSING else body("users.register", payload)
    async with api.unchanged():
        assert_problem(await api.operator.post("/v1/commands", json=whole), 422, "invalid", ["payload"])


@pytest.mark.parametrize("whole", [None, 1, "x", [], [body("users.register", VALID["users.register"])], True])
async def test_a_command_is_an_object(api: Api, whole: Any) -> None:
    async with api.unchanged():
        response = await api.operator.post(
            "/v1/commands", content=json.dumps(whole), headers={"Content-Type": "application/json"}
        )
        assert_problem(response, 422, "invalid")


@pytest.mark.parametrize(
    "kind",
    [
        "nft.burn",
        "",
        "NFT.BUY",
        "nft.buy ",
        "Buy",
        "nft",
        "x" * 64,
        "x" * 65,
        "nft.buy\0",
        None,
        1,
        [],
        {},
        True,
        MISSING,
    ],
)
async def test_a_kind_nobody_knows_is_refused(api: Api, kind: Any) -> None:
    whole = {"payload": VALID["nft.buy"], "actor": 7} | ({} if kind is MISSING else {"kind": kind})
    async with api.unchanged():
        assert_problem(await api.operator.post("/v1/commands", json=whole), 422, "invalid", ["kind"])


TIMES: list[Any] = [
    "", "soon", "2030-01-01", "2030-01-01T00:00:00", "2030-01-01 00:00:00", "1893456000", "1893456000000", 1893456000,
    1893456000.5, "2030-02-30T00:00:00Z", "2030-01-01T25:00:00Z", "2030-01-01T00:00:00+25:00", "20300101T000000Z",
    "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "10000-01-01T00:00:00Z", "2030-01-01T00:00:00Z\0",
    True, [], {},
]  # fmt: skip
KEYS: list[Any] = ["", "x" * 256, "a\0b", "a\nb", "\x7f", 1, 1.5, True, [], {}]
ACTORS: list[Any] = [0, -1, SAFE + 1, 2**63, 10**30, 1.0, 1.5, "7", "", True, [], {}]


@pytest.mark.parametrize(
    ("name", "bad"), [("run_at", TIMES), ("not_after", TIMES), ("idempotency_key", KEYS), ("actor", ACTORS)]
)
async def test_the_envelope_takes_nothing_but_what_is_documented(api: Api, name: str, bad: list[Any]) -> None:
    async with api.unchanged():
        for value in bad:
            whole = body("users.register", VALID["users.register"]) | {name: value}
            response = await api.operator.post("/v1/commands", json=whole)
            assert response.status_code == 422, (value, response.text)
            assert_problem(response, 422, "invalid", [name])


async def test_a_field_of_the_envelope_nobody_knows_is_refused(api: Api) -> None:
    async with api.unchanged():
        for name in ("id", "status", "partition", "asset", "fingerprint", "Kind", "surprise"):
            whole = body("users.register", VALID["users.register"]) | {name: "x"}
            assert_problem(await api.operator.post("/v1/commands", json=whole), 422, "invalid", [name])


async def test_nulls_in_the_envelope_are_as_good_as_absent(api: Api) -> None:
    nulls = dict.fromkeys(("actor", "idempotency_key", "run_at", "not_after"))
    await api.send(body("users.register", VALID["users.register"]) | nulls)


@pytest.mark.parametrize("kind", OF_USERS)
async def test_a_users_command_needs_its_user(api: Api, kind: str) -> None:
    async with api.unchanged():
        for whole in ({"kind": kind, "payload": VALID[kind]}, {"kind": kind, "payload": VALID[kind], "actor": None}):
            assert_problem(await api.operator.post("/v1/commands", json=whole), 422, "invalid", ["actor"])


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1E+999", "0.1e-999", "1" + "0" * 400, "-" + "9" * 4_000])
async def test_numbers_that_no_machine_holds_are_refused(api: Api, number: str) -> None:
    text = json.dumps(body("nft.buy", VALID["nft.buy"])).replace(str(TON), number)
    async with api.unchanged():
        response = await api.operator.post(
            "/v1/commands", content=text.encode(), headers={"Content-Type": "application/json"}
        )
        assert response.status_code in (400, 422), response.text
        assert_problem(response, response.status_code, {400: "malformed", 422: "invalid"}[response.status_code])


async def test_problems_do_not_repeat_what_was_sent(api: Api) -> None:
    secret = "canary-in-the-payload"
    for whole in (
        body("nft.buy", VALID["nft.buy"] | {"price_nano": secret}),
        body(secret, {}),
        body("nft.buy", VALID["nft.buy"]) | {"idempotency_key": secret * 20},
    ):
        response = await api.operator.post("/v1/commands", json=whole)
        assert response.status_code == 422
        assert secret not in response.text


@pytest.mark.parametrize("kind", FIELDS)
async def test_kinds_and_their_fields_are_the_documented_ones(kind: str) -> None:
    from commands.command import KINDS  # noqa: PLC0415 - the one look at the code: that the table above is complete
    from commands.nft.items import GiftFacts  # noqa: PLC0415

    assert set(KINDS[kind].model_fields) == {path for path in FIELDS[kind] if "." not in path}
    assert set(GiftFacts.model_fields) == set(GIFT)
    assert set(KINDS) == set(FIELDS)
