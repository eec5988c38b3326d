"""Commands are sent until they are answered, each with one key; what came of them is told in order."""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest

from souk_client import (
    Answer,
    Client,
    NoConnection,
    Problem,
    Receipt,
    Submission,
    Unreachable,
    Unsuccessful,
    retries,
)
from souk_client.retries import PATIENCE_SECONDS
from tests.client.misbehaving import ACCEPTED, REJECTED, SUCCEEDED, Reply, http, problem, serving

BUSY = problem(503, "overloaded", "Retry-After: 0")


@pytest.fixture
def deserted() -> Iterator[str]:
    """An address at which nobody listens, nor will as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def first(*answers: bytes, then: bytes) -> Reply:
    """Replies that begin with these and go on with the last."""
    return lambda number, _: answers[number - 1] if number <= len(answers) else then


async def test_a_command_is_sent_with_its_fields_and_a_key_of_its_own() -> None:
    async with serving(lambda _, __: http(200, SUCCEEDED)) as server, Client(server.url, "key") as souk:
        receipt = await souk.submit("nft.buy", {"nft_id": 17}, price_nano=5, actor=42, wait=2.5)
        await souk.submit("nft.buy", run_at=datetime(2030, 1, 1, tzinfo=UTC), idempotency_key="mine")
        first, second = server.bodies()
        assert b"prefer: wait=3\r\n" in server.requests[0].lower()
        assert b"prefer" not in server.requests[1].lower()
    assert len(first.pop("idempotency_key")) == 36
    assert first == {"kind": "nft.buy", "payload": {"nft_id": 17, "price_nano": 5}, "actor": 42}
    assert (second["idempotency_key"], second["run_at"]) == ("mine", "2030-01-01T00:00:00Z")
    assert receipt.succeeded
    assert receipt.is_final
    assert receipt.result == {"deal_id": "7"}
    assert receipt.accepted_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert receipt.raise_for_outcome() is receipt


async def test_a_field_named_like_an_option_is_sent_in_the_mapping() -> None:
    named_so = {"actor": 1, "idempotency_key": 2, "wait": 3, "kind": 4}
    async with serving(lambda _, __: http(200, SUCCEEDED)) as server, Client(server.url, "key") as souk:
        await souk.submit("nft.buy", named_so, nft_id=17, actor=42, idempotency_key="mine")
        assert server.bodies() == [
            {"kind": "nft.buy", "payload": named_so | {"nft_id": 17}, "actor": 42, "idempotency_key": "mine"}
        ]


async def test_a_field_given_twice_is_not_sent() -> None:
    async with serving(lambda _, __: http(200, SUCCEEDED)) as server, Client(server.url, "key") as souk:
        with pytest.raises(TypeError, match="in the payload and as a keyword argument: nft_id, price_nano"):
            await souk.submit("nft.buy", {"nft_id": 17, "price_nano": 5, "x": 1}, price_nano=5, nft_id=17)
        assert server.requests == []


async def test_a_refusal_by_the_rules_is_an_outcome_that_is_raised_on_demand() -> None:
    async with serving(lambda _, __: http(200, REJECTED)) as server, Client(server.url, "key") as souk:
        receipt = await souk.submit("nft.buy", wait=1)
    assert receipt.rejection is not None
    assert (receipt.rejection.code, receipt.rejection.facts) == ("PRICE_CHANGED", {"price_nano": 7})
    with pytest.raises(Unsuccessful, match="is rejected: PRICE_CHANGED The price is another"):
        receipt.raise_for_outcome()


@pytest.mark.parametrize("answer", [b"", BUSY, problem(429, "x"), http(502, "no"), problem(504, "x")])
async def test_what_was_not_answered_is_sent_again_with_the_same_key(answer: bytes) -> None:
    async with serving(first(answer, answer, then=http(202, ACCEPTED))) as server:
        async with Client(server.url, "key") as souk:
            assert (await souk.submit("nft.buy")).status == "accepted"
        keys = {body["idempotency_key"] for body in server.bodies()}
        assert (len(server.requests), len(keys)) == (3, 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
async def test_a_refusal_that_does_not_pass_is_raised_at_once(status: int) -> None:
    errors = [{"path": "payload.nft_id", "message": "Field required"}]
    async with serving(lambda _, __: problem(status, "its_code", errors=errors)) as server:
        async with Client(server.url, "key") as souk:
            with pytest.raises(Problem, match=r"its_code: No\. payload\.nft_id: Field required") as raised:
                await souk.submit("nft.buy")
        assert len(server.requests) == 1
    assert (raised.value.status, raised.value.code, list(raised.value.errors)) == (status, "its_code", errors)


async def test_retry_after_is_respected_as_far_as_patience_goes() -> None:
    busy = problem(503, "unavailable", "Retry-After: 30")
    async with serving(lambda _, __: busy) as server, Client(server.url, "key", patience=5) as souk:
        with pytest.raises(Problem, match="unavailable") as raised:
            await souk.submit("nft.buy")
        assert len(server.requests) == 1
    assert raised.value.retry_after == 30


async def test_nobody_who_answers_is_unreachable_when_patience_ends() -> None:
    async with serving(lambda _, __: b"") as server, Client(server.url, "key", patience=0.3) as souk:
        with pytest.raises(Unreachable):
            await souk.get("1")
        assert len(server.requests) > 1


async def test_a_refused_connection_is_told_soon_and_names_the_address(deserted: str) -> None:
    began = monotonic()
    async with Client(deserted, "key") as souk:
        with pytest.raises(NoConnection, match=f"nothing answers at {deserted} "):
            await souk.submit("nft.buy")
        with pytest.raises(NoConnection, match=f"nothing answers at {deserted} "):
            await anext(souk.events("market"))
        [outcome] = await souk.submit_many([{"kind": "nft.buy", "payload": {}}])
        assert isinstance(outcome, NoConnection)
    assert monotonic() - began < PATIENCE_SECONDS


class Unsteady:
    """A transport to an API that listens only for the requests whose numbers are named."""

    def __init__(self, *heard: int) -> None:
        self.heard = heard
        self.count = 0

    async def request(self, *_: Any) -> Answer:
        self.count += 1
        if self.count not in self.heard:
            raise NoConnection("nobody listens")
        return Answer(200, {}, json.dumps(SUCCEEDED).encode())

    async def aclose(self) -> None:
        pass


async def test_patience_begins_when_the_api_was_reached_or_is_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "UNREACHED_SECONDS", 0.0)
    api = Unsteady(2, 5)
    async with Client("http://souk", "key", transport=api) as souk:
        with pytest.raises(NoConnection):
            await souk.get("1")
        assert api.count == 1
        assert (await souk.get("1")).succeeded
        assert (await souk.get("1")).succeeded
        assert api.count == 5
    api = Unsteady(4)
    async with Client("http://souk", "key", transport=api, patience=60) as souk:
        assert (await souk.get("1")).succeeded
        assert api.count == 4


async def test_an_api_that_takes_the_connection_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "UNREACHED_SECONDS", 0.0)
    async with serving(first(b"", b"", then=http(200, SUCCEEDED))) as server, Client(server.url, "key") as souk:
        assert (await souk.get("1")).succeeded


async def test_what_is_not_safe_is_never_sent_twice() -> None:
    async with serving(lambda _, __: b"") as server, Client(server.url, "key") as souk:
        with pytest.raises(Unreachable):
            await souk.call("POST", "/v1/webhooks", b"{}")
        assert len(server.requests) == 1


async def test_a_scheduled_command_was_not_accepted_yet() -> None:
    scheduled = ACCEPTED | {"status": "scheduled", "accepted_at": None}
    async with serving(lambda _, __: http(202, scheduled)) as server, Client(server.url, "key") as souk:
        assert (await souk.submit("nft.buy", run_at="2030-01-01T00:00:00Z")).accepted_at is None


async def test_waiting_goes_on_beyond_what_one_request_waits() -> None:
    async with serving(first(*[http(202, ACCEPTED)] * 3, then=http(200, SUCCEEDED))) as server:
        async with Client(server.url, "key") as souk:
            assert (await souk.submit("nft.buy", wait=100)).succeeded
        assert b"wait=30\r\n" in server.requests[0]
        assert server.requests[1].startswith(b"GET /v1/commands/1?wait=30 ")


async def test_once_accepted_the_receipt_is_told_whatever_happens_then() -> None:
    reply = first(http(202, ACCEPTED), then=b"")
    async with serving(reply) as server, Client(server.url, "key", patience=0.1) as souk:
        assert (await souk.submit("nft.buy", wait=5)).status == "accepted"


async def test_cancelling_tells_what_became_of_the_command() -> None:
    cancelled = SUCCEEDED | {"status": "cancelled", "result": None}
    too_late = problem(409, "already_final", receipt=SUCCEEDED)
    async with serving(first(http(200, cancelled), then=too_late)) as server, Client(server.url, "key") as souk:
        assert (await souk.cancel("1")).status == "cancelled"
        assert (await souk.cancel("1")).status == "succeeded"
        assert server.requests[0].startswith(b"DELETE /v1/commands/1 ")


async def test_what_came_of_many_is_in_their_order_and_what_was_refused_for_now_is_sent_again() -> None:
    busy = {"code": "too_many_requests", "status": 429, "detail": "Wait."}
    invalid = {"code": "invalid", "status": 422, "detail": "No."}
    answers = [[SUCCEEDED, busy, invalid, busy], [busy, SUCCEEDED | {"id": "4"}], [SUCCEEDED | {"id": "2"}]]

    def reply(number: int, _: bytes) -> bytes:
        return http(200, {"receipts": answers[number - 1]})

    async with serving(reply) as server, Client(server.url, "key") as souk:
        outcomes = await souk.submit_many(({"kind": "nft.buy", "payload": {"n": n}} for n in range(4)), actor=42)
        sent = [[command["payload"]["n"] for command in body["commands"]] for body in server.bodies()]
        assert {command["actor"] for command in server.bodies()[0]["commands"]} == {42}
    assert sent == [[0, 1, 2, 3], [1, 3], [1]]
    ids = [each.id if isinstance(each, Receipt) else str(each) for each in outcomes]
    assert ids == ["1", "2", "invalid: No.", "4"]


async def test_many_go_in_bodies_as_large_as_the_api_takes() -> None:
    def reply(_: int, body: bytes) -> bytes:
        return http(202, {"receipts": [ACCEPTED] * len(json.loads(body)["commands"])})

    async with serving(reply) as server, Client(server.url, "key") as souk:
        assert len(await souk.submit_many({"kind": "a", "payload": {}} for _ in range(2_500))) == 2_500
        assert [len(body["commands"]) for body in server.bodies()] == [1_000, 1_000, 500]
        server.requests.clear()
        assert len(await souk.submit_many({"kind": "a", "payload": {"x": "y" * 400_000}} for _ in range(5))) == 5
        assert [len(body["commands"]) for body in server.bodies()] == [2, 2, 1]
        assert all(len(request) < 2**20 for request in server.requests)


async def test_of_many_each_tells_that_nobody_answers_or_that_the_key_is_wrong() -> None:
    commands: list[Submission] = [{"kind": "a", "payload": {}}, {"kind": "b", "payload": {}}]
    async with serving(lambda _, __: b"") as server, Client(server.url, "key", patience=0.1) as souk:
        assert [type(each) for each in await souk.submit_many(commands)] == [Unreachable] * 2
    async with serving(lambda _, __: problem(401, "unauthenticated")) as server, Client(server.url, "key") as souk:
        assert [str(each) for each in await souk.submit_many(commands)] == ["unauthenticated: No."] * 2
        assert len(server.requests) == 1


async def test_pages_are_read_one_after_the_other() -> None:
    def reply(number: int, _: bytes) -> bytes:
        return http(200, {"items": [SUCCEEDED | {"id": str(number)}], "next": "more" if number < 3 else None})

    async with serving(reply) as server, Client(server.url, "key") as souk:
        assert [receipt.id async for receipt in souk.commands(status="succeeded")] == ["1", "2", "3"]
        assert server.requests[0].startswith(b"GET /v1/commands?limit=100&status=succeeded ")
        assert server.requests[1].startswith(b"GET /v1/commands?limit=100&status=succeeded&cursor=more ")


async def test_what_is_not_souk_is_told() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"
    async with serving(lambda _, __: page) as server, Client(server.url, "key") as souk:
        with pytest.raises(Problem, match="is this Souk"):
            await souk.read("/v1/listings")
