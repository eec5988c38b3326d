"""The WebSocket: commands, receipts and events on one connection, and every way in which one ends."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api import server as api_server
from api.events import websocket
from storage.keys import Role, revoke_key
from storage.redis.queue import OUTCOMES_CHANNEL, connect_redis
from tests.api.sockets import PATIENCE_SECONDS, Client, Served, assert_refused, served
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.market import register, set_price
from workers.worker import execute

FLOOD = range(1, 3_001)
PORTION = 250
users = itertools.count(50_000)


@pytest.fixture(scope="module")
async def site(installer: Installer) -> AsyncIterator[Served]:
    async with served(await installer.install()) as site:
        yield site


async def tell(site: Served, topic: str, numbers: Sequence[int] = (1,)) -> None:
    """Write events and give notice, as a worker does."""
    async with connected(site.api.settings) as connection:
        await connection.execute(
            "INSERT INTO events (command_id, name, topics, fields, at) "
            "SELECT gen_random_uuid(), 'test.told', ARRAY[$1], "
            "json_build_object('number', n, 'filling', repeat('x', 300)), now() FROM unnest($2::int[]) AS n",
            topic,
            numbers,
        )
    async with connect_redis(site.api.settings) as redis:
        await redis.publish(OUTCOMES_CHANNEL, str(uuid4()))


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    assert {message["type"] for message in messages} <= {"event"}
    return [message["event"]["fields"]["number"] for message in messages]


# -- submissions


async def test_a_command_submitted_on_a_socket_gets_its_receipt_twice_accepted_and_final(site: Served) -> None:
    async with site.connected() as client:
        accepted = await client.ask("submit", id="mine", command=register(next(users)))
        assert (accepted["type"], accepted["id"], accepted["replayed"]) == ("receipt", "mine", False)
        assert accepted["receipt"]["status"] == "accepted"
        await execute({"settings": site.api.settings}, accepted["receipt"]["id"])
        final = await client.receive()
        assert (final["type"], final["id"], final["receipt"]["status"]) == ("receipt", "mine", "succeeded")
        assert final["receipt"] == (await site.api.operator.get(final["receipt"]["links"]["self"])).json()


async def test_commands_of_one_socket_are_accepted_in_the_order_sent(site: Served) -> None:
    async with site.connected() as client:
        keys = [f"in-order-{number}" for number in range(300)]
        for key in keys:
            await client.send("submit", id=key, command=set_price(1, 7) | {"idempotency_key": key})
        told = {(await client.receive())["id"] for _ in keys}
    assert told == set(keys)
    async with connected(site.api.settings) as connection:
        rows = await connection.fetch(
            "SELECT idempotency_key FROM commands WHERE idempotency_key LIKE 'in-order-%' ORDER BY seq"
        )
    assert [row[0] for row in rows] == keys


async def test_a_repeated_key_is_told_as_such_and_its_outcome_too(site: Served) -> None:
    command = register(next(users)) | {"idempotency_key": "again"}
    async with site.connected() as first, site.connected() as second:
        accepted = await first.ask("submit", id=1, command=command)
        repeated = await second.ask("submit", id=2, command=command)
        assert (accepted["replayed"], repeated["replayed"]) == (False, True)
        assert repeated["receipt"] == accepted["receipt"]
        await execute({"settings": site.api.settings}, accepted["receipt"]["id"])
        for client in (first, second):
            assert (await client.receive())["receipt"]["status"] == "succeeded"
        told_once = await second.ask("submit", id=3, command=command)
        assert (told_once["id"], told_once["receipt"]["status"]) == (3, "succeeded")
        assert (await second.ask("ping"))["type"] == "pong"


async def test_a_connection_has_few_submissions_under_way(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the table is locked all pile up that are let in; an INSERT takes what has piled up."""
    monkeypatch.setattr(websocket, "IN_FLIGHT_MAX", 5)
    async with site.connected() as client, connected(site.api.settings) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE commands IN EXCLUSIVE MODE")
        for number in range(40):
            await client.send("submit", id=number, command=set_price(2, 8) | {"idempotency_key": f"few-{number}"})
        await transaction.rollback()
        assert {(await client.receive())["type"] for _ in range(40)} == {"receipt"}
        rows = await connection.fetch(
            "SELECT count(*) FROM commands WHERE idempotency_key LIKE 'few-%' GROUP BY xmin::text"
        )
    assert max(row[0] for row in rows) <= 5


async def test_unfinished_commands_of_a_connection_are_limited(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "UNFINISHED_MAX", 3)
    async with site.connected() as client:
        for number in range(3):
            assert (await client.ask("submit", id=number, command=register(next(users))))["type"] == "receipt"
        assert_refused(await client.ask("submit", id=3, command=register(next(users))), 3, "too_many_requests")


# -- who may


async def test_without_a_key_the_handshake_is_refused_as_http_would(site: Served) -> None:
    for headers in ({}, {"Authorization": "Bearer souk_no_such_key"}):
        with pytest.raises(InvalidStatus) as refused:
            await connect(site.url, additional_headers=headers, proxy=None)
        response = refused.value.response
        assert response.status_code == 401
        assert response.headers["content-type"] == "application/problem+json"
        assert json.loads(response.body or b"")["code"] == "unauthenticated"


async def test_a_page_connects_with_the_cookie_of_its_session_and_no_other_page_does(site: Served) -> None:
    user = next(users)
    _, key = await site.key_of(Role.USER, user)
    begun = await site.api.with_key(key).post("/v1/session")
    cookie = begun.headers["set-cookie"].partition(";")[0]
    own = site.url.replace("ws://", "http://").removesuffix("/v1/ws")
    async with connect(site.url, additional_headers={"Cookie": cookie, "Origin": own}, proxy=None) as connection:
        accepted = await Client(connection).ask("submit", id=1, command=set_price(user, 9))
    assert accepted["receipt"]["actor"] == user
    with pytest.raises(InvalidStatus) as refused:
        await connect(site.url, additional_headers={"Cookie": cookie, "Origin": "http://elsewhere"}, proxy=None)
    assert refused.value.response.status_code == 401


async def test_a_connection_takes_one_of_the_keys_places(installer: Installer) -> None:
    async with served(await installer.install(streams_max=2)) as site:
        async with site.connected(), site.connected():
            with pytest.raises(InvalidStatus) as refused:
                await site.connected().__aenter__()
            assert refused.value.response.status_code == 429
            assert json.loads(refused.value.response.body or b"")["code"] == "too_many_requests"

        async def free() -> bool:
            try:
                async with site.connected() as client:
                    return bool(await client.ask("ping"))
            except InvalidStatus:
                return False

        await eventually(free)


async def test_a_user_submits_in_the_own_name_only(site: Served) -> None:
    user = next(users)
    _, key = await site.key_of(Role.USER, user)
    async with site.connected(key) as client:
        accepted = await client.ask("submit", id=1, command=set_price(user, 9))
        assert accepted["receipt"]["actor"] == user
        assert_refused(await client.ask("submit", id=2, command=set_price(user + 1, 9)), 2, "forbidden")


async def test_another_users_topic_is_refused(site: Served) -> None:
    user = next(users)
    _, key = await site.key_of(Role.USER, user)
    async with site.connected(key) as client:
        for topic in (f"user:{user + 1}", "ops"):
            assert_refused(await client.ask("subscribe", id=1, topics=["market", topic]), 1, "forbidden")
        subscribed = await client.ask("subscribe", id=2, topics=[f"user:{user}"])
        assert subscribed["topics"] == [f"user:{user}"]
        await tell(site, "market")
        await tell(site, f"user:{user + 1}")
        await tell(site, f"user:{user}")
        assert (await client.receive())["event"]["topics"] == [f"user:{user}"]


async def test_a_revoked_key_submits_no_more(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "_AUTHENTICATE_SECONDS", 3_600)
    key_id, key = await site.key_of(Role.SERVICE)
    async with site.connected(key) as client:
        assert (await client.ask("submit", id=1, command=register(next(users))))["type"] == "receipt"
        await revoke_key(site.api.engine, key_id)

        async def closed() -> bool:
            try:
                await client.ask("submit", id=2, command=register(next(users)))
            except ConnectionClosed as end:
                return end.rcvd is not None and end.rcvd.code == websocket.UNAUTHENTICATED
            return False

        await eventually(closed)


async def test_a_revoked_key_listens_no_more(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "_AUTHENTICATE_SECONDS", 0.05)
    key_id, key = await site.key_of(Role.SERVICE)
    async with site.connected(key) as client:
        subscribed = await client.ask("subscribe", topics=["nft:1"])
        await revoke_key(site.api.engine, key_id)
        assert await client.rest() == ([], websocket.UNAUTHENTICATED, f"after={subscribed['position']}")


# -- events


async def test_events_and_receipts_share_one_connection(site: Served) -> None:
    user = next(users)
    async with site.connected() as client:
        subscribed = await client.ask("subscribe", id="s", topics=[f"user:{user}", "nft:1"])
        assert (subscribed["type"], subscribed["id"]) == ("subscribed", "s")
        accepted = await client.ask("submit", id=1, command=register(user))
        await execute({"settings": site.api.settings}, accepted["receipt"]["id"])
        messages = [await client.receive() for _ in range(2)]
        by_type = {message["type"]: message for message in messages}
        assert by_type["receipt"]["receipt"]["status"] == "succeeded"
        event = by_type["event"]["event"]
        assert (event["name"], event["command_id"]) == ("user.registered", accepted["receipt"]["id"])
        assert (await client.ask("ping"))["position"] >= event["id"]


async def test_topics_come_and_go(site: Served) -> None:
    async with site.connected() as client:
        assert (await client.ask("subscribe", topics=["nft:101"]))["topics"] == ["nft:101"]
        assert (await client.ask("subscribe", topics=["nft:102", "nft:101"]))["topics"] == ["nft:101", "nft:102"]
        assert (await client.ask("unsubscribe", id=1, topics=["nft:101"]))["topics"] == ["nft:102"]
        await tell(site, "nft:101")
        await tell(site, "nft:102")
        assert (await client.receive())["event"]["topics"] == ["nft:102"]
        refused = await client.ask("subscribe", id=2, topics=["nft:103"], after="1-1")
        assert_refused(refused, 2, "invalid", ["after"])


async def test_a_client_that_comes_back_misses_and_repeats_nothing(site: Served) -> None:
    async with site.connected() as client:
        position = (await client.ask("subscribe", topics=["nft:111"]))["position"]
    told = []
    for _ in range(5):
        await tell(site, "nft:111", (1, 2, 3))
        async with site.connected() as client:
            await client.ask("subscribe", topics=["nft:111"], after=position)
            events = [await client.receive() for _ in range(3)]
            told += numbers(events)
            position = events[-1]["event"]["id"]
    assert told == [1, 2, 3] * 5


async def test_a_reader_that_stops_reading_is_closed_and_can_resume(site: Served) -> None:
    async with site.slow() as client, site.connected() as witness:
        for each in (client, witness):
            assert (await each.ask("subscribe", topics=["nft:121"]))["type"] == "subscribed"
        for start in FLOOD[::PORTION]:
            portion = range(start, start + PORTION)
            await tell(site, "nft:121", portion)
            assert numbers([await witness.receive() for _ in portion]) == list(portion)  # who reads is not held up
        events, code, reason = await client.rest()
    assert code == websocket.SLOW
    assert len(events) < len(FLOOD)
    assert reason == f"after={events[-1]['event']['id']}"
    async with site.connected() as again:
        await again.ask("subscribe", topics=["nft:121"], after=reason.removeprefix("after="))
        events += [await again.receive() for _ in range(len(FLOOD) - len(events))]
    assert numbers(events) == list(FLOOD)


async def test_who_is_closed_in_the_middle_of_an_event_can_resume_before_it(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "_AUTHENTICATE_SECONDS", 0.05)
    key_id, key = await site.key_of(Role.SERVICE)
    async with site.connected(key) as witness, site.slow(key) as client:
        await client.ask("subscribe", topics=["nft:131"])
        await witness.ask("subscribe", topics=["nft:131"])
        await tell(site, "nft:131", FLOOD[:PORTION])
        assert len([await witness.receive() for _ in range(PORTION)]) == PORTION
        await revoke_key(site.api.engine, key_id)
        await witness.rest()
        events, code, reason = await client.rest()
    assert 0 < len(events) < PORTION
    assert (code, reason) == (websocket.UNAUTHENTICATED, f"after={events[-1]['event']['id']}")


async def test_a_reader_that_stops_is_not_kept_in_memory(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer to it is small, and it asks for no events: what it does not take stops its own requests."""
    monkeypatch.setattr(websocket, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(api_server, "_LINGER_SECONDS", 0.1)

    async def gone() -> bool:
        return not site.server.server_state.connections

    async with site.slow() as client:
        with pytest.raises(ConnectionClosed):
            await ask_on_and_on(client)
        await eventually(gone)


async def ask_on_and_on(client: Client) -> None:
    """Without taking an answer."""
    while True:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await client.send("ping", id="x" * 255)


# -- the end of the process


async def test_a_drain_answers_the_submissions_under_way_then_closes(installer: Installer) -> None:
    async with served(await installer.install()) as site, connected(site.api.settings) as connection:
        async with site.connected() as client, site.connected() as idle:
            position = (await client.ask("subscribe", topics=["market"]))["position"]
            async with connection.transaction():
                await connection.execute("LOCK TABLE commands IN EXCLUSIVE MODE")
                for number in range(3):
                    await client.send("submit", id=number, command=register(next(users)))
                assert (await client.ask("ping"))["type"] == "pong"  # all have been read
                site.server.should_exit = True
                assert await idle.rest() == ([], websocket.RESTARTING, "")
            answers, code, reason = await client.rest()
        assert [(each["type"], each["receipt"]["status"]) for each in answers] == [("receipt", "accepted")] * 3
        assert (code, reason) == (websocket.RESTARTING, f"after={position}")
