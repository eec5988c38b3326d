"""What a client may say on a WebSocket that makes no sense: it is told so, and nobody else notices."""

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.sockets import Served, assert_refused, served
from tests.installation import Installer
from tests.market import register, set_price

BODY_MAX = 16_384


@pytest.fixture(scope="module")
async def site(installer: Installer) -> AsyncIterator[Served]:
    async with served(await installer.install(body_max_bytes=BODY_MAX)) as site:
        yield site


COMMAND = register(1)
BAD: list[tuple[str, object, str, list[str] | None]] = [
    ("", None, "malformed", None),
    ("{", None, "malformed", None),
    ("[" * 10_000, None, "malformed", None),
    ('{"op": "ping", "id": NaN}', None, "malformed", None),
    ('{"op": "ping", "id": "\\ud800"}', None, "malformed", None),
    ("[]", None, "invalid", ["op"]),
    ("17", None, "invalid", ["op"]),
    ('{"id": 1}', 1, "invalid", ["op"]),
    ('{"op": "fly", "id": "x"}', "x", "invalid", ["op"]),
    ('{"op": ["ping"], "id": 2}', 2, "invalid", ["op"]),
    ('{"op": "ping", "id": 1.5}', None, "invalid", ["id"]),
    ('{"op": "ping", "id": true}', None, "invalid", ["id"]),
    (json.dumps({"op": "ping", "id": "x" * 256}), None, "invalid", ["id"]),
    ('{"op": "ping", "more": 1}', None, "invalid", ["more"]),
    (json.dumps({"op": "submit", "command": COMMAND}), None, "invalid", ["id"]),
    ('{"op": "submit", "id": 3}', 3, "invalid", ["command"]),
    ('{"op": "submit", "id": 3, "command": []}', 3, "invalid", None),
    ('{"op": "submit", "id": 3, "command": {"kind": "no.kind", "payload": {}}}', 3, "invalid", ["kind"]),
    (json.dumps({"op": "submit", "id": 3, "command": set_price(1, -5)}), 3, "invalid", ["payload.nft_id"]),
    ('{"op": "subscribe", "id": 4, "topics": []}', 4, "invalid", ["topics"]),
    ('{"op": "subscribe", "id": 4, "topics": "market"}', 4, "invalid", ["topics"]),
    ('{"op": "subscribe", "id": 4, "topics": ["nft:x"]}', 4, "invalid", ["topics"]),
    ('{"op": "subscribe", "id": 4, "topics": ["market"], "after": "soon"}', 4, "invalid", ["after"]),
    (json.dumps({"op": "subscribe", "topics": [f"nft:{number}" for number in range(1, 102)]}), None, "invalid", None),
    ('{"op": "unsubscribe", "id": 5, "topics": ["sky"]}', 5, "invalid", ["topics"]),
]


async def test_one_bad_message_harms_no_other(site: Served) -> None:
    async with site.connected() as client, site.api.unchanged():
        for text, request_id, code, paths in BAD:
            await client.connection.send(text)
            assert_refused(await client.receive(), request_id, code, paths)
            assert await client.ask("ping", id="next") == {"type": "pong", "id": "next", "position": None}
        await client.connection.send(b'{"op": "ping"}')
        assert_refused(await client.receive(), None, "malformed")
        assert (await client.ask("ping"))["type"] == "pong"


async def test_a_bad_submission_harms_none_of_those_around_it(site: Served) -> None:
    async with site.connected() as client:
        for number, user in enumerate((1, 0, 2)):
            await client.send("submit", id=number, command=register(user))
        answers = {(message := await client.receive())["id"]: message for _ in range(3)}
    assert [answers[number]["type"] for number in range(3)] == ["receipt", "problem", "receipt"]


WORDS: list[Any] = [
    None,
    True,
    -1,
    2**63,
    1.5,
    "",
    "x",
    "\x00",
    "nft:7",
    "1-1",
    "market",
    [],
    {},
    ["nft:7"],
    {"op": "ping"},
]


def spoiled(chance: random.Random) -> str:
    """A message that was right before something in it was replaced, dropped or cut."""
    valid: list[dict[str, Any]] = [
        {"op": "submit", "id": 1, "command": set_price(1, 7)},
        {"op": "subscribe", "id": "a", "topics": ["nft:7"], "after": "1-1"},
        {"op": "unsubscribe", "id": 2, "topics": ["nft:7"]},
        {"op": "ping", "id": 3},
    ]
    message = chance.choice(valid)
    place = message
    while isinstance(inner := place[name := chance.choice(list(place))], dict) and chance.random() < 0.8:
        place = inner
    if chance.random() < 0.7:
        place[name] = chance.choice(WORDS)
    else:
        del place[name]
    text = json.dumps(message)
    return text[: chance.randrange(len(text))] if chance.random() < 0.1 else text


async def test_every_message_has_an_answer_that_is_no_fault_of_ours(
    site: Served, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(17)
    async with site.connected() as client:
        for _ in range(1_000):
            text = spoiled(chance)
            await client.connection.send(text)
            answer = await client.receive()
            assert answer["type"] in ("receipt", "subscribed", "pong", "problem"), text
            assert answer.get("problem", {}).get("code") != "internal", text
    assert not caplog.records


async def test_bytes_of_any_kind_end_their_own_connection_only(site: Served, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(18)
    async with site.connected() as other:
        for _ in range(100):
            async with site.connected() as client:
                client.connection.transport.write(chance.randbytes(chance.randrange(1, 200)))
                client.connection.transport.write_eof()
                await client.connection.wait_closed()
        assert (await other.ask("ping"))["type"] == "pong"
    assert not caplog.records


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\xfe\x7f\xff" + bytes(4) + b" " * 0x7FFF, 1009),  # longer than allowed
        (b"\x81\x82" + bytes(4) + b"\xff\xff", 1007),  # not UTF-8
        (b"\x83\x80" + bytes(4), 1002),  # a reserved kind of frame
        (b"\x81\x02hi", 1002),  # not masked
    ],
)
async def test_what_is_not_the_protocol_ends_the_connection_with_its_code(
    site: Served, frame: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.connected() as client:
        client.connection.transport.write(frame)
        assert (await client.rest())[1] == code
    assert not caplog.records
