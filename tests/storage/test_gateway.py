"""The gateway: what the bridge is told and how its answers are taken; what the sandbox does and how it goes wrong."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from commands.command import Invalid
from commands.nft.items import GiftFacts
from storage.embedded.stack import free_port
from storage.gateway.bridge import ANSWER_MAX_BYTES, Answer, Bridge, Call, Outcome, command_of, signed
from storage.gateway.sandbox import Fault, Sandbox, clear_faults, plausible, set_fault
from storage.journal.entry import new_id
from storage.postgres.connection import Connection
from storage.settings import Settings
from tests.bridge import SECRET, ABridge, a_bridge

REFERENCE = new_id()
PAYMENT = {"address": "an address", "amount_nano": 5, "comment": None}
PAY = Call(REFERENCE, "ton.pay", ("wallet",), 7)
SEND = PAY._replace(op="gift.send", accounts=("account:a",))


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def test_requests_are_signed_as_the_standard_says() -> None:
    """Its published example."""
    headers = signed(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_documented_example_is_signed_as_it_says() -> None:
    document = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    example = document.split("## Signatures")[1]
    headers, content = example.split("```")[1].strip().split("\n\n")
    found = re.search(r"SOUK_GATEWAY_SECRET=(\S+)`", example)
    assert found
    shown = dict(line.split(": ") for line in headers.splitlines())
    reference, timestamp = shown["webhook-id"], int(shown["webhook-timestamp"])
    assert json.loads(content)["reference"] == reference
    assert signed(found[1], reference, timestamp, content.encode()) == shown


# -- the bridge


@pytest.fixture
async def bridge() -> AsyncIterator[ABridge]:
    async with a_bridge() as bridge:
        yield bridge


@pytest.fixture
async def gateway(bridge: ABridge) -> AsyncIterator[Bridge]:
    gateway = Bridge(bridge.url, SECRET, timeout_seconds=0.5)
    yield gateway
    await gateway.close()


async def test_the_bridge_is_told_the_operation_and_its_reference(bridge: ABridge, gateway: Bridge) -> None:
    not_after = soon()
    answer = await gateway.perform(PAY, PAYMENT, not_after)
    assert answer == Answer(Outcome.DONE)
    assert await gateway.lookup(PAY) == Answer(Outcome.DONE)
    perform, lookup = bridge.seen
    assert datetime.fromisoformat(perform.fields.pop("not_after")) == not_after
    asked = {"reference": str(REFERENCE), "op": "ton.pay", "accounts": ["wallet"], "fencing_token": 7}
    assert perform == ("perform", {**asked, **PAYMENT})
    assert lookup == ("lookup", asked)


async def test_a_wrong_secret_gets_no_answer(bridge: ABridge) -> None:
    gateway = Bridge(bridge.url, "whsec_" + "AAAA" * 8, timeout_seconds=0.5)
    assert await gateway.lookup(PAY) == Answer(Outcome.UNKNOWN, "status_401")
    await gateway.close()


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({"outcome": "done", "tx_hash": "0a"}, Answer(Outcome.DONE, None, {"tx_hash": "0a"})),
        ({"outcome": "refused", "reason": "address_rejected"}, Answer(Outcome.REFUSED, "address_rejected")),
        ({"outcome": "refused", "reason": "code 12345 is wrong"}, Answer(Outcome.REFUSED, None)),
        ({"outcome": "unknown"}, Answer(Outcome.UNKNOWN)),
        ({"outcome": "never_seen"}, Answer(Outcome.NEVER_SEEN)),
        ({"outcome": "perhaps"}, Answer(Outcome.UNKNOWN, "unclear")),
        ({}, Answer(Outcome.UNKNOWN, "unclear")),
        ({"outcome": "done", "reference": str(UUID(int=1))}, Answer(Outcome.UNKNOWN, "unclear")),
        ([], Answer(Outcome.UNKNOWN, "unclear")),
    ],
)
async def test_answers_are_definite_or_unknown(bridge: ABridge, gateway: Bridge, said: Any, heard: Answer) -> None:
    async def respond(call: str, fields: dict[str, Any]) -> Response:
        return JSONResponse({"reference": fields["reference"], **said} if isinstance(said, dict) else said)

    bridge.respond = respond
    assert await gateway.lookup(PAY) == heard
    performed = await gateway.perform(PAY, PAYMENT, soon())
    # Whoever answers a request cannot say that he has never seen it.
    assert performed == (Answer(Outcome.UNKNOWN, "unclear") if heard.outcome is Outcome.NEVER_SEEN else heard)


async def _silent() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(1)


async def _long() -> AsyncIterator[bytes]:
    yield b" " * ANSWER_MAX_BYTES
    yield b"{}"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (lambda: Response(status_code=500), "status_500"),
        (lambda: JSONResponse({}, 503), "status_503"),
        (lambda: RedirectResponse("/elsewhere", 307), "status_307"),
        (lambda: Response("<html>"), "unclear"),
        (lambda: StreamingResponse(_long()), "too_long"),
        (lambda: StreamingResponse(_silent()), "timeout"),
        (lambda: Response(b"not gzip", headers={"content-encoding": "gzip"}), "broken_off"),
    ],
)
async def test_whatever_is_no_answer_is_unknown(bridge: ABridge, gateway: Bridge, response: Any, reason: str) -> None:
    async def respond(call: str, fields: dict[str, Any]) -> Response:
        made: Response = response()
        return made

    bridge.respond = respond
    assert await gateway.perform(PAY, PAYMENT, soon()) == Answer(Outcome.UNKNOWN, reason)
    assert await gateway.lookup(PAY) == Answer(Outcome.UNKNOWN, reason)
    assert [seen.call for seen in bridge.seen] == ["perform", "lookup"]


async def test_without_a_connection_nothing_was_sent() -> None:
    gateway = Bridge(f"http://127.0.0.1:{free_port('127.0.0.1')}", SECRET, timeout_seconds=0.5)
    answer = await gateway.perform(PAY, PAYMENT, soon())
    assert answer == Answer(Outcome.NEVER_SEEN, "not_connected")
    assert await gateway.lookup(PAY) == Answer(Outcome.UNKNOWN, "not_connected")
    await gateway.close()


async def test_a_connection_that_breaks_off_may_have_carried_the_request() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1")
    gateway = Bridge(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", SECRET, timeout_seconds=0.5)
    answer = await gateway.perform(PAY, PAYMENT, soon())
    assert answer == Answer(Outcome.UNKNOWN, "broken_off")
    await gateway.close()
    server.close()
    await server.wait_closed()


# -- the sandbox


@pytest.fixture
async def sandbox(settings: Settings) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(settings)
    yield sandbox
    await sandbox.close()


async def calls(lane: Connection) -> list[int]:
    return [row["calls"] for row in await lane.fetch("SELECT calls FROM sandbox_effects")]


async def test_a_reference_has_one_effect_and_gets_the_first_answer(sandbox: Sandbox, lane: Connection) -> None:
    first = await sandbox.perform(PAY, PAYMENT, soon())
    await set_fault(lane, Fault.REFUSE)
    assert await sandbox.perform(PAY, PAYMENT, soon()) == first
    assert await sandbox.lookup(PAY) == first
    assert first.outcome is Outcome.DONE
    assert await calls(lane) == [2]


async def test_what_comes_too_late_is_not_performed(sandbox: Sandbox, lane: Connection) -> None:
    answer = await sandbox.perform(PAY, PAYMENT, datetime.now(UTC) - timedelta(seconds=1))
    assert answer == Answer(Outcome.UNKNOWN, "too_late")
    assert await sandbox.lookup(PAY) == Answer(Outcome.NEVER_SEEN)
    assert await calls(lane) == []


@pytest.mark.parametrize(
    ("fault", "performed", "looked_up"),
    [
        (Fault.REFUSE, Answer(Outcome.REFUSED, "no_luck"), Answer(Outcome.REFUSED, "no_luck")),
        (Fault.LOSE_REQUEST, Answer(Outcome.UNKNOWN, "timeout"), Answer(Outcome.NEVER_SEEN)),
        (Fault.LOSE_ANSWER, Answer(Outcome.UNKNOWN, "timeout"), Answer(Outcome.DONE)),
        (Fault.DOWN, Answer(Outcome.NEVER_SEEN, "not_connected"), Answer(Outcome.NEVER_SEEN)),
        (Fault.SLOW, Answer(Outcome.DONE), Answer(Outcome.DONE)),
    ],
)
async def test_faults_strike_as_often_as_told(
    sandbox: Sandbox, lane: Connection, fault: Fault, performed: Answer, looked_up: Answer
) -> None:
    await set_fault(lane, fault, "gift.send", reason="no_luck", seconds=0.01)
    paid = await sandbox.perform(PAY._replace(reference=new_id()), PAYMENT, soon())
    assert paid.outcome is Outcome.DONE
    assert await sandbox.perform(SEND, {}, soon()) == performed
    assert await sandbox.lookup(SEND) == looked_up


async def test_a_fault_without_end_lasts_until_it_is_cleared(sandbox: Sandbox, lane: Connection) -> None:
    await set_fault(lane, Fault.DOWN, times=None)
    for _ in range(3):
        assert await sandbox.lookup(SEND) == Answer(Outcome.UNKNOWN, "not_connected")
    await clear_faults(lane)
    assert await sandbox.lookup(SEND) == Answer(Outcome.NEVER_SEEN)


async def test_the_sandbox_keeps_no_secret(sandbox: Sandbox, lane: Connection) -> None:
    secrets = {"code": "13579", "password": "canary"}
    body = {"account_id": "a", "phone": "+15550100", **secrets}
    await sandbox.perform(SEND._replace(op="account.sign_in"), body, soon())
    row = await lane.fetchrow("SELECT * FROM sandbox_effects")
    assert row is not None
    assert "13579" not in str(row)
    assert "canary" not in str(row)


ASKED: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "ton.pay": (PAYMENT, "market.withdraw", {"user_id": 1, "withdrawal_id": REFERENCE}),
    "gift.transfer": ({}, "nft.return", {"nft_id": "5", "return_id": REFERENCE}),
    "gift.send": (
        {},
        "accounts.send_gift",
        {"user_id": 1, "account_id": REFERENCE, "gift_id": "5", "send_id": REFERENCE},
    ),
    "channel.inspect": ({"channel_id": "77"}, "channels.add", {"channel_id": "77", "check_id": REFERENCE}),
    "channel.transfer": ({}, "channels.buy", {"channel_id": "77", "purchase_id": REFERENCE}),
    "account.send_code": ({}, "accounts.connect", {"user_id": 1, "account_id": REFERENCE}),
    "account.sign_in": (
        {"account_id": REFERENCE, "phone": "+15550100"},
        "accounts.approve",
        {"user_id": 1, "account_id": REFERENCE, "approve_id": REFERENCE},
    ),
    "account.snapshot": (
        {"account_id": REFERENCE},
        "accounts.sync",
        {"user_id": 1, "account_id": REFERENCE, "sync_id": REFERENCE},
    ),
}


@pytest.mark.parametrize("op", ASKED)
def test_both_answers_to_every_operation_make_a_command(op: str) -> None:
    body, answers, names = ASKED[op]
    answer = Answer(Outcome.DONE, None, {**plausible(op, REFERENCE, body), "more": "than asked", "user_id": 99})
    names = json.loads(json.dumps(names, default=str))
    confirm = command_of(answers, names, answer)
    assert confirm.kind == f"{answers}_confirm"
    assert getattr(confirm, "user_id", 1) == 1
    for reason in ("receiver_refused", "expired", "never heard of", None):
        fail = command_of(answers, names, Answer(Outcome.REFUSED, reason))
        assert fail.kind == f"{answers}_fail"
        assert getattr(fail, "reason", None) != "expired"


def test_an_answer_without_its_fields_makes_no_command() -> None:
    _, answers, names = ASKED["ton.pay"]
    with pytest.raises(Invalid):
        command_of(answers, json.loads(json.dumps(names, default=str)), Answer(Outcome.DONE))
    with pytest.raises(Invalid):
        command_of("market.of_tomorrow", {}, Answer(Outcome.DONE))


@given(st.integers(1, 2**63 - 1))
def test_the_gifts_of_any_channel_are_gifts(channel_id: int) -> None:
    answer = plausible("channel.inspect", REFERENCE, {"channel_id": str(channel_id)})
    assert answer == plausible("channel.inspect", new_id(), {"channel_id": str(channel_id)})
    gifts = [GiftFacts.model_validate_json(json.dumps(item["gift"])) for item in answer["gifts"]]
    assert len({gift.id for gift in gifts}) == len(gifts) >= 2
