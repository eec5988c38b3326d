"""Cancelling: a command that has not run never will, and one that has run is never cancelled."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage.journal.accept import Journal
from storage.journal.cancel import LOCK_SECONDS
from storage.keys import Role
from tests.api.api import Api, assert_problem, running
from tests.commits import wire_to
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.journal import submission
from tests.market import register
from workers.worker import execute

FAR = "2090-01-01T00:00:00Z"


async def cancel(api: Api, receipt: dict[str, Any]) -> Any:
    return await api.operator.delete(f"/v1/commands/{receipt['id']}")


async def read(api: Api, receipt: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = (await api.operator.get(f"/v1/commands/{receipt['id']}")).json()
    return answer


@pytest.mark.parametrize("when", [{}, {"run_at": FAR}])
async def test_what_has_not_run_is_cancelled_and_never_runs(api: Api, when: dict[str, str]) -> None:
    receipt = await api.send(register(101), **when)
    answer = await cancel(api, receipt)
    assert answer.status_code == 200
    cancelled = answer.json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] is not None
    assert {**receipt, "status": "cancelled", "finished_at": cancelled["finished_at"]} == cancelled
    async with api.unchanged():
        assert await execute({"settings": api.settings}, receipt["id"]) == "cancelled"
    assert await read(api, receipt) == cancelled


async def test_what_is_final_is_not_cancelled_and_its_receipt_is_shown(api: Api) -> None:
    [receipt] = await api.settle([register(102)])
    async with api.unchanged():
        problem = assert_problem(await cancel(api, receipt), 409, "already_final")
    assert problem["receipt"] == receipt == await read(api, receipt)


async def test_cancelling_twice_tells_that_it_is_final(api: Api) -> None:
    receipt = await api.send(register(103))
    cancelled = (await cancel(api, receipt)).json()
    async with api.unchanged():
        problem = assert_problem(await cancel(api, receipt), 409, "already_final")
    assert problem["receipt"] == cancelled


async def test_anothers_command_is_not_found(api: Api) -> None:
    receipt = await api.send(register(104))
    other = await api.as_role(Role.USER, 105)
    async with api.unchanged():
        assert_problem(await other.delete(f"/v1/commands/{receipt['id']}"), 404, "not_found")
        assert_problem(await api.operator.delete("/v1/commands/none"), 404, "not_found")
    own = (await other.post("/v1/commands", json=register(105))).json()
    assert (await other.delete(f"/v1/commands/{own['id']}")).json()["status"] == "cancelled"


async def test_what_another_command_wrote_is_not_for_clients_to_cancel(api: Api) -> None:
    """Without the end of its auction an item would be held for ever."""
    journal = Journal(api.settings)
    [written] = await journal.accept([submission(api.settings, register(106))])
    await journal.close()
    assert not isinstance(written, Exception)
    async with api.unchanged():
        assert_problem(await api.operator.delete(f"/v1/commands/{written.id}"), 403, "forbidden")


async def test_who_waits_hears_of_the_end(api: Api) -> None:
    body = {**register(107), "run_at": FAR}
    waiting = asyncio.create_task(api.operator.post("/v1/commands", json=body, headers={"Prefer": "wait=20"}))
    async with connected(api.settings) as connection:

        async def accepted() -> Any:
            return await connection.fetchval("SELECT id FROM commands WHERE asset = 'user:107'")

        await eventually(accepted)
        assert (await cancel(api, {"id": await accepted()})).status_code == 200
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def test_a_cancelled_command_keeps_its_key(api: Api) -> None:
    receipt = await api.send(register(108), idempotency_key="keep")
    cancelled = (await cancel(api, receipt)).json()
    again = await api.operator.post("/v1/commands", json={**register(108), "idempotency_key": "keep"})
    assert again.json() == cancelled
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_batch_under_way_ends_before_its_commands_can_be_cancelled(installer: Installer) -> None:
    """The lock on the partition decides: while a batch has it, whether the command runs is open."""
    async with running(await installer.install(partitions=1)) as api:
        receipt = await api.send(register(109))
        async with connected(api.settings) as batch:
            async with batch.transaction():
                await batch.execute("SELECT 1 FROM partitions FOR NO KEY UPDATE")
                cancelling = asyncio.create_task(cancel(api, receipt))
                async with connected(api.settings) as watcher:

                    async def waits() -> Any:
                        assert not cancelling.done(), "it did not wait"
                        return await watcher.fetchval(
                            "SELECT count(*) FROM pg_stat_activity"
                            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                        )

                    await eventually(waits)
                await batch.execute("UPDATE commands SET status = 'succeeded', finished_at = now()")
            answer = await cancelling
        problem = assert_problem(answer, 409, "already_final")
        assert problem["receipt"]["status"] == "succeeded"


async def test_a_batch_that_does_not_end_is_not_waited_for_without_end(installer: Installer) -> None:
    async with running(await installer.install(partitions=1)) as api:
        receipt = await api.send(register(110))
        async with connected(api.settings) as batch, batch.transaction():
            await batch.execute("SELECT 1 FROM partitions FOR NO KEY UPDATE")
            assert_problem(await cancel(api, receipt), 503, "unavailable")
        assert (await cancel(api, receipt)).status_code == 200


@pytest.mark.parametrize("change", [timedelta(0), timedelta(seconds=-1)])
async def test_a_deadline_comes_after_the_start(api: Api, change: timedelta) -> None:
    start = datetime(2090, 1, 1, tzinfo=UTC)
    body = {**register(111), "run_at": start.isoformat(), "not_after": (start + change).isoformat()}
    async with api.unchanged():
        assert_problem(await api.operator.post("/v1/commands", json=body), 422, "invalid", ["not_after"])


async def test_past_its_deadline_a_command_expires_without_effect(api: Api) -> None:
    [receipt] = await api.settle([{**register(112), "not_after": "2020-01-01T00:00:00Z"}])
    assert (receipt["status"], receipt["result"], receipt["rejection"]) == ("expired", None, None)
    async with connected(api.settings) as connection:
        assert await connection.fetchval("SELECT count(*) FROM users WHERE id = 112") == 0


async def test_before_its_deadline_a_command_runs(api: Api) -> None:
    [receipt] = await api.settle([{**register(113), "not_after": FAR}])
    assert receipt["status"] == "succeeded"


@pytest.mark.parametrize("end", ["succeeded", "cancelled"])
async def test_who_wants_to_hear_of_ends_is_told_once(installer: Installer, end: str) -> None:
    async with running(await installer.install()) as api:
        async with connected(api.settings) as connection:
            key_id = await connection.fetchval("SELECT id FROM api_keys")
            silent = await api.send(register(114))
            await execute({"settings": api.settings}, silent["id"])
            await connection.execute(
                "INSERT INTO webhooks (id, key_id, url, topics, concurrency, secret, after_txid, after_id)"
                " VALUES (gen_random_uuid(), $1, 'https://x', ARRAY['commands:' || $1], 1, '', 0, 0)",
                key_id,
            )
            receipt: dict[str, Any] = {}

            async def is_to_be_told() -> Any:  # a credential is remembered for a second
                receipt.update(await api.send(register(115)))
                return await connection.fetchval("SELECT notify FROM commands WHERE id = $1", receipt["id"])

            await eventually(is_to_be_told)
            if end == "succeeded":
                await execute({"settings": api.settings}, receipt["id"])
            else:
                await cancel(api, receipt)
            told = await connection.fetch("SELECT * FROM events WHERE name = 'command.finished'")
        [event] = [row for row in told if str(row["command_id"]) == receipt["id"]]
        assert event["topics"] == [f"commands:{key_id}"]
        assert event["fields"] == f'{{"id":"{receipt["id"]}","kind":"users.register","status":"{end}"}}'
        assert all(str(row["command_id"]) != silent["id"] for row in told)


async def test_many_who_cancel_in_a_stuck_partition_keep_nobody_else_waiting(installer: Installer) -> None:
    async with running(await installer.install(partitions=1)) as api:
        receipts = [await api.send(register(number)) for number in range(120, 130)]
        async with connected(api.settings) as batch, batch.transaction():
            await batch.execute("SELECT 1 FROM partitions FOR NO KEY UPDATE")
            cancelling = [asyncio.create_task(cancel(api, receipt)) for receipt in receipts]
            async with connected(api.settings) as watcher:

                async def waits() -> Any:
                    return await watcher.fetchval(
                        "SELECT count(*) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                    )

                await eventually(waits)
            async with asyncio.timeout(2):
                newcomer = await api.as_role(Role.USER, 120)
                assert (await newcomer.get("/v1/commands")).status_code == 200
            assert not any(task.done() for task in cancelling)
        assert {answer.status_code for answer in await asyncio.gather(*cancelling)} == {200}


async def test_what_was_cancelled_without_an_answer_of_the_database_is_told_as_cancelled(installer: Installer) -> None:
    async with wire_to(await installer.install()) as wire, running(wire.settings) as api:
        receipt = await api.send(register(131))
        wire.lose_the_answer_to_a_commit()
        answer = await cancel(api, receipt)
        assert (answer.status_code, answer.json()["status"], wire.lost) == (200, "cancelled", 1)


async def test_who_falls_asleep_while_cancelling_loses_the_partition(installer: Installer) -> None:
    """And what was told as cancelled is on disk, even where the database is told to be quick."""
    settings = await installer.install()
    async with connected(settings) as connection:
        await connection.execute("""
            DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$;
            CREATE TABLE seen (bound text, lasting text);
            CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO seen VALUES
                    (current_setting('idle_in_transaction_session_timeout'), current_setting('synchronous_commit'));
                RETURN NEW; END $$;
            CREATE TRIGGER see BEFORE UPDATE ON commands FOR EACH ROW EXECUTE FUNCTION see();
        """)
        async with running(settings) as api:
            assert (await cancel(api, await api.send(register(132)))).status_code == 200
        assert tuple(await connection.fetchrow("SELECT * FROM seen") or ()) == (f"{LOCK_SECONDS}s", "on")
