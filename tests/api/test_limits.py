"""Limits on what may wait: beyond them submissions are refused at once, and say when to try again."""

import asyncio

import httpx

from tests.api.api import Api, assert_problem, running
from tests.deadline import eventually
from tests.installation import Installer
from tests.market import register, set_price
from workers.worker import execute


async def until_accepted(api: Api, actor: int) -> None:
    async def accepted() -> bool:
        return (await api.operator.post("/v1/commands", json=set_price(actor, 1))).status_code == 202

    await eventually(accepted, 10)


async def drain(api: Api, receipts: list[str]) -> None:
    for command_id in receipts:
        await execute({"settings": api.settings}, command_id)


async def test_a_full_backlog_refuses_and_recovers(installer: Installer) -> None:
    async with running(await installer.install(backlog_max=10)) as api:
        accepted = [(await api.send(set_price(1, 1)))["id"] for _ in range(10)]
        async with api.unchanged():
            for _ in range(3):
                assert_problem(await api.operator.post("/v1/commands", json=register(2)), 503, "overloaded")
            batch = await api.operator.post("/v1/commands/batch", json={"commands": [register(2)] * 3})
            assert [item["code"] for item in batch.json()["receipts"]] == ["overloaded"] * 3
        assert (await api.operator.get("/v1/commands")).status_code == 200
        await drain(api, accepted)
        await until_accepted(api, 1)


async def test_a_batch_fills_the_backlog_to_its_last_place(installer: Installer) -> None:
    async with running(await installer.install(backlog_max=10)) as api:
        answers = await api.operator.post("/v1/commands/batch", json={"commands": [register(1)] * 15})
        shown = [item.get("code", item["status"]) for item in answers.json()["receipts"]]
        assert shown == ["accepted"] * 10 + ["overloaded"] * 5
        assert await api.count() == 10


async def test_one_actor_may_not_fill_the_queue_for_others(installer: Installer) -> None:
    async with running(await installer.install(actor_unfinished_max=5)) as api:
        accepted = [(await api.send(set_price(1, number)))["id"] for number in range(1, 6)]
        async with api.unchanged():
            problem = assert_problem(
                await api.operator.post("/v1/commands", json=set_price(1, 6)), 429, "too_many_requests"
            )
            assert problem["limit"] == 5
        await api.send(set_price(2, 1))
        await api.send(register(1))  # in nobody's name
        await drain(api, accepted)
        await until_accepted(api, 1)


async def test_scheduled_commands_count_as_unfinished(installer: Installer) -> None:
    async with running(await installer.install(actor_unfinished_max=5)) as api:
        for number in range(1, 6):
            await api.send(set_price(1, number), run_at="2100-01-01T00:00:00Z")
        async with api.unchanged():
            assert_problem(await api.operator.post("/v1/commands", json=set_price(1, 6)), 429, "too_many_requests")


async def test_the_limit_holds_for_many_at_once(installer: Installer) -> None:
    async with running(await installer.install(actor_unfinished_max=20)) as api:

        async def submit(number: int) -> httpx.Response:
            return await api.operator.post("/v1/commands", json=set_price(1, number))

        answers = await asyncio.gather(*(submit(number) for number in range(1, 61)))
        assert sorted(answer.status_code for answer in answers) == [202] * 20 + [429] * 40
        assert await api.count() == 20
