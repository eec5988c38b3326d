"""The thrifty transport and the submitter against a small server, which misbehaves on demand."""

import asyncio

import pytest

from loadtest.client import open_client
from loadtest.measure import Tally
from loadtest.pace import Command, Sending
from loadtest.submit import Submitter
from souk_client import Unreachable
from tests.client.misbehaving import ACCEPTED, SUCCEEDED, http, serving

COMMAND = Command(b'{"kind":"nft.buy"}', "nft:1")


async def submitted(url: str, *commands: Command, batched: bool = False, sample: int = 0) -> Tally:
    tally = Tally()
    async with open_client(url, "key", connections=4) as client:
        submit = Submitter(client, tally, batched=batched, sample=sample)
        await submit([Sending(command, tally.started) for command in commands])
    return tally


async def test_a_connection_is_used_again() -> None:
    async with serving(lambda _, __: http(200, {})) as server, open_client(server.url, "key") as client:
        for _ in range(3):
            assert (await client.request("GET", "/x", headers={"Prefer": "wait=1"})).status == 200
        assert server.connections == 1
        assert b"Authorization: Bearer key" in server.requests[0]
        assert b"Prefer: wait=1" in server.requests[0]


async def test_there_are_never_more_connections_than_allowed() -> None:
    async with serving(lambda _, __: http(200, {})) as server, open_client(server.url, "key", connections=2) as client:
        await asyncio.gather(*(client.request("GET", "/x") for _ in range(20)))
        assert len(server.requests) == 20
        assert server.connections <= 2


async def test_a_closed_connection_is_replaced() -> None:
    async with serving(lambda number, _: b"" if number == 1 else http(200, {})) as server:
        async with open_client(server.url, "key") as client:
            with pytest.raises(Unreachable, match="closed the connection"):
                await client.request("GET", "/x")
            assert (await client.request("GET", "/x")).status == 200
        assert server.connections == 2


async def test_an_answer_that_does_not_come_in_time_is_given_up() -> None:
    async with serving(lambda _, __: b"HTTP/1.1 200 OK\r\n") as server, open_client(server.url, "key") as client:
        with pytest.raises(Unreachable, match="no answer in time"):
            await client.request("GET", "/x", timeout_seconds=0.05)


async def test_nobody_listening_is_unreachable() -> None:
    async with open_client("http://127.0.0.1:9", "key") as client:
        with pytest.raises(Unreachable, match="cannot connect"):
            await client.request("GET", "/x")


async def test_a_body_in_pieces_is_put_together() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    async with serving(lambda _, __: chunked) as server, open_client(server.url, "key") as client:
        assert (await client.request("GET", "/x")).body == b"abcde"


async def test_a_refusal_for_now_is_sent_again_after_the_time_asked_for() -> None:
    busy = {"code": "overloaded", "status": 503}
    async with serving(lambda n, _: http(503, busy, "Retry-After: 0") if n < 3 else http(200, SUCCEEDED)) as server:
        tally = await submitted(server.url, COMMAND)
    assert tally.repeats == {"overloaded": 2}
    assert tally.statuses == {"succeeded": 1}
    assert tally.sound()


async def test_a_broken_connection_is_repeated_with_the_same_key() -> None:
    async with serving(lambda number, _: b"" if number == 1 else http(200, SUCCEEDED)) as server:
        tally = await submitted(server.url, COMMAND)
        assert [request.split(b"\r\n\r\n")[1] for request in server.requests] == [COMMAND.body] * 2
    assert tally.repeats == {"unreachable": 1}
    assert tally.sound()


async def test_a_problem_is_a_last_answer() -> None:
    async with serving(lambda _, __: http(422, {"code": "invalid", "status": 422})) as server:
        tally = await submitted(server.url, Command(b"{}", "nft:1", foreseen="invalid"))
    assert tally.problems == {"invalid": 1}
    assert tally.sound()
    assert not tally.unforeseen


async def test_an_accepted_command_is_followed_to_its_result() -> None:
    def reply(number: int, _: bytes) -> bytes:
        return http(202, ACCEPTED) if number == 1 else http(200, ACCEPTED if number == 2 else SUCCEEDED)

    async with serving(reply) as server:
        tally = await submitted(server.url, COMMAND)
        assert server.requests[2].startswith(b"GET /v1/commands/1?wait=30 ")
    assert (tally.accepted, tally.final) == (1, 1)


async def test_an_accepted_command_that_is_not_found_later_is_unfinished() -> None:
    missing = {"code": "not_found", "status": 404}
    async with serving(lambda number, _: http(202, ACCEPTED) if number == 1 else http(404, missing)) as server:
        tally = await submitted(server.url, COMMAND)
    assert tally.unfinished == 1
    assert not tally.sound()


async def test_of_a_batch_only_what_was_refused_for_now_is_sent_again() -> None:
    busy = {"code": "too_many_requests", "status": 429}
    first = {"receipts": [SUCCEEDED, busy, {"code": "invalid", "status": 422}]}
    commands = [Command(b'{"kind":"a"}', "a"), Command(b'{"kind":"b"}', "b"), Command(b'{"kind":"c"}', "c", "invalid")]
    async with serving(lambda n, _: http(200, first if n == 1 else {"receipts": [SUCCEEDED]})) as server:
        tally = await submitted(server.url, *commands, batched=True)
        assert server.requests[1].endswith(b'{"commands":[{"kind":"b"}]}')
    assert tally.statuses == {"succeeded": 2}
    assert tally.problems == {"invalid": 1}
    assert tally.sound()


async def test_a_sampled_submission_measures_acceptance_and_not_the_result() -> None:
    async with serving(lambda n, _: http(202, ACCEPTED) if n == 1 else http(200, SUCCEEDED)) as server:
        tally = await submitted(server.url, COMMAND, sample=1)
        assert b"Prefer" not in server.requests[0]
    assert (len(tally.to_acceptance), len(tally.to_result)) == (1, 0)
