"""The API as a process, on a real socket: what only bytes can do, and results that come when they are there."""

import json
import socket
import time
from datetime import UTC, datetime, timedelta

from tests.market import register
from tests.system.upstack import Up

MEBIBYTE = 2**20
CRLF = "\r\n"


def talk(stack: Up, request: bytes, *, hang_up: bool = False) -> bytes:
    """The first bytes of the answer."""
    host, _, port = stack.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        return b"" if hang_up else connection.recv(65_536)


def post(stack: Up, *headers: str) -> bytes:
    lines = ["POST /v1/commands HTTP/1.1", "Host: souk", f"Authorization: Bearer {stack.key}"]
    return CRLF.join([*lines, "Content-Type: application/json", *headers, "", ""]).encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def commands_of(stack: Up, asset: str) -> int:
    return len(stack.get(f"/v1/commands?asset={asset}&limit=100")["items"])


def test_a_body_too_large_is_refused_before_it_is_read_to_its_end(stack: Up) -> None:
    announced = post(stack, f"Content-Length: {10_000 * MEBIBYTE}") + b" " * (MEBIBYTE + 1)
    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    chunked = post(stack, "Transfer-Encoding: chunked") + piece * 17
    for request in (post(stack, f"Content-Length: {2 * MEBIBYTE}") + b" " * 2 * MEBIBYTE, announced, chunked):
        answer = talk(stack, request)
        assert status_of(answer) == 413
        assert b"application/problem+json" in answer


def test_what_is_not_http_is_refused(stack: Up) -> None:
    two_lengths = post(stack, "Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
    for request in (
        b"\x16\x03\x01 hello\r\n\r\n",
        b"{}\r\n\r\n",
        post(stack, "Content-Length: -5") + b"{}",
        two_lengths,
    ):
        assert status_of(talk(stack, request)) == 400


def test_who_hangs_up_in_the_middle_of_a_body_has_sent_nothing_and_is_no_bug(stack: Up) -> None:
    body = json.dumps(register(9_100)).encode()
    for sent in (b"", body[:-1], body):
        talk(stack, post(stack, f"Content-Length: {len(body) + 1}") + sent, hang_up=True)
    assert stack.post("/v1/commands", register(9_101), Prefer="wait=30")["status"] == "succeeded"
    assert commands_of(stack, "user:9100") == 0
    assert "Traceback" not in stack.log.read_text()


def test_a_result_is_told_when_it_is_there(stack: Up) -> None:
    """Without notices, each would be seen a second late."""
    start = time.monotonic()
    for number in range(9_200, 9_220):
        assert stack.post("/v1/commands", register(number), Prefer="wait=30")["status"] == "succeeded"
    assert time.monotonic() - start < 10


def test_a_scheduled_command_runs_when_its_time_has_come_and_not_before(stack: Up) -> None:
    run_at = datetime.now(UTC) + timedelta(seconds=1)
    scheduled = stack.post("/v1/commands", register(9_300) | {"run_at": run_at.isoformat()})
    assert (scheduled["status"], scheduled["accepted_at"]) == ("scheduled", None)
    final = stack.get(f"/v1/commands/{scheduled['id']}?wait=20")
    assert final["status"] == "succeeded"
    assert run_at <= datetime.fromisoformat(final["accepted_at"]) <= datetime.fromisoformat(final["finished_at"])
