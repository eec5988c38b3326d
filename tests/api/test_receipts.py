"""Receipts: what is told of a command, when, and in which pages."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from storage.keys import Role
from tests.api.api import Api, assert_problem
from tests.deadline import eventually
from tests.market import TON, buy, deposit, register, set_price
from workers.worker import execute


def hours(number: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=number)).isoformat()


async def test_an_accepted_command_is_told_in_full(api: Api) -> None:
    response = await api.operator.post("/v1/commands", json=set_price(100, 2**60))
    receipt = response.json()
    assert response.status_code == 202
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["location"] == receipt["links"]["self"] == f"/v1/commands/{receipt['id']}"
    command_id = UUID(receipt["id"])
    assert (command_id.version, str(command_id)) == (7, receipt["id"])
    assert abs(datetime.fromisoformat(receipt["accepted_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert receipt == {
        "id": receipt["id"],
        "kind": "nft.set_price",
        "actor": 100,
        "asset": f"nft:{2**60}",
        "partition": receipt["partition"],
        "status": "accepted",
        "accepted_at": receipt["accepted_at"],
        "finished_at": None,
        "result": None,
        "rejection": None,
        "links": receipt["links"],
    }
    assert 0 <= receipt["partition"] < api.settings.partitions
    assert (await api.operator.get(receipt["links"]["self"])).json() == receipt


async def test_outcomes_are_told_with_result_or_rejection(api: Api) -> None:
    registered, refused = await api.settle([register(101), buy(101, 404)])
    assert (registered["status"], registered["rejection"]) == ("succeeded", None)
    assert registered["result"].keys() >= {"user_id", "memo"}
    assert registered["accepted_at"] <= registered["finished_at"]
    assert (refused["status"], refused["result"]) == ("rejected", None)
    assert refused["rejection"]["code"] == "NFT_NOT_FOUND"
    assert refused["rejection"]["detail"]


async def test_ids_grow_with_time(api: Api) -> None:
    ids = [(await api.send(register(102)))["id"] for _ in range(3)]
    await asyncio.sleep(0.002)  # ids are ordered by the millisecond
    ids_later = [(await api.send(register(102)))["id"] for _ in range(3)]
    assert max(ids) < min(ids_later)


async def test_a_command_for_later_is_scheduled(api: Api) -> None:
    receipt = await api.send(register(103), run_at=hours(1))
    assert (receipt["status"], receipt["accepted_at"]) == ("scheduled", None)
    assert (await api.operator.get(receipt["links"]["self"])).json() == receipt


async def test_a_command_for_earlier_is_accepted_at_once(api: Api) -> None:
    receipt = await api.send(register(103), run_at=hours(-1))
    assert receipt["status"] == "accepted"
    assert receipt["accepted_at"] is not None


async def test_a_time_counts_with_its_offset(api: Api) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=30)
    wall = soon.replace(tzinfo=None).isoformat(timespec="seconds")
    statuses = [(await api.send(register(103), run_at=wall + offset))["status"] for offset in ("Z", "+01:00", "-01:00")]
    assert statuses == ["scheduled", "accepted", "scheduled"]


async def test_a_command_past_its_time_expires(api: Api) -> None:
    [receipt] = await api.settle([register(104) | {"not_after": hours(-1)}])
    assert (receipt["status"], receipt["result"], receipt["rejection"]) == ("expired", None, None)
    [receipt] = await api.settle([register(104) | {"not_after": hours(1)}])
    assert receipt["status"] == "succeeded"


@pytest.mark.parametrize("wait", ["", "x", "-1", "30.1", "31", "1e9", "nan", "inf", "-inf", "0x1", "1;2"])
async def test_a_wrong_wait_is_refused(api: Api, wait: str) -> None:
    receipt = await api.send(register(105))
    response = await api.operator.get(receipt["links"]["self"], params={"wait": wait})
    assert_problem(response, 422, "invalid", ["wait"])


async def test_a_wait_ends_without_an_outcome(api: Api) -> None:
    receipt = await api.send(register(105))
    start = time.monotonic()
    polled, submitted = await asyncio.gather(
        api.operator.get(receipt["links"]["self"], params={"wait": "1"}),
        api.operator.post("/v1/commands", json=register(105), headers={"Prefer": "wait=1"}),
    )
    assert 0.9 < time.monotonic() - start < 10
    assert (polled.status_code, polled.json()) == (200, receipt)
    assert (submitted.status_code, submitted.json()["status"]) == (202, "accepted")
    assert "preference-applied" not in submitted.headers


async def test_a_wait_ends_with_the_outcome(api: Api) -> None:
    receipt = await api.send(register(5_106))
    waits = [
        api.operator.get(receipt["links"]["self"], params={"wait": "30"}),
        api.operator.post("/v1/commands", json=register(5_106), headers={"Prefer": "respond-async, wait=30"}),
        api.operator.post("/v1/commands/batch", json={"commands": [register(5_106)]}, headers={"Prefer": "wait=30"}),
    ]
    waiting = [asyncio.ensure_future(wait) for wait in waits]

    async def all_are_accepted() -> bool:
        return await api.count("asset = 'user:5106'") == 3

    await eventually(all_are_accepted)
    async with api.engine.connect() as connection:
        last = await connection.exec_driver_sql(
            "SELECT id::text FROM commands WHERE asset = 'user:5106' ORDER BY seq DESC"
        )
        await execute({"settings": api.settings}, str(last.scalars().first()))
    polled, submitted, batch = await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert (polled.status_code, polled.json()["status"]) == (200, "succeeded")
    assert (submitted.status_code, submitted.json()["status"]) == (200, "succeeded")
    assert submitted.headers["preference-applied"] == "wait=30"
    assert (batch.status_code, batch.json()["receipts"][0]["status"]) == (200, "succeeded")


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "respond-async", "=", ",,", "é"])
async def test_a_preference_that_cannot_be_met_is_ignored(api: Api, prefer: str) -> None:
    start = time.monotonic()
    response = await api.operator.post(
        "/v1/commands", json=register(107), headers=[(b"Prefer", prefer.encode("latin-1"))]
    )
    assert response.status_code == 202
    assert time.monotonic() - start < 1


BAD_QUERIES = {
    "limit": ["0", "-1", "101", "1.5", "x", "", " 1", "1e1", "9" * 30, "\u0661"],
    "cursor": [
        "",
        "x",
        "AAAA",
        "bnVsbA",
        "e30",
        "W10",
        "WyJpZCJd",
        "WyJpZCIsMV0",
        "WyJpZCIsIngiXQ",
        "é",
        "\0",
        "W1tb" * 999,
    ],
    "sort": ["", "-", "seq", "id,kind", "--id", "id; DROP TABLE commands"],
    "status": ["", "running", "ACCEPTED", "\0", "accepted,rejected"],
    "kind": ["\0"],
    "asset": ["\0"],
    "actor": ["", "x", "1.5", "9" * 30],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_QUERIES.items() for value in values])
async def test_a_bad_query_is_refused(api: Api, name: str, value: str) -> None:
    async with api.unchanged():
        response = await api.operator.get("/v1/commands", params={name: value})
        assert_problem(response, 422, "invalid", [name])


async def test_an_unknown_parameter_is_refused(api: Api) -> None:
    for name in ("wait", "offset", "page", "Status", "partition"):
        assert_problem(await api.operator.get("/v1/commands", params={name: "1"}), 422, "invalid", [name])


async def test_filters_narrow_the_list(api: Api) -> None:
    await api.settle([register(110)])
    await api.send(set_price(110, 7))
    await api.send(set_price(110, 8))
    user = await api.as_role(Role.USER, 110)

    async def assets(**query: Any) -> list[str]:
        return [item["asset"] for item in (await user.get("/v1/commands", params=query)).json()["items"]]

    assert await assets() == ["nft:8", "nft:7"]
    assert await assets(asset="nft:7") == ["nft:7"]
    assert await assets(asset=["nft:7", "nft:8"]) == ["nft:8", "nft:7"]
    assert await assets(status="accepted", kind="nft.set_price") == ["nft:8", "nft:7"]
    assert await assets(status=["succeeded", "rejected"]) == []
    assert await assets(kind="nft.nothing") == []
    assert await assets(sort="id") == ["nft:7", "nft:8"]


async def test_pages_neither_repeat_nor_skip_while_commands_arrive(api: Api) -> None:
    user = await api.as_role(Role.USER, 111)

    async def submit(nft_id: int) -> str:
        response = await user.post(
            "/v1/commands", json={"kind": "nft.buy", "payload": {"nft_id": nft_id, "price_nano": TON}}
        )
        return str(response.json()["id"])

    ours = [await submit(number) for number in range(1, 26)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 4}
    while True:
        page = (await user.get("/v1/commands", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        await submit(99)  # newer ones come meanwhile, by us and by others
        await api.send(deposit("hello", TON, 4))
        if page["next"] is None:
            break
        assert len(page["items"]) == 4
        query["cursor"] = page["next"]
    assert seen == sorted(ours, reverse=True)


async def test_a_full_last_page_has_no_next(api: Api) -> None:
    user = await api.as_role(Role.USER, 112)
    for number in (1, 2, 3, 4):
        await api.send(set_price(112, number))
    first = (await user.get("/v1/commands", params={"limit": 2})).json()
    second = (await user.get("/v1/commands", params={"limit": 2, "cursor": first["next"]})).json()
    assert [len(first["items"]), len(second["items"]), second["next"]] == [2, 2, None]
    assert (await user.get("/v1/commands", params={"limit": 4})).json()["next"] is None


async def test_an_empty_list_is_no_error(api: Api) -> None:
    user = await api.as_role(Role.USER, 113)
    response = await user.get("/v1/commands")
    assert (response.status_code, response.json()) == (200, {"items": [], "next": None})
