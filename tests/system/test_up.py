"""`souk up`: a whole stack from one command, which keeps its data and leaves nothing running behind."""

import signal
import stat
from pathlib import Path

import psutil

from tests.market import buy, fund, receive, register, set_price
from tests.system.upstack import SMALL, Up, souk

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


def test_the_demo_trades_proves_the_audit_and_ends(tmp_path: Path) -> None:
    done = souk("demo", "--once", "--seconds", "3", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not any(process for process in psutil.process_iter() if str(tmp_path) in " ".join(cmdline(process)))


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
