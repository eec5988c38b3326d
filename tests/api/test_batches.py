"""Batches: each item a receipt or a problem, in the order sent; one bad item harms no other."""

import json
from typing import Any

import httpx
import pytest

from storage.keys import Role
from tests.api.api import Api, assert_problem
from tests.market import TON, buy, deposit, receive, register, set_price, transfer


async def post(api: Api, commands: Any, **headers: str) -> httpx.Response:
    return await api.operator.post("/v1/commands/batch", json={"commands": commands}, headers=headers)


@pytest.mark.parametrize(
    "body",
    [{}, [], None, 1, {"commands": None}, {"commands": {}}, {"commands": "x"}, {"commands": []},
     {"commands": [register(1)], "more": 1}, [register(1)], {"receipts": [register(1)]}],
)  # fmt: skip
async def test_a_batch_is_a_list_of_commands(api: Api, body: Any) -> None:
    async with api.unchanged():
        response = await api.operator.post(
            "/v1/commands/batch", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert_problem(response, 422, "invalid", ["commands"])


async def test_a_thousand_commands_are_a_batch_and_one_more_are_too_many(api: Api) -> None:
    commands = [register(number) for number in range(1, 1_002)]
    async with api.unchanged():
        assert_problem(await post(api, commands), 413, "too_large")
    response = await post(api, commands[:1_000])
    assert response.status_code == 202
    assert int(response.headers["retry-after"]) >= 1
    assets = [receipt["asset"] for receipt in response.json()["receipts"]]
    assert assets == [f"user:{number}" for number in range(1, 1_001)]


async def test_one_bad_item_harms_no_other_and_the_order_is_kept(api: Api) -> None:
    good = [
        register(80),
        deposit("hello", TON, 3),
        receive(80, 80),
        set_price(80, 80),
        buy(80, 80),
        transfer(80, 80, 81),
    ]
    bad: list[tuple[Any, int, str]] = [
        (None, 422, "invalid"),
        (17, 422, "invalid"),
        ([], 422, "invalid"),
        ({}, 422, "invalid"),
        ({"kind": "nft.burn", "payload": {}}, 422, "invalid"),
        (register(80) | {"surprise": 1}, 422, "invalid"),
        (register(80) | {"run_at": "9999-12-31T23:59:59-23:59"}, 422, "invalid"),
        (set_price(80, 80, 1), 422, "invalid"),
        ({"kind": "users.register", "payload": {"user_id": 80, "language": "e\0"}}, 422, "invalid"),
        ({"kind": "nft.buy", "payload": {"nft_id": 1, "price_nano": TON}}, 422, "invalid"),
    ]
    mixed = [item for pair in zip(good, bad, strict=False) for item in (pair[0], pair[1][0])]
    mixed += [item for item, _, _ in bad[len(good) :]]
    before = await api.count()
    receipts = (await post(api, mixed)).json()["receipts"]
    assert len(receipts) == len(mixed)
    assert await api.count() == before + len(good)
    assert [receipt["kind"] for receipt in receipts if "id" in receipt] == [command["kind"] for command in good]
    for (_, status, code), problem in zip(bad, (one for one in receipts if "code" in one), strict=True):
        assert (problem["status"], problem["code"]) == (status, code)
        assert problem["errors"]
    ids = [receipt["id"] for receipt in receipts if "id" in receipt]
    assert await order_in_journal(api, ids) == ids


async def order_in_journal(api: Api, ids: list[str]) -> list[str]:
    async with api.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT id::text FROM commands ORDER BY seq")
        return [row for row in rows.scalars() if row in set(ids)]


async def test_a_batch_of_nothing_but_bad_items_changes_nothing(api: Api) -> None:
    async with api.unchanged():
        receipts = (await post(api, [set_price(80, 1, 1)] * 3)).json()["receipts"]
    assert [(one["status"], one["code"]) for one in receipts] == [(422, "invalid")] * 3
    assert {error["path"] for one in receipts for error in one["errors"]} == {"payload.price_nano"}


async def test_the_roles_hold_for_every_item(api: Api) -> None:
    user = await api.as_role(Role.USER, 82)
    commands = [set_price(82, 1), set_price(83, 1), receive(82, 82), register(83), register(82)]
    response = await user.post("/v1/commands/batch", json={"commands": commands})
    assert [receipt["status"] for receipt in response.json()["receipts"]] == ["accepted", 403, 403, 403, "accepted"]
    assert await api.count("actor = 82") == 2
    assert await api.count("actor = 83") == 0


async def test_a_batch_that_nobody_executes_is_answered_when_the_wait_is_over(api: Api) -> None:
    response = await post(api, [register(84), set_price(84, 1, 1)], Prefer="wait=1")
    assert response.status_code == 202
    assert "preference-applied" not in response.headers
    assert [receipt["status"] for receipt in response.json()["receipts"]] == ["accepted", 422]


async def test_a_batch_of_problems_has_nothing_to_wait_for(api: Api) -> None:
    response = await post(api, [set_price(84, 1, 1)], Prefer="wait=30")
    assert (response.status_code, response.headers["preference-applied"]) == (200, "wait=30")
