"""`souk up`: a whole stack from one command, which keeps its data and leaves nothing running behind."""

import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil

from tests.market import buy, fund, receive, register, set_price
from tests.system.upstack import SMALL, Up, put_packages_in_the_way, souk

WAIT = {"Prefer": "wait=30"}


def trade(stack: Up, first: int) -> set[str]:
    """A trade between two new users; answers the statuses."""
    setup = [register(first), register(first + 1), fund(first + 1), receive(first, first)]
    answers = [stack.post("/v1/commands", command, **WAIT) for command in setup]
    answers += [
        stack.post("/v1/commands", command, **WAIT) for command in (set_price(first, first), buy(first + 1, first))
    ]
    return {answer["status"] for answer in answers}


def test_it_drains_on_a_signal_and_its_data_stays_as_it_was_installed(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Up(data_dir, *SMALL) as stack:
        key = stack.key
        for name in ("operator.key", "secret.key"):
            assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600
        assert stat.S_IMODE((data_dir / "stack.json").stat().st_mode) == 0o600
        assert trade(stack, 1) == {"succeeded"}
        accepted = stack.post("/v1/commands", register(3))["id"]
        assert stack.end(signal.SIGTERM) == 0
        assert stack.left_nothing_running()
        assert not (data_dir / "stack.json").exists()
    with Up(data_dir, *SMALL) as again:
        assert again.key == key
        assert again.get(f"/v1/commands/{accepted}?wait=30")["status"] == "succeeded"
        assert trade(again, 10) == {"succeeded"}
        assert again.souk("audit").returncode == 0
        assert again.end(signal.SIGINT) == 0
        assert again.left_nothing_running()
        assert "Traceback" not in again.log.read_text()
    other = souk("up", "--data-dir", str(data_dir), "--port", "0", "--partitions", "8")
    assert (other.returncode, other.stdout) == (1, "")
    assert "SOUK_PARTITIONS" in other.stderr
    assert len(other.stderr.strip().splitlines()) == 1, other.stderr


def test_packages_in_the_current_directory_that_are_named_like_ours_change_nothing(tmp_path: Path) -> None:
    put_packages_in_the_way(tmp_path)
    with Up(tmp_path / "data", *SMALL, directory=tmp_path) as stack:
        assert stack.post("/v1/commands", register(1), **WAIT)["status"] == "succeeded"
        assert stack.end(signal.SIGTERM) == 0
        assert "Traceback" not in stack.log.read_text()


def test_nothing_outlives_a_killed_stack_nothing_accepted_is_lost_and_its_neighbour_does_not_notice(
    tmp_path: Path, stack: Up
) -> None:
    with Up(tmp_path / "data", *SMALL) as killed:
        assert killed.url != stack.url
        assert killed.key != stack.key
        assert trade(killed, 1) == trade(stack, 101) == {"succeeded"}
        registrations = {"commands": [register(number) for number in range(1_000, 2_000)]}
        killed.post("/v1/commands/batch", registrations)
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL
        assert killed.left_nothing_running(30)
    assert trade(stack, 110) == {"succeeded"}
    with Up(tmp_path / "data", *SMALL) as again:
        receipts = again.post("/v1/commands/batch", registrations, **WAIT)["receipts"]
        assert {receipt["status"] for receipt in receipts} == {"succeeded"}
        assert not any(receipt["result"]["created"] for receipt in receipts), "accepted commands were lost"
        assert again.souk("audit").returncode == 0


def test_a_process_that_ends_is_started_again(stack: Up) -> None:
    children = psutil.Process(stack.process.pid).children()
    [worker] = [child for child in children if child.cmdline()[-1] == "worker"]
    worker.kill()
    assert trade(stack, 120) == {"succeeded"}
    assert "souk worker ended with status -9 and is started again" in stack.log.read_text()


def test_killed_servers_are_started_again_and_nothing_accepted_is_lost(tmp_path: Path) -> None:
    """While the stack starts, while it works, and once more at its end."""
    starting = Up(tmp_path / "data", *SMALL)
    try:
        until(lambda: any("api" in cmdline(child) for child in children_of(starting)), "no API is started")
        kill_servers(starting, "redis", "postgres")
    except BaseException:
        starting.end(signal.SIGTERM)
        raise
    with starting as stack:
        accepted = {accept(stack, 1)}
        for user_id, names in enumerate((["redis"], ["postgres"], ["redis", "postgres"]), 2):
            kill_servers(stack, *names)
            accepted.add(accept(stack, user_id))
        told = stack.log.read_text()
        assert told.count("Redis ended with status -9 and is started again") == 3, told
        assert told.count("PostgreSQL ended with status -9 and is started again") == 3, told
        outcomes = [stack.get(f"/v1/commands/{command}?wait=30") for command in accepted]
        assert {outcome["status"] for outcome in outcomes} == {"succeeded"}
        assert len(outcomes) == 4
        assert trade(stack, 10) == {"succeeded"}
        assert stack.souk("audit").returncode == 0
        kill_servers(stack, "redis", "postgres")
        assert stack.end(signal.SIGINT) == 0
        assert stack.left_nothing_running()
        assert "Traceback" not in stack.log.read_text()


def kill_servers(stack: Up, *names: str) -> None:
    """Kill the embedded servers that work in directories of these names, all at once; return when each is told of."""
    victims = [child for child in children_of(stack) if Path(child.cwd()).name in names]
    assert len(victims) == len(names)
    lines = len(endings(stack))
    for victim in victims:
        victim.kill()
    until(lambda: len(endings(stack)) == lines + len(names), "their ends are not told")


def endings(stack: Up) -> list[str]:
    return [line for line in stack.log.read_text().splitlines() if "ended with status -9 and is started again" in line]


def accept(stack: Up, user_id: int) -> str:
    """The id of a registration, sent until it is accepted and executed."""
    command = register(user_id) | {"idempotency_key": f"register {user_id}"}
    receipts: list[dict[str, Any]] = []

    def accepted() -> bool:
        try:
            receipts.append(stack.post("/v1/commands", command, **WAIT))
        except HTTPError as error:
            if error.code != 503:
                raise
            return False
        return True

    until(accepted, "it is never accepted")
    [receipt] = receipts
    assert receipt["status"] == "succeeded"
    return str(receipt["id"])


def children_of(stack: Up) -> list[psutil.Process]:
    assert stack.process.poll() is None, stack.log.read_text()
    return psutil.Process(stack.process.pid).children()


def until(holds: Callable[[], bool], claim: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, claim
        time.sleep(0.02)


def test_what_keeps_a_stack_from_starting_is_one_sentence(tmp_path: Path, stack: Up) -> None:
    same = souk("up", "--data-dir", str(stack.data_dir), "--port", "0")
    taken = souk("up", "--data-dir", str(tmp_path / "other"), "--port", stack.url.rpartition(":")[2])
    nowhere = souk("up", "--data-dir", "/proc/nothing", "--port", "0")
    for failed, words in ((same, "Another stack is using"), (taken, "port"), (nowhere, "/proc/nothing")):
        assert (failed.returncode, failed.stdout) == (1, "")
        assert words in failed.stderr
        assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr
    assert not (tmp_path / "other").exists()
    assert trade(stack, 130) == {"succeeded"}


def test_the_demo_trades_though_what_it_runs_on_is_killed_proves_the_audit_and_ends(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--once", "--seconds", "3", command="demo") as demo:
        assert demo.process.stdout is not None
        assert "setting up" in demo.process.stdout.readline()
        kill_servers(demo, "redis", "postgres")
        said = demo.process.stdout.read() + demo.log.read_text()
        assert demo.process.wait(60) == 0, said
        assert "Traceback" not in said
    assert not any(process for process in psutil.process_iter() if str(tmp_path) in " ".join(cmdline(process)))


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
