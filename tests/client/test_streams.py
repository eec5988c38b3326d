"""A stream goes on where it was, however often its connection ends."""

from typing import Any

import pytest

from souk_client import Client, Event, Problem
from tests.client.misbehaving import ACCEPTED, SUCCEEDED, http, problem, serving, sse


def event(number: int) -> dict[str, Any]:
    return {
        "id": f"9-{number}",
        "name": "nft.sold",
        "command_id": None,
        "topics": ["market"],
        "at": "2030-01-01T00:00:00Z",
        "fields": {"number": number},
    }


async def take(souk: Client, count: int, after: str | None = None) -> list[Event]:
    events: list[Event] = []
    async for each in souk.events("market", "nft:17", after=after):
        events.append(each)
        if len(events) == count:
            break
    return events


async def test_events_come_each_once_over_many_connections() -> None:
    def reply(number: int, _: bytes) -> bytes:
        if number % 3 == 2:
            return b"" if number % 2 else problem(503, "unavailable")
        return sse(b": a heartbeat\n\n", event(2 * number), event(2 * number + 1), b"data: {cut")

    async with serving(reply) as server, Client(server.url, "key") as souk:
        events = await take(souk, 6)
        heads = [request.lower() for request in server.requests]
    assert [each.id for each in events] == ["9-2", "9-3", "9-6", "9-7", "9-8", "9-9"]
    assert (events[0].name, events[0].topics, events[0].fields) == ("nft.sold", ("market",), {"number": 2})
    assert heads[0].startswith(b"get /v1/events?topic=market&topic=nft%3a17 ")
    assert b"authorization: bearer key" in heads[0]
    assert b"last-event-id" not in heads[0]
    assert b"last-event-id: 9-3\r\n" in heads[1]
    assert b"last-event-id: 9-3\r\n" in heads[2]
    assert b"last-event-id: 9-7\r\n" in heads[3]


async def test_a_position_told_without_an_event_is_where_it_goes_on() -> None:
    connections = [sse(b"id: 5-5\n\n"), sse(event(1))]
    async with serving(lambda number, _: connections[number - 1]) as server, Client(server.url, "key") as souk:
        await take(souk, 1, after="4-4")
        assert b"last-event-id: 4-4\r\n" in server.requests[0].lower()
        assert b"last-event-id: 5-5\r\n" in server.requests[1].lower()


async def test_a_refusal_that_does_not_pass_ends_the_stream() -> None:
    async with serving(lambda _, __: problem(403, "forbidden")) as server, Client(server.url, "key") as souk:
        with pytest.raises(Problem, match="forbidden"):
            await take(souk, 1)


async def test_the_stream_of_a_command_ends_with_its_outcome() -> None:
    scheduled = ACCEPTED | {"status": "scheduled"}
    connections = [sse(scheduled), sse(scheduled, ACCEPTED), http(503, {}), sse(ACCEPTED, SUCCEEDED, ACCEPTED)]
    async with serving(lambda number, _: connections[number - 1]) as server, Client(server.url, "key") as souk:
        assert [receipt.status async for receipt in souk.stream("1")] == ["scheduled", "accepted", "succeeded"]
        assert server.requests[0].startswith(b"GET /v1/commands/1/stream ")
