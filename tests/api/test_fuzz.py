"""Ten thousand requests that are wrong somehow: no 500, no hang, no traceback, nothing stored of what was refused."""

import asyncio
import json
import logging
import os
from collections import Counter
from random import Random
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tests.api.bazaar import Bazaar
from tests.api.fuzz import Answer, Client, Fuzz, Request
from tests.api.sockets import Served, served
from tests.installation import Installer, connected

SEED = int(os.environ.get("SOUK_TEST_FUZZ_SEED", "5"))
FRAMED, BROKEN = 9_000, 1_000
CLIENTS = 8


async def test_ten_thousand_fuzzed_requests_find_nothing(
    installer: Installer, caplog: pytest.LogCaptureFixture
) -> None:
    secret_key = SecretStr(Fernet.generate_key().decode())
    settings = await installer.install(secret_key=secret_key, wait_max_seconds=0.02, body_max_bytes=65_536)
    caplog.set_level(logging.WARNING)
    async with served(settings, send_buffer=None) as server:
        bazaar = Bazaar(server.api)
        await bazaar.open()
        before = await stored(server)
        document = (await server.api.anonymous.get("/openapi.json")).json()
        fuzz = Fuzz(Random(SEED), document, server.key, list(bazaar.ids.values()))
        answers = await asked(server, [fuzz.framed() for _ in range(FRAMED)])
        seen = Counter(answer.status for _, answer in answers)
        assert max(seen) < 500, next(each for each in answers if each[1].status >= 500)
        assert {200, 202, 400, 401, 404, 405, 413, 415, 422} <= seen.keys(), seen
        posted = [answer for request, answer in answers if request.method == b"POST"]
        assert await stored(server) - before == {name for answer in posted for name in accepted(answer)}
        said = await told(server, [fuzz.broken() for _ in range(BROKEN)])
        assert not [each for each in said if each[1].startswith(b"HTTP/1.1 5")]
        for answer in [*(answer.body for _, answer in answers), *(answer for _, answer in said)]:
            assert b"Traceback" not in answer
            assert b'File "' not in answer
        assert (await server.api.anonymous.get("/readyz")).json()["ready"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []


async def asked(server: Served, requests: list[Request]) -> list[tuple[Request, Answer]]:
    """The answers, from some connections at once."""
    left, answers = iter(requests), []

    async def ask_on() -> None:
        client = Client(*address(server))
        for request in left:
            try:
                answers.append((request, await client.ask(request)))
            except Exception as error:
                raise AssertionError(f"no answer to {request.as_bytes()[:2_000]!r}") from error
        client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(ask_on())
    return answers


async def told(server: Served, requests: list[Request]) -> list[tuple[Request, bytes]]:
    left, answers = iter(requests), []

    async def tell_on() -> None:
        client = Client(*address(server))
        for request in left:
            try:
                answers.append((request, await client.say(request)))
            except TimeoutError as error:
                raise AssertionError(f"a hang after {request.as_bytes()[:2_000]!r}") from error

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(tell_on())
    return answers


def address(server: Served) -> tuple[str, int]:
    url = urlsplit(server.base_url)
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port


def accepted(answer: Answer) -> set[str]:
    """The commands that an answer says were accepted."""
    if answer.status not in (200, 202):
        return set()
    try:
        content = json.loads(answer.body)
    except ValueError:
        return set()
    receipts = content.get("receipts", [content]) if isinstance(content, dict) else []
    return {receipt["id"] for receipt in receipts if "partition" in receipt and "status" in receipt}


async def stored(server: Served) -> set[str]:
    async with connected(server.api.settings) as connection:
        return {str(row["id"]) for row in await connection.fetch("SELECT id FROM commands")}
