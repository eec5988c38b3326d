"""Idempotency keys: sent twice, it happens once; and the second answer is the first one's."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from storage.journal.redrive import redrive
from storage.journal.retire import expire_keys
from storage.keys import Role
from tests.api.api import Api, assert_problem, running
from tests.installation import connected
from tests.market import TON, buy, register, set_price
from workers.worker import execute


def keyed(command: dict[str, Any], key: str) -> dict[str, Any]:
    return command | {"idempotency_key": key}


async def test_a_repeated_key_answers_with_the_first_receipt(api: Api) -> None:
    first = await api.operator.post("/v1/commands", json=keyed(set_price(60, 1), "again"))
    assert "idempotency-replayed" not in first.headers
    async with api.unchanged():
        second = await api.operator.post("/v1/commands", json=keyed(set_price(60, 1), "again"))
    assert second.headers["idempotency-replayed"] == "true"
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert second.headers["location"] == first.headers["location"] == f"/v1/commands/{first.json()['id']}"


async def test_a_repeat_after_the_outcome_tells_the_outcome(api: Api) -> None:
    [done] = await api.settle([keyed(register(61), "done")])
    assert done["status"] == "succeeded"
    async with api.unchanged():
        repeat = await api.operator.post("/v1/commands", json=keyed(register(61), "done"), headers={"Prefer": "wait=5"})
    assert (repeat.status_code, repeat.json()) == (200, done)
    assert repeat.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    "other",
    [set_price(62, 1, 2 * TON), set_price(62, 2), set_price(62, 1, None), buy(62, 1)],
    ids=["another price", "another item", "no price", "another kind"],
)
async def test_a_key_with_another_payload_is_refused(api: Api, other: dict[str, Any]) -> None:
    await api.operator.post("/v1/commands", json=keyed(set_price(62, 1), "reused"))
    async with api.unchanged():
        response = await api.operator.post("/v1/commands", json=keyed(other, "reused"))
        assert_problem(response, 422, "idempotency_key_reused")


async def test_the_same_payload_written_otherwise_is_the_same(api: Api) -> None:
    first = await api.send(keyed(set_price(63, 1), "form"))
    text = (
        '{"payload": {"price_nano" :1000000000,\n"nft_id":"1"},'
        '"idempotency_key":"f\\u006frm", "actor":63, "kind":"nft.set_price"}'
    )
    second = await api.operator.post("/v1/commands", content=text, headers={"Content-Type": "application/json"})
    assert second.json()["id"] == first["id"]


async def test_the_key_may_come_as_a_header(api: Api) -> None:
    headers = {"Idempotency-Key": "by header"}
    first = await api.operator.post("/v1/commands", json=set_price(64, 1), headers=headers)
    second = await api.operator.post("/v1/commands", json=set_price(64, 1), headers=headers)
    third = await api.send(keyed(set_price(64, 1), "by header"))
    both = await api.operator.post("/v1/commands", json=keyed(set_price(64, 1), "by header"), headers=headers)
    assert {first.json()["id"], second.json()["id"], third["id"], both.json()["id"]} == {first.json()["id"]}


@pytest.mark.parametrize(
    ("header", "body"),
    [("one", "other"), ("", None), ("x" * 256, None), ("one", "")],
    ids=["disagreeing", "empty", "too long", "empty in the body"],
)
async def test_a_wrong_key_in_the_header_is_refused(api: Api, header: str, body: str | None) -> None:
    command = set_price(65, 1) if body is None else keyed(set_price(65, 1), body)
    async with api.unchanged():
        response = await api.operator.post("/v1/commands", json=command, headers={"Idempotency-Key": header})
        assert_problem(response, 422, "invalid", ["idempotency_key"])


async def test_a_key_may_be_anything_printable_of_255_characters(api: Api) -> None:
    for key in ("x" * 255, "🎁" * 255, " ", "' OR 1=1 --", "\u202e", "a/b?c=d&e#f%00"):
        first = await api.send(keyed(set_price(66, 1), key))
        assert (await api.send(keyed(set_price(66, 1), key)))["id"] == first["id"]


async def test_the_same_key_of_another_actor_is_another_command(api: Api) -> None:
    receipts = [await api.send(keyed(set_price(actor, 1), "shared")) for actor in (67, 68)]
    receipts.append(await api.send(keyed(register(67), "shared")))  # of no actor
    assert len({receipt["id"] for receipt in receipts}) == 3


async def test_the_same_key_through_another_credential_is_the_same_actors(api: Api) -> None:
    first = await api.send(keyed(set_price(69, 1), "mine"))
    user = await api.as_role(Role.USER, 69)
    command = {name: value for name, value in set_price(69, 1).items() if name != "actor"}
    assert (await user.post("/v1/commands", json=keyed(command, "mine"))).json()["id"] == first["id"]


async def test_a_user_learns_nothing_of_anothers_keys(api: Api) -> None:
    await api.send(keyed(set_price(70, 1), "private"))
    other = await api.as_role(Role.USER, 71)
    response = await other.post("/v1/commands", json=keyed(set_price(71, 1, 2 * TON), "private"))
    assert (response.status_code, response.json()["actor"]) == (202, 71)
    assert "idempotency-replayed" not in response.headers


async def test_a_hundred_duplicates_at_once_are_one_command(api: Api) -> None:
    command = keyed(set_price(72, 1), "storm")
    answers = await asyncio.gather(*(api.operator.post("/v1/commands", json=command) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {"true": 99, None: 1}
    assert await api.count("actor = 72") == 1


async def test_duplicates_at_two_processes_at_once_are_one_command(api: Api) -> None:
    async with running(api.settings) as other:
        for number in range(10):
            command = keyed(set_price(76, 1), f"both {number}")
            clients = [api.operator, other.operator] * 50
            answers = await asyncio.gather(*(client.post("/v1/commands", json=command) for client in clients))
            assert len({answer.json()["id"] for answer in answers}) == 1
            assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {"true": 99, None: 1}
    assert await api.count("actor = 76") == 10


async def test_of_fifty_payloads_under_one_key_one_is_accepted(api: Api) -> None:
    commands = [keyed(set_price(73, number), "race") for number in range(1, 51)]
    answers = await asyncio.gather(*(api.operator.post("/v1/commands", json=command) for command in commands))
    assert Counter(answer.status_code for answer in answers) == {202: 1, 422: 49}
    assert await api.count("actor = 73") == 1


async def test_duplicates_within_a_batch_are_one_command(api: Api) -> None:
    commands = [keyed(set_price(74, 1), "twin"), keyed(set_price(74, 1), "twin"), keyed(set_price(74, 2), "twin")]
    response = await api.operator.post("/v1/commands/batch", json={"commands": commands})
    first, second, third = response.json()["receipts"]
    assert first["id"] == second["id"]
    assert third["code"] == "idempotency_key_reused"
    assert await api.count("actor = 74") == 1


async def test_a_refused_command_leaves_its_key_unused(api: Api) -> None:
    bad = keyed(set_price(75, 1, 1), "later")
    assert (await api.operator.post("/v1/commands", json=bad)).status_code == 422
    good = await api.operator.post("/v1/commands", json=keyed(set_price(75, 1), "later"))
    assert (good.status_code, good.headers.get("idempotency-replayed")) == (202, None)


# -- in every state


async def _succeed(api: Api, command_id: str) -> None:
    await execute({"settings": api.settings}, command_id)


async def _fail(api: Api, command_id: str) -> None:
    async with connected(api.settings) as connection:
        await connection.execute(
            "UPDATE commands SET status = 'failed', error = 'a bug', finished_at = now() WHERE id = $1", command_id
        )


async def _fail_and_run_again(api: Api, command_id: str) -> None:
    await _fail(api, command_id)
    assert await redrive(api.engine, [UUID(command_id)])
    await _succeed(api, command_id)


async def _cancel(api: Api, command_id: str) -> None:
    assert (await api.operator.delete(f"/v1/commands/{command_id}")).status_code == 200


async def _leave(_: Api, __: str) -> None:
    """It stays as it was accepted."""


_YESTERDAY, _TOMORROW = ((datetime.now(UTC) + timedelta(days=days)).isoformat() for days in (-1, 1))


@pytest.mark.parametrize(
    ("status", "come", "command"),
    [
        ("accepted", _leave, register(770)),
        ("scheduled", _leave, register(771) | {"run_at": _TOMORROW}),
        ("succeeded", _succeed, register(772)),
        ("rejected", _succeed, buy(773, 773)),
        ("expired", _succeed, register(774) | {"not_after": _YESTERDAY}),
        ("failed", _fail, register(775)),
        ("succeeded", _fail_and_run_again, register(776)),
        ("cancelled", _cancel, register(777) | {"run_at": _TOMORROW}),
    ],
    ids=["accepted", "scheduled", "succeeded", "rejected", "expired", "failed", "redriven", "cancelled"],
)
async def test_in_every_state_a_repeat_is_answered_with_the_one_receipt(
    api: Api, status: str, come: Callable[[Api, str], Awaitable[None]], command: dict[str, Any], request: Any
) -> None:
    sent = keyed(command, f"state {request.node.callspec.id}")
    first = await api.operator.post("/v1/commands", json=sent)
    assert (first.status_code, first.headers.get("idempotency-replayed")) == (202, None)
    await come(api, first.json()["id"])
    receipt = (await api.operator.get(first.headers["location"])).json()
    assert (receipt["id"], receipt["status"]) == (first.json()["id"], status)
    async with api.unchanged():
        again = await api.operator.post("/v1/commands", json=sent)
        [in_a_batch] = (await api.operator.post("/v1/commands/batch", json={"commands": [sent]})).json()["receipts"]
        other = await api.operator.post(
            "/v1/commands", json=sent | {"payload": {"user_id": 1}, "kind": "users.register"}
        )
    assert (again.status_code, again.json(), in_a_batch) == (202, receipt, receipt)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert_problem(other, 422, "idempotency_key_reused")


async def test_when_a_command_may_run_is_not_what_it_is(api: Api) -> None:
    """A repeat that names other times is the same command, and the times it was accepted with are those that count."""
    sent = keyed(register(778), "times")
    first = await api.send(sent, run_at=_TOMORROW)
    for times in ({}, {"run_at": _YESTERDAY}, {"not_after": _YESTERDAY}, {"run_at": _TOMORROW, "not_after": None}):
        async with api.unchanged():
            again = await api.operator.post("/v1/commands", json=sent | times)
        assert (again.json(), again.headers["idempotency-replayed"]) == (first, "true")


async def test_a_key_of_a_command_that_waits_in_two_processes_ends_both_waits(api: Api) -> None:
    """Whoever repeats a key with `Prefer: wait` waits for the first command."""
    async with running(api.settings) as other:
        sent = keyed(register(779), "waited for")
        first = await api.send(sent)
        waits = [
            asyncio.ensure_future(client.post("/v1/commands", json=sent, headers={"Prefer": "wait=30"}))
            for client in (api.operator, other.operator)
        ]
        await _succeed(api, first["id"])
        for answer in await asyncio.wait_for(asyncio.gather(*waits), 20):
            assert (answer.status_code, answer.json()["id"]) == (200, first["id"])
            assert answer.json()["status"] == "succeeded"
            assert answer.headers["idempotency-replayed"] == "true"


async def test_a_key_whose_days_are_over_is_new(api: Api) -> None:
    sent = keyed(register(780), "old")
    [first] = await api.settle([sent])
    async with connected(api.settings) as connection:
        old = UUID(int=UUID(first["id"]).int - (31 * 86_400_000 << 80))
        await connection.execute("UPDATE commands SET id = $2 WHERE id = $1", first["id"], old)
        await expire_keys(connection, api.settings)
    again = await api.operator.post("/v1/commands", json=sent)
    assert (again.status_code, again.headers.get("idempotency-replayed")) == (202, None)
    assert again.json()["id"] != str(old)
    assert await api.count("asset = 'user:780'") == 2
