"""Turns: calls for one outside account are made one at a time, in the order of its requests, and under its lock."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from loadtest.faults.redises import RedisNode
from storage.gateway.bridge import Answer, Call, Outcome
from storage.gateway.sandbox import Sandbox
from storage.journal.entry import new_id
from storage.postgres.connection import Connection, connect
from storage.redis.locks import Held, Locks
from storage.redis.queue import connect_redis
from storage.settings import Settings
from tests.bridge import SECRET, ABridge, a_bridge
from tests.couriers import some_couriers
from tests.deadline import eventually
from tests.installation import Installer
from workers.services.couriers import CALLS_MAX, Couriers
from workers.services.turns import _CLAIM, _LOOK, Pair, Turns

CALM: dict[str, Any] = {
    "gateway_timeout_seconds": 30,
    "gateway_backoff_seconds": 0.05,
    "gateway_backoff_max_seconds": 0.2,
}
WALLET = Pair("wallet", None)


class World:
    """Requests that nothing waits for, and what a bridge, or the sandbox, is asked."""

    def __init__(self, settings: Settings, lane: Connection, bridge: ABridge) -> None:
        self.settings = settings
        self.lane = lane
        self.bridge = bridge

    async def ask(self, pair: Pair, count: int = 1) -> list[UUID]:
        """The references of so many new requests for the accounts, in the order of their turn."""
        references = [new_id() for _ in range(count)]
        for reference in references:
            await self.lane.execute(
                "INSERT INTO gateway_requests"
                " (reference, op, account, channel, body, names, state, attempts, opened_at)"
                " VALUES ($1, 'gift.send', $2, $3, '{}', '{}', 'pending', 0, now())",
                *(reference, *pair),
            )
        return references

    async def are(self, state: str, *references: UUID) -> bool:
        rows = await self.lane.fetch("SELECT state FROM gateway_requests WHERE reference = ANY($1)", references)
        return {row["state"] for row in rows} == {state}

    def performed(self) -> list[UUID]:
        """The references of all attempts, in the order in which they arrived."""
        return [UUID(seen.fields["reference"]) for seen in self.bridge.seen if seen.call == "perform"]


@pytest.fixture
async def world(installer: Installer) -> AsyncIterator[World]:
    """Its couriers ask a bridge."""
    async with a_bridge() as bridge:
        settings = await installer.install(**CALM, gateway_url=bridge.url, gateway_secret=SecretStr(SECRET))
        lane = await connect(settings, "test", timeout_seconds=30, pinned_plans=True)
        yield World(settings, lane, bridge)
        await lane.close()


def a_user(number: int, channel: int | None = None) -> Pair:
    return Pair(f"account:{UUID(int=number)}", None if channel is None else f"channel:{channel}")


async def test_requests_of_one_account_go_out_in_their_order(world: World) -> None:
    references = await world.ask(WALLET, 40)
    await world.lane.execute("UPDATE gateway_requests SET due_at = now() - random() * interval '1 hour'")
    async with some_couriers(world.settings, 3):
        await eventually(lambda: world.are("done", *references))
    assert world.performed() == references


async def test_no_two_calls_are_made_for_one_account_at_once(world: World) -> None:
    """Neither for a user's account nor for a channel that is reached through several; and all are made, once."""
    under_way: set[str] = set()
    crowds: list[int] = []
    crossed: list[set[str]] = []

    async def respond(call: str, fields: dict[str, Any]) -> Response:
        accounts = set(fields["accounts"])
        crossed.extend([accounts] if under_way & accounts else [])
        under_way.update(accounts)
        crowds.append(len(under_way))
        await asyncio.sleep(0.01)
        under_way.difference_update(accounts)
        return JSONResponse({"reference": fields["reference"], "outcome": "done"})

    world.bridge.respond = respond
    references = []
    for _ in range(4):
        references += await world.ask(WALLET)
        for number in range(12):
            references += await world.ask(a_user(number))
            references += await world.ask(a_user(number, number % 3))
    async with some_couriers(world.settings, 4):
        await eventually(lambda: world.are("done", *references), 60)
    assert crossed == []
    assert sorted(world.performed()) == sorted(references)
    assert max(crowds) > 2, "the accounts waited for each other"


async def test_an_account_whose_call_is_slow_holds_up_no_other(world: World) -> None:
    answers = asyncio.Event()

    async def respond(call: str, fields: dict[str, Any]) -> Response:
        if fields["accounts"] == ["wallet"]:
            await answers.wait()
        return JSONResponse({"reference": fields["reference"], "outcome": "done"})

    world.bridge.respond = respond
    slow = await world.ask(WALLET, CALLS_MAX + 5)
    async with some_couriers(world.settings, 2):
        await eventually(lambda: world.are("sent", slow[0]))
        quick = [(await world.ask(a_user(number)))[0] for number in range(2 * CALLS_MAX)]
        await eventually(lambda: world.are("done", *quick))
        assert await world.are("pending", *slow[1:])
        answers.set()
        await eventually(lambda: world.are("done", *slow))
    assert [reference for reference in world.performed() if reference in slow] == slow


async def test_an_attempt_without_an_answer_does_not_hold_up_the_wallet(world: World) -> None:
    first, *others = await world.ask(WALLET, 5)

    async def respond(call: str, fields: dict[str, Any]) -> Response:
        outcome = "unknown" if fields["reference"] == str(first) else "done"
        return JSONResponse({"reference": fields["reference"], "outcome": outcome})

    world.bridge.respond = respond
    async with some_couriers(world.settings):
        await eventually(lambda: world.are("done", *others))
    assert await world.are("unknown", first)
    assert world.performed() == [first, *others]


async def test_without_redis_no_request_goes_out_and_all_do_afterwards(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Late, never lost, never twice; each of two workers tells the beginning and the end of it in one line."""

    def told(text: str, times: int) -> Callable[[], Awaitable[bool]]:
        async def is_told() -> bool:
            return sum(text in line for line in caplog.messages) == times

        return is_told

    redis = RedisNode(tmp_path / "redis")
    redis.start()
    settings = world.settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{redis.port}")})
    try:
        async with some_couriers(settings, 2):
            before = [(await world.ask(pair))[0] for pair in (WALLET, a_user(1))]
            await eventually(lambda: world.are("done", *before))
            redis.kill()
            caplog.clear()
            references = await world.ask(WALLET, 5) + await world.ask(a_user(1, 1), 5)
            await eventually(told("no request goes out", times=2))
            await asyncio.sleep(1)  # in which they would go out
            assert len(world.performed()) == len(before)
            assert await world.lane.fetchval("SELECT sum(attempts + lookups) FROM gateway_requests") == len(before)
            redis.start()
            await eventually(lambda: world.are("done", *references))
            await eventually(told("requests go out again", times=2))
            assert await told("no request goes out", times=2)()
    finally:
        redis.close()
    assert sorted(world.performed()) == sorted(before + references)


# -- zombies


async def test_a_courier_that_slept_past_its_lock_is_refused_by_its_token(settings: Settings, lane: Connection) -> None:
    world = World(settings.model_copy(update=CALM), lane, ABridge(0))
    turns, sandbox = Turns(world.settings), Sandbox(world.settings)
    [first] = await world.ask(WALLET)
    asleep = await turns.claim(WALLET)
    assert asleep is not None
    late = Call(first, asleep.op, WALLET.accounts, asleep.fencing_token)
    soon = datetime.now(UTC) + timedelta(hours=1)
    [second] = await world.ask(WALLET)
    async with some_couriers(world.settings):
        await eventually(lambda: world.are("done", second))
        assert await sandbox.perform(late, {}, soon) == Answer(Outcome.UNKNOWN, "overtaken")
        assert [row["reference"] for row in await lane.fetch("SELECT reference FROM sandbox_effects")] == [second]
        await lane.execute("UPDATE gateway_requests SET due_at = now() WHERE reference = $1", first)
        await eventually(lambda: world.are("done", first))
    assert (await sandbox.perform(late, {}, soon)).outcome is Outcome.DONE, "what was begun is told under any token"
    calls = await lane.fetch("SELECT call FROM gateway_log WHERE reference = $1 ORDER BY fencing_token", first)
    assert [row["call"] for row in calls] == ["perform", "lookup", "perform"]
    assert await lane.fetchval("SELECT count(*) FROM sandbox_effects") == 2
    await turns.close()
    await sandbox.close()


async def test_a_lookup_keeps_earlier_attempts_from_being_performed(settings: Settings, lane: Connection) -> None:
    """So that what it says, never seen, stays true."""
    sandbox = Sandbox(settings)
    attempt = Call(new_id(), "gift.send", ("account:a", "channel:1"), 5)
    lookup = attempt._replace(fencing_token=6)
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert (await sandbox.lookup(lookup)).outcome is Outcome.NEVER_SEEN
    assert await sandbox.perform(attempt, {}, soon) == Answer(Outcome.UNKNOWN, "overtaken")
    assert (await sandbox.perform(attempt._replace(accounts=("account:b",)), {}, soon)).outcome is Outcome.DONE
    assert await lane.fetchval("SELECT max(fencing_token) FROM sandbox_tokens WHERE account = 'account:a'") == 6
    await sandbox.close()


async def test_a_courier_whose_lock_has_lapsed_makes_no_call(world: World) -> None:
    await world.ask(WALLET)
    redis = connect_redis(world.settings)
    couriers = Couriers(world.settings, Locks(redis), lambda _: None)
    claim = await couriers._turns.claim(WALLET)
    assert claim is not None
    lapsed = Held(["outside:wallet"], "a token", 1)
    assert await couriers._ask(claim, lapsed) == Answer(Outcome.NEVER_SEEN, "lock_lost")
    assert world.bridge.seen == []
    await couriers._turns.close()
    await redis.aclose()


async def test_tokens_grow_in_the_order_of_the_calls(world: World) -> None:
    references = await world.ask(WALLET, 20)
    async with some_couriers(world.settings, 2):
        await eventually(lambda: world.are("done", *references))
    tokens = [seen.fields["fencing_token"] for seen in world.bridge.seen]
    assert tokens == sorted(set(tokens))
    assert world.bridge.tokens == {"wallet": tokens[-1]}


# -- what it costs


async def test_finding_what_is_due_costs_the_index_of_what_is_due(lane: Connection) -> None:
    """Beside requests that ended, as many of one account that wait for their next lookup, and a long line."""
    await lane.execute("""
        INSERT INTO gateway_requests
            (reference, op, account, body, names, state, attempts, opened_at, attempted_at, closed_at, due_at)
        SELECT gen_random_uuid(), 'ton.pay', 'wallet', '{}', '{}', CASE WHEN n % 2 = 0 THEN 'done' ELSE 'unknown' END,
            1, now(), now(), CASE WHEN n % 2 = 0 THEN now() END,
            now() + CASE WHEN n % 2 = 0 THEN '0' ELSE interval '1 hour' END
        FROM generate_series(1, 40000) AS n
    """)
    await lane.execute("VACUUM ANALYZE gateway_requests")
    claim: list[Any] = [["wallet"], [None], 3, 60, 120, 1]
    assert await _buffers(lane, _LOOK, [], [], []) < 10
    assert await _buffers(lane, _CLAIM, *claim) < 10
    await lane.execute("""
        INSERT INTO gateway_requests (reference, op, account, body, names, state, attempts, opened_at)
        SELECT gen_random_uuid(), 'ton.pay', 'wallet', '{}', '{}', 'pending', 0, now() FROM generate_series(1, 5000)
    """)
    await lane.execute("VACUUM ANALYZE gateway_requests")
    assert await _buffers(lane, _CLAIM, *claim) < 60


async def _buffers(lane: Connection, statement: str, *arguments: Any) -> int:
    explained = await lane.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
