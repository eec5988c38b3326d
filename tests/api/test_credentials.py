"""Who may send what, and see what: nothing is open by default."""

import time
from typing import Any

import pytest

from storage.keys import Role, create_key, revoke_key
from tests.api.api import Api, assert_problem
from tests.deadline import eventually
from tests.market import TON, buy, deposit, receive, register, set_price, transfer

SYSTEM_KINDS = {"market.deposit", "nft.receive"}
USER_KINDS = {"nft.set_price", "nft.buy", "nft.transfer"}
EVERY_KIND = {
    "users.register": register(42),
    "market.deposit": deposit("hello", TON, 1),
    "nft.receive": receive(42, 42),
    "nft.set_price": set_price(42, 42),
    "nft.buy": buy(42, 42),
    "nft.transfer": transfer(42, 42, 43),
}
MAY_SEND = {
    Role.OPERATOR: {"users.register"} | SYSTEM_KINDS | USER_KINDS,
    Role.FEED: {"users.register"} | SYSTEM_KINDS,
    Role.SERVICE: {"users.register"} | USER_KINDS,
    Role.USER: {"users.register"} | USER_KINDS,
}
PRIVATE = [
    ("GET", "/v1/commands"),
    ("GET", "/v1/commands/0197b0c4-0000-7000-8000-000000000000"),
    ("GET", "/v1/listings"),
    ("GET", "/v1/nfts/1"),
    ("GET", "/v1/users/me"),
    ("GET", "/v1/users/me/nfts"),
    ("GET", "/v1/users/me/deals"),
    ("POST", "/v1/commands"),
    ("POST", "/v1/commands/batch"),
]


def bound(role: Role) -> int | None:
    return 42 if role is Role.USER else None


@pytest.mark.parametrize(("method", "path"), PRIVATE)
async def test_nothing_is_told_without_a_credential(api: Api, method: str, path: str) -> None:
    async with api.unchanged():
        response = await api.anonymous.request(method, path, json=register(1) if method == "POST" else None)
        assert_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_credential_is_none(api: Api) -> None:
    key_id, key = await create_key(api.engine, Role.OPERATOR)
    wrong: dict[str, str | bytes] = {
        "unknown": f"Bearer souk_{key_id}_{'x' * 43}",
        "cut off": f"Bearer {key[:-1]}",
        "longer": f"Bearer {key}x",
        "other case": f"Bearer {key.upper()}",
        "its id": f"Bearer {key_id}",
        "no scheme": key,
        "no key": "Bearer",
        "empty key": "Bearer ",
        "a space before": f"Bearer  {key}",
        "quoted": f'Bearer "{key}"',
        "other scheme": f"Token {key}",
        "basic": "Basic b3BlcmF0b3I6b3BlcmF0b3I=",
        "very long": f"Bearer {'x' * 100_000}",
        "not ASCII": f"Bearer {key}é",
        "not text": b"Bearer \xff\xfe\x00",
        "SQL": "Bearer ' OR 1=1 --",
        "Mini App": "tma query_id=1&user=%7B%22id%22%3A42%7D&hash=00",
    }
    async with api.unchanged():
        for name, header in wrong.items():
            value = header if isinstance(header, bytes) else header.encode()
            response = await api.anonymous.post("/v1/commands", json=register(1), headers=[(b"Authorization", value)])
            assert response.status_code == 401, name
            assert_problem(response, 401, "unauthenticated")
            assert key not in response.text


async def test_a_credential_in_the_query_is_none(api: Api) -> None:
    _, key = await create_key(api.engine, Role.OPERATOR)
    for name in ("key", "token", "access_token", "api_key", "authorization"):
        assert_problem(await api.anonymous.get("/v1/listings", params={name: key}), 401, "unauthenticated")


async def test_the_scheme_may_have_any_case(api: Api) -> None:
    _, key = await create_key(api.engine, Role.OPERATOR)
    response = await api.anonymous.get("/v1/commands", headers={"Authorization": f"bEARER {key}"})
    assert response.status_code == 200


async def test_a_revoked_key_stops_working_within_a_second(api: Api) -> None:
    key_id, key = await create_key(api.engine, Role.OPERATOR)
    client = api.with_key(key)
    assert (await client.get("/v1/commands")).status_code == 200
    assert await revoke_key(api.engine, key_id)

    async def refused() -> bool:
        return (await client.post("/v1/commands", json=register(1))).status_code == 401

    await eventually(refused, 1.5, "it still works")
    async with api.unchanged():
        assert_problem(await client.post("/v1/commands", json=register(1)), 401, "unauthenticated")


async def test_a_key_is_stored_as_its_hash_only(api: Api) -> None:
    _, key = await create_key(api.engine, Role.SERVICE)
    assert (await api.with_key(key).get("/v1/listings")).status_code == 200
    async with api.engine.connect() as connection:
        rows = (await connection.exec_driver_sql("SELECT k::text FROM api_keys k")).scalars().all()
    secret = key.rpartition("_")[2]
    assert rows
    assert not any(key in row or secret in row or secret.encode().hex() in row for row in rows)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("role", Role)
async def test_a_role_sends_its_kinds_and_no_other(api: Api, role: Role, kind: str) -> None:
    client = await api.as_role(role, bound(role))
    if kind in MAY_SEND[role]:
        assert (await client.post("/v1/commands", json=EVERY_KIND[kind])).status_code == 202
        return
    async with api.unchanged():
        assert_problem(await client.post("/v1/commands", json=EVERY_KIND[kind]), 403, "forbidden")
        batch = await client.post("/v1/commands/batch", json={"commands": [EVERY_KIND[kind]]})
        assert [(item["status"], item["code"]) for item in batch.json()["receipts"]] == [(403, "forbidden")]


async def test_whether_a_kind_is_allowed_is_said_before_whether_its_payload_is_valid(api: Api) -> None:
    client = await api.as_role(Role.USER, 42)
    response = await client.post("/v1/commands", json={"kind": "market.deposit", "payload": {}})
    assert_problem(response, 403, "forbidden")


async def test_a_users_key_is_the_actor(api: Api) -> None:
    client = await api.as_role(Role.USER, 42)
    command = {name: value for name, value in set_price(42, 1).items() if name != "actor"}
    for extra in ({}, {"actor": 42}, {"actor": None}):
        receipt = (await client.post("/v1/commands", json=command | extra)).json()
        assert receipt["actor"] == 42


@pytest.mark.parametrize("command", [set_price(43, 1), register(42) | {"actor": 43}, register(43)])
async def test_a_users_key_sends_in_no_other_name(api: Api, command: dict[str, Any]) -> None:
    client = await api.as_role(Role.USER, 42)
    async with api.unchanged():
        assert_problem(await client.post("/v1/commands", json=command), 403, "forbidden")


async def test_a_users_key_registers_its_user(api: Api) -> None:
    client = await api.as_role(Role.USER, 42)
    receipt = (await client.post("/v1/commands", json=register(42))).json()
    assert (receipt["actor"], receipt["asset"]) == (42, "user:42")


async def test_a_feed_sends_in_nobodys_name(api: Api) -> None:
    client = await api.as_role(Role.FEED)
    async with api.unchanged():
        assert_problem(await client.post("/v1/commands", json=receive(42, 42) | {"actor": 42}), 403, "forbidden")


async def ids_seen(client: Any, **query: Any) -> set[str]:
    seen: set[str] = set()
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/v1/commands", params={"limit": 100, **query, **cursor})).json()
        seen |= {item["id"] for item in page["items"]}
        if page["next"] is None:
            return seen
        cursor = {"cursor": page["next"]}


async def test_a_command_is_seen_by_who_may_see_it_and_does_not_exist_for_others(api: Api) -> None:
    ours = {
        "user 50": (await api.send(set_price(50, 1)))["id"],
        "user 51": (await api.send(set_price(51, 1)))["id"],
        "registered": (await api.send(register(50)))["id"],
        "deposit": (await api.send(deposit("hello", TON, 2)))["id"],
    }
    sees = {
        (Role.OPERATOR, None): set(ours),
        (Role.SERVICE, None): {"user 50", "user 51"},
        (Role.FEED, None): {"registered", "deposit"},
        (Role.USER, 50): {"user 50"},
        (Role.USER, 51): {"user 51"},
        (Role.USER, 52): set(),
    }
    for (role, user_id), names in sees.items():
        client = await api.as_role(role, user_id)
        listed = await ids_seen(client)
        for name, command_id in ours.items():
            response = await client.get(f"/v1/commands/{command_id}")
            if name in names:
                assert (response.status_code, response.json()["id"]) == (200, command_id), (role, user_id, name)
            else:
                assert_problem(response, 404, "not_found")
            assert (command_id in listed) == (name in names), (role, user_id, name)


async def test_a_filter_does_not_widen_what_a_user_sees(api: Api) -> None:
    other = (await api.send(set_price(53, 1)))["id"]
    client = await api.as_role(Role.USER, 54)
    for query in ({"actor": 53}, {"asset": "nft:1"}, {"kind": "nft.set_price"}, {"status": "accepted"}):
        assert other not in await ids_seen(client, **query)


async def test_waiting_for_anothers_command_is_answered_at_once(api: Api) -> None:
    other = (await api.send(set_price(53, 1)))["id"]
    client = await api.as_role(Role.USER, 54)
    start = time.monotonic()
    assert_problem(await client.get(f"/v1/commands/{other}?wait=30"), 404, "not_found")
    assert time.monotonic() - start < 5
