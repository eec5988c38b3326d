"""Couriers: one effect and one answer for each request, whatever goes wrong on the way."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from commands.command import Command
from commands.market.withdrawals import ConfirmWithdrawal, FailWithdrawal
from commands.requests import RequestState
from storage.audit import audit
from storage.gateway.bridge import Outcome
from storage.gateway.sandbox import Fault, clear_faults, set_fault
from storage.journal.accept import Journal
from storage.journal.answer import Heard, entry_of
from storage.journal.entry import new_id
from storage.postgres.connection import Connection, connect, engine
from storage.redis.locks import Locks
from storage.redis.queue import connect_redis
from storage.settings import Settings
from tests.bridge import SECRET, a_bridge
from tests.couriers import some_couriers
from tests.deadline import eventually
from tests.installation import Installer
from tests.journal import accept
from tests.market import TON, fund, register
from tests.system.site import end, site_of
from workers.batch import run_batch
from workers.services.couriers import CALLS_MAX, Couriers

ADDRESS = "EQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fIP8B"
USER = 7
CALM: dict[str, Any] = {
    "gateway_timeout_seconds": 30,
    "gateway_backoff_seconds": 0.05,
    "gateway_backoff_max_seconds": 0.2,
    "withdraw_interval_seconds": 0,
}
HASTY = {"gateway_timeout_seconds": 2}
SOON_TIRED = {"gateway_attempts_max": 3, "gateway_valid_seconds": 0.5}


class Office:
    """Withdrawals of one user, what becomes of them, and couriers."""

    def __init__(self, settings: Settings, journal: Journal, lane: Connection) -> None:
        self.settings = settings
        self.journal = journal
        self.lane = lane

    async def open(self) -> None:
        await accept(self.journal, self.settings, register(USER))
        await self.drain()
        await accept(self.journal, self.settings, fund(USER, 1_000 * TON))
        await self.drain()

    async def drain(self) -> None:
        """Execute all that waits."""
        while (await run_batch(self.lane, self.settings, dict.fromkeys(range(4), 0), 1_000)).finished:
            pass

    async def withdraw(self, count: int = 1) -> list[UUID]:
        payload = {"amount_nano": TON, "address": ADDRESS, "comment": None}
        body = {"kind": "market.withdraw", "actor": USER, "payload": payload}
        receipts = await accept(self.journal, self.settings, *[body] * count)
        await self.drain()
        return [receipt.id for receipt in receipts]

    async def answer(self, kind: str, reference: UUID, **fields: Any) -> UUID:
        """A command such as a courier, a timer or the feed sends."""
        payload = {"user_id": USER, "withdrawal_id": reference, **fields}
        [receipt] = await accept(self.journal, self.settings, {"kind": kind, "payload": payload})
        return receipt.id

    @asynccontextmanager
    async def couriers(self, count: int = 1) -> AsyncIterator[None]:
        async with some_couriers(self.settings, count):
            yield

    async def closed(self) -> bool:
        """Whether the requests have ended; then their answers are executed."""
        is_open = await self.lane.fetchval("SELECT count(*) FROM gateway_requests WHERE closed_at IS NULL")
        await self.drain()
        return not is_open

    async def carried(self, seconds: float = 20) -> None:
        async with self.couriers():
            await eventually(self.closed, seconds)

    async def one(self, query: str, *arguments: Any) -> tuple[Any, ...]:
        row = await self.lane.fetchrow(query, *arguments)
        assert row is not None
        return tuple(row)

    async def column(self, query: str, *arguments: Any) -> list[Any]:
        return [row[0] for row in await self.lane.fetch(query, *arguments)]

    async def calls(self) -> list[tuple[str, str]]:
        """Each call and its outcome, in the order of the log."""
        rows = await self.lane.fetch("SELECT call, outcome FROM gateway_log ORDER BY number, reference")
        return [tuple(row) for row in rows]

    async def answers(self) -> list[tuple[str, str]]:
        """Kind and status of the commands that answers became."""
        rows = await self.lane.fetch(
            "SELECT kind, status FROM commands WHERE kind ~ '_(confirm|fail)$' AND status <> 'scheduled' ORDER BY seq"
        )
        return [tuple(row) for row in rows]

    async def withdrawal(self, reference: UUID) -> tuple[str, str | None, int]:
        """State, reason, and what is held."""
        query = "SELECT state, reason, held_nano FROM withdrawals WHERE id = $1"
        state, reason, held_nano = await self.one(query, reference)
        return state, reason, held_nano

    async def assert_paid_once(self, *references: UUID) -> None:
        """One effect and one confirmed answer for each, and the books agree."""
        assert await self.column("SELECT reference FROM sandbox_effects ORDER BY 1") == sorted(references)
        assert {await self.withdrawal(reference) for reference in references} == {("confirmed", None, 0)}
        confirmed = "SELECT count(*) FROM commands WHERE kind = 'market.withdraw_confirm' AND status = 'succeeded'"
        assert await self.one(confirmed) == (len(references),)
        await self.assert_sound()

    async def assert_sound(self) -> None:
        pool = engine(self.settings)
        findings = await audit(pool, self.settings)
        await pool.dispose()
        assert [finding for finding in findings if finding.broken] == []


@asynccontextmanager
async def an_office(settings: Settings) -> AsyncIterator[Office]:
    journal, lane = Journal(settings), await connect(settings, "test", timeout_seconds=10, pinned_plans=True)
    office = Office(settings, journal, lane)
    try:
        await office.open()
        yield office
    finally:
        await journal.close()
        await lane.close()


@pytest.fixture
async def office(installer: Installer, request: pytest.FixtureRequest) -> AsyncIterator[Office]:
    """With calm settings, but for those a test changes by `with_settings`."""
    async with an_office(await installer.install(**CALM | getattr(request, "param", {}))) as office:
        yield office


def with_settings(settings: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("office", [pytest.param(settings, id="")], indirect=True)


async def test_a_payout_is_performed_and_confirmed(office: Office) -> None:
    [reference] = await office.withdraw()
    await office.carried()
    assert await office.calls() == [("perform", "done")]
    state, attempts, lookups, answer = await office.one("SELECT state, attempts, lookups, answer FROM gateway_requests")
    assert (state, attempts, lookups) == ("done", 1, 0)
    assert json.loads(answer)["outcome"] == "done"
    await office.assert_paid_once(reference)


async def test_more_requests_than_calls_at_once_are_all_carried(office: Office) -> None:
    references = await office.withdraw(3 * CALLS_MAX)
    await office.carried()
    await office.assert_paid_once(*references)
    assert await office.calls() == [("perform", "done")] * 3 * CALLS_MAX


async def test_racing_couriers_make_each_call_once(office: Office) -> None:
    references = await office.withdraw(100)
    async with office.couriers(4):
        await eventually(office.closed)
    assert await office.column("SELECT DISTINCT calls FROM sandbox_effects") == [1]
    assert await office.calls() == [("perform", "done")] * 100
    await office.assert_paid_once(*references)


async def test_an_answer_lost_twice_is_looked_up_and_confirmed_once(office: Office) -> None:
    await set_fault(office.lane, Fault.LOSE_ANSWER, "ton.pay", times=2)
    [reference] = await office.withdraw()
    async with office.couriers():
        await eventually(lambda: office.lane.fetchval("SELECT state = 'unknown' FROM gateway_requests"))
        assert await office.withdrawal(reference) == ("requested", None, TON)
        await eventually(office.closed)
    assert await office.calls() == [("perform", "unknown"), ("lookup", "unknown"), ("lookup", "done")]
    await office.assert_paid_once(reference)


async def test_a_request_that_was_never_seen_is_sent_again_under_its_reference(office: Office) -> None:
    await set_fault(office.lane, Fault.LOSE_REQUEST)
    [reference] = await office.withdraw()
    await office.carried()
    assert await office.calls() == [("perform", "unknown"), ("lookup", "never_seen"), ("perform", "done")]
    await office.assert_paid_once(reference)


@with_settings(SOON_TIRED)
async def test_a_request_never_seen_in_all_its_attempts_is_a_definite_no(office: Office) -> None:
    await set_fault(office.lane, Fault.LOSE_REQUEST, times=None)
    [reference] = await office.withdraw()
    await office.carried()
    calls = await office.calls()
    assert calls[:6] == [("perform", "unknown"), ("lookup", "never_seen")] * 3
    assert set(calls[6:]) <= {("lookup", "never_seen")}
    since_the_last, valid = await office.one(
        "SELECT closed_at - attempted_at, make_interval(secs => $1) FROM gateway_requests",
        office.settings.gateway_valid_seconds,
    )
    assert since_the_last >= 2 * valid
    assert await office.withdrawal(reference) == ("failed", "never_broadcast", 0)
    assert await office.column("SELECT reference FROM sandbox_effects") == []
    await office.assert_sound()


@with_settings(SOON_TIRED)
async def test_nothing_is_given_back_while_the_gateway_is_down(office: Office) -> None:
    """The attempts are used up, but nobody has said that none was seen."""
    await set_fault(office.lane, Fault.DOWN, times=None)
    [reference] = await office.withdraw()
    async with office.couriers():
        await eventually(lambda: office.lane.fetchval("SELECT lookups >= 5 FROM gateway_requests"))
        assert await office.withdrawal(reference) == ("requested", None, TON)
        calls = await office.calls()
        assert calls[:3] == [("perform", "never_seen")] * 3
        assert set(calls[3:]) <= {("lookup", "unknown"), ("lookup", None)}
        await clear_faults(office.lane)
        await eventually(office.closed)
    assert await office.withdrawal(reference) == ("failed", "never_broadcast", 0)
    assert await office.column("SELECT reference FROM sandbox_effects") == []


async def test_a_gateway_that_comes_back_is_sent_what_it_missed(office: Office) -> None:
    await set_fault(office.lane, Fault.DOWN, times=2)
    [reference] = await office.withdraw()
    await office.carried()
    assert await office.calls() == [("perform", "never_seen"), ("perform", "never_seen"), ("perform", "done")]
    await office.assert_paid_once(reference)


@pytest.mark.parametrize(
    ("said", "reason"),
    [("address_rejected", "address_rejected"), ("moon_phase", "refused"), ("expired", "refused"), (None, "refused")],
)
async def test_a_definite_no_gives_back_what_is_held(office: Office, said: str | None, reason: str) -> None:
    await set_fault(office.lane, Fault.REFUSE, reason=said)
    [reference] = await office.withdraw()
    await office.carried()
    assert await office.withdrawal(reference) == ("failed", reason, 0)
    assert await office.answers() == [("market.withdraw_fail", "succeeded")]
    await office.assert_sound()


async def test_an_answer_that_comes_twice_has_one_effect(office: Office) -> None:
    await set_fault(office.lane, Fault.DUPLICATE)
    [reference] = await office.withdraw()
    await office.carried()
    assert await office.column("SELECT status FROM commands WHERE kind = 'market.withdraw_confirm' ORDER BY seq") in (
        ["succeeded"],  # the feed's was executed first, and had ended the request when the courier came
        ["succeeded", "rejected"],
    )
    await office.assert_paid_once(reference)


@with_settings(HASTY)
async def test_a_slow_answer_is_unknown_and_looked_up(office: Office) -> None:
    await set_fault(office.lane, Fault.SLOW, seconds=60)
    [reference] = await office.withdraw()
    await office.carried()
    assert await office.calls() == [("perform", "unknown"), ("lookup", "done")]
    await office.assert_paid_once(reference)


async def test_an_answer_without_its_fields_is_none(installer: Installer) -> None:
    fields = {"tx_hash": "0a" * 32, "logical_time": 5, "network_fee_nano": 3}
    missing = fields.copy()
    del missing["tx_hash"]
    async with a_bridge() as bridge:

        async def respond(call: str, asked: dict[str, Any]) -> Response:
            said = missing if len(bridge.seen) < 3 else fields
            return JSONResponse({"reference": asked["reference"], "outcome": "done", "more": "than asked", **said})

        bridge.respond = respond
        settings = await installer.install(**CALM, gateway_url=bridge.url, gateway_secret=SecretStr(SECRET))
        async with an_office(settings) as office:
            [reference] = await office.withdraw()
            await office.carried()
            assert [seen.call for seen in bridge.seen] == ["perform", "lookup", "lookup"]
            reasons = await office.column("SELECT reason FROM gateway_log ORDER BY number")
            assert reasons == ["unreadable", "unreadable", None]
            assert await office.one("SELECT state, tx_hash FROM withdrawals WHERE id = $1", reference) == (
                "confirmed",
                fields["tx_hash"],
            )
            [attempted_at] = await office.column("SELECT attempted_at FROM gateway_requests")
            valid = timedelta(seconds=settings.gateway_valid_seconds)
            assert datetime.fromisoformat(bridge.seen[0].fields["not_after"]) == attempted_at + valid
            await office.assert_sound()


# -- whoever dies


async def test_a_request_whose_courier_died_before_the_call_is_looked_up_and_sent(office: Office) -> None:
    [reference] = await office.withdraw()
    await office.lane.execute("UPDATE gateway_requests SET state = 'sent', attempts = 1, attempted_at = now()")
    await office.carried()
    assert await office.calls() == [("lookup", "never_seen"), ("perform", "done")]
    await office.assert_paid_once(reference)


async def test_a_worker_killed_between_the_effect_and_the_answer_costs_a_lookup(
    installer: Installer, tmp_path: Path
) -> None:
    settings = await installer.install(**CALM | {"gateway_timeout_seconds": 3}, lease_seconds=1)
    async with an_office(settings) as office, site_of(settings, tmp_path / "logs") as site:
        await set_fault(office.lane, Fault.SLOW, seconds=60)
        [reference] = await office.withdraw()
        killed = site.start_worker()
        await eventually(lambda: office.lane.fetchval("SELECT count(*) FROM sandbox_effects"), 60)
        end(killed, signal.SIGKILL)
        assert await office.one("SELECT state, attempts, lookups FROM gateway_requests") == ("sent", 1, 0)
        site.start_worker()
        await eventually(lambda: office.lane.fetchval("SELECT state = 'confirmed' FROM withdrawals"), 60)
        assert await office.calls() == [("perform", None), ("lookup", "done")]
        await office.assert_paid_once(reference)


async def test_a_sleeper_whose_request_was_claimed_since_changes_nothing_by_an_unclear_answer(office: Office) -> None:
    [reference] = await office.withdraw()
    await office.lane.execute(
        "UPDATE gateway_requests SET state = 'sent', attempts = 2, due_at = now() + interval '1 hour'"
    )
    redis = connect_redis(office.settings)
    sleeper = Couriers(office.settings, Locks(redis), lambda _: None)
    for number, state in ((1, "sent"), (2, "unknown")):
        heard = Heard(reference, number, RequestState.UNKNOWN, False, "{}", 0, Outcome.UNKNOWN, None, 1, None)
        await sleeper._hear([heard])
        assert await office.column("SELECT state FROM gateway_requests") == [state]
    await sleeper._hearing.close()
    await redis.aclose()


@with_settings(HASTY)
async def test_couriers_survive_the_loss_of_their_connections(office: Office) -> None:
    references = await office.withdraw()
    async with office.couriers():
        for _ in range(3):
            await eventually(office.closed)
            references += await office.withdraw(40)
            await eventually(lambda: office.lane.fetchval("SELECT bool_or(state = 'sent') FROM gateway_requests"))
            await office.lane.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name IN ('souk couriers', 'souk sandbox') AND datname = current_database()"
            )
        await eventually(office.closed)
    await office.assert_paid_once(*references)


# -- giving up, and answers that come late


async def test_a_cancelled_request_is_not_attempted(office: Office) -> None:
    [reference] = await office.withdraw()
    await office.answer("market.withdraw_fail", reference, reason="expired")
    await office.drain()
    async with office.couriers():
        [other] = await office.withdraw()
        await eventually(office.closed)
    assert await office.withdrawal(reference) == ("failed", "expired", 0)
    await office.assert_sound()
    assert await office.column("SELECT reference FROM sandbox_effects") == [other]


async def test_a_request_is_given_up_or_attempted_never_both(office: Office) -> None:
    references = await office.withdraw(60)
    expiries = [await office.answer("market.withdraw_fail", reference, reason="expired") for reference in references]
    async with office.couriers(2):
        await eventually(lambda: office.lane.fetchval("SELECT bool_or(attempts > 0) FROM gateway_requests"))
        await eventually(office.closed)
    given_up = await office.column("SELECT id FROM withdrawals WHERE reason = 'expired'")
    attempted = await office.column("SELECT reference FROM sandbox_effects")
    assert sorted(given_up + attempted) == sorted(references)
    paid = await office.column("SELECT id FROM withdrawals WHERE state = 'confirmed'")
    assert sorted(paid) == sorted(attempted)
    codes = await office.column(
        "SELECT rejection->>'code' FROM commands WHERE id = ANY($1) AND status = 'rejected'", expiries
    )
    assert codes == ["REQUEST_IN_FLIGHT"] * len(attempted)
    await office.assert_sound()


async def test_an_answer_that_contradicts_the_end_is_told_to_the_operators(office: Office) -> None:
    """A feed says no, and it is believed; then the courier hears a yes."""
    await set_fault(office.lane, Fault.LOSE_ANSWER)
    [reference] = await office.withdraw()
    async with office.couriers():
        await eventually(lambda: office.lane.fetchval("SELECT count(*) FROM sandbox_effects"))
        await set_fault(office.lane, Fault.SLOW, seconds=1)
        await eventually(lambda: office.lane.fetchval("SELECT max(remaining) = 0 FROM sandbox_faults"))
        await office.answer("market.withdraw_fail", reference, reason="refused")
        await office.drain()
        assert await office.withdrawal(reference) == ("failed", "refused", 0)
        await eventually(lambda: office.lane.fetchval("SELECT bool_and(outcome IS NOT NULL) FROM gateway_log"))
    await office.drain()
    assert await office.answers() == [("market.withdraw_fail", "succeeded"), ("market.withdraw_confirm", "rejected")]
    assert await office.column("SELECT name FROM events WHERE name = 'gateway.contradicted'") == [
        "gateway.contradicted"
    ]
    assert await office.column("SELECT state FROM gateway_requests") == ["refused"]
    assert await office.withdrawal(reference) == ("failed", "refused", 0)
    await office.assert_sound()


async def test_an_answer_exists_once_however_often_it_is_heard(office: Office) -> None:
    [reference] = await office.withdraw()
    await office.carried()
    await office.lane.execute("UPDATE gateway_requests SET state = 'unknown', closed_at = NULL")
    await office.carried()
    assert await office.answers() == [("market.withdraw_confirm", "succeeded")]
    await office.assert_paid_once(reference)


async def test_what_nothing_waits_for_ends_without_an_answer(office: Office) -> None:
    await office.lane.execute(
        "INSERT INTO gateway_requests (reference, op, account, body, names, state, attempts, opened_at)"
        " VALUES ($1::uuid, 'account.sign_out', 'account:' || $1::uuid, '{}', '{}', 'pending', 0, now())",
        new_id(),
    )
    await office.carried()
    assert await office.column("SELECT state FROM gateway_requests") == ["done"]
    assert await office.answers() == []


def test_the_two_answers_to_a_request_have_ids_of_their_own() -> None:
    reference = new_id()
    yes: Command = ConfirmWithdrawal(
        user_id=USER, withdrawal_id=reference, tx_hash="0" * 64, logical_time=1, network_fee_nano=0
    )
    no: Command = FailWithdrawal(user_id=USER, withdrawal_id=reference, reason="refused")
    ids = [entry_of(reference, command, 4).id for command in (yes, no, yes)]
    assert ids[0] == ids[2] != ids[1]
    assert ids[0].version == 7
    assert ids[0].int >> 80 == reference.int >> 80
