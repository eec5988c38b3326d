"""The commands that speak HTTP, as people and pipes use them: files, streams, cancelling, hints, tables, completion."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.system.command_line import Run, assert_one_sentence
from tests.system.processes import PROJECT
from tests.system.site import STOP_SECONDS
from tests.system.upstack import Up, clean_environment

SOUK = (sys.executable, "-m", "souk")
REGISTER = '{"kind": "users.register", "payload": {"user_id": %d}}'


def piped(stack: Up, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SOUK, *arguments, "--data-dir", str(stack.data_dir)],
        cwd=PROJECT,
        env=clean_environment(),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def running(stack: Up, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Until the block ends, when it is interrupted, and ends well."""
    process = subprocess.Popen(
        [*SOUK, *arguments, "--data-dir", str(stack.data_dir)],
        cwd=PROJECT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(STOP_SECONDS) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def on_terminal(stack: Up, *arguments: str, stdout: IO[str] | None = None) -> str:
    """What a person sees, if stdout goes there too or is put away."""
    ours, theirs = pty.openpty()
    command = [*SOUK, *arguments, "--data-dir", str(stack.data_dir)]
    with subprocess.Popen(
        command, cwd=PROJECT, env=clean_environment(), stdin=theirs, stdout=stdout or theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:  # the end of a terminal
            pass
        os.close(ours)
    assert process.returncode == 0
    return seen.decode()


def lines_of(text: str) -> Sequence[Any]:
    return [json.loads(line) for line in text.splitlines()]


# -- files


def test_a_file_is_answered_line_by_line_and_a_bad_line_harms_no_other(on: Run, tmp_path: Path) -> None:
    file = tmp_path / "commands.ndjson"
    refused = '{"kind": "nft.buy", "payload": {"nft_id": 1, "price_nano": 1000000000}, "actor": 404}'
    lines = [
        REGISTER % 9101,
        "nonsense",
        "",
        '{"kind": "users.regster", "payload": {}}',
        refused,
        REGISTER % 9102,
        "[]",
    ]
    file.write_text("\n".join(lines))
    done = on("submit", "--file", str(file))
    told = lines_of(done.out)
    assert done.status == 1
    assert [each.get("status") for each in told] == ["succeeded", None, 422, "rejected", "succeeded", None]
    assert [each.get("line") for each in told] == [None, 2, 4, None, None, 7]
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == ["line 2", "line 4", "line 7"]


def test_progress_is_on_the_terminal_and_receipts_are_in_the_pipe(stack: Up, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("\n".join(REGISTER % user for user in range(9150, 9170)))
    with (tmp_path / "out").open("w") as out:
        seen = on_terminal(stack, "submit", "--file", str(tmp_path / "in"), stdout=out)
    assert "20/20" in seen
    assert [each["status"] for each in lines_of((tmp_path / "out").read_text())] == ["succeeded"] * 20


def test_a_file_with_a_key_sent_again_does_nothing_twice(on: Run, tmp_path: Path) -> None:
    file = tmp_path / "commands.ndjson"
    file.write_text("\n".join(REGISTER % user for user in range(9110, 9115)))
    first, again = (on("submit", "--file", str(file), "--key", "import 7") for _ in range(2))
    assert (first.status, again.status, first.err) == (0, 0, "")
    assert [each["id"] for each in lines_of(first.out)] == [each["id"] for each in lines_of(again.out)]


def test_a_file_may_be_stdin_and_larger_than_a_body(stack: Up) -> None:
    done = piped(stack, "submit", "--file", "-", text="\n".join(REGISTER % user for user in range(20_000, 21_500)))
    assert (done.returncode, done.stderr) == (0, "")
    assert [each["result"]["user_id"] for each in lines_of(done.stdout)] == list(range(20_000, 21_500))


def test_a_file_is_given_up_when_the_key_is_wrong(on: Run, tmp_path: Path) -> None:
    file = tmp_path / "commands.ndjson"
    file.write_text("\n".join(REGISTER % user for user in range(1, 2_500)))
    done = on("submit", "--file", str(file), SOUK_API_KEY="souk_x_y")
    assert (done.status, len(done.out.splitlines())) == (1, 1_000)
    assert len(done.err.splitlines()) == 1
    assert "unauthenticated" in done.err


# -- streams


def test_a_command_is_watched_until_it_is_final(on: Run, stack: Up) -> None:
    good = on("submit", "users.register", "user_id=9120", "--wait", "0").json["id"]
    bad = on("submit", "nft.buy", "nft_id=1", "price_nano=1000000000", "--actor", "404", "--wait", "0").json["id"]
    watched = piped(stack, "watch", good)
    assert (watched.returncode, lines_of(watched.stdout)[-1]["status"]) == (0, "succeeded")
    watched = piped(stack, "watch", bad, "--table")
    assert watched.returncode == 1
    assert watched.stdout.splitlines()[-1].split()[1:] == ["nft.buy", "rejected", "USER_NOT_FOUND"]


def test_topics_are_watched_until_interrupted(on: Run, stack: Up) -> None:
    with running(stack, "watch", "user:9121", "user:9122", "--after", "0-0") as watching:
        for user in (9121, 9122):
            on("submit", "users.register", f"user_id={user}")
            event = next_line(watching)
            assert (event["name"], event["fields"]) == ("user.registered", {"user_id": user})


def test_the_queues_are_watched_until_interrupted(stack: Up) -> None:
    with running(stack, "queues", "--watch") as watching:
        assert [len(next_line(watching)) for _ in range(2)] == [4, 4]


# -- cancelling and scheduling


def test_a_scheduled_command_is_cancelled(on: Run) -> None:
    scheduled = on("submit", "users.register", "user_id=9130", "--run-at", "2099-01-01T00:00:00Z", "--wait", "0").json
    assert scheduled["status"] == "scheduled"
    cancelled = on("cancel", scheduled["id"])
    assert (cancelled.status, cancelled.json["status"]) == (0, "cancelled")


def test_what_has_run_is_not_cancelled(on: Run) -> None:
    done = on("submit", "users.register", "user_id=9131").json
    cancelled = on("cancel", done["id"])
    assert (cancelled.status, cancelled.json) == (1, done)
    assert cancelled.err == "souk: too late: it has succeeded\n"


def test_a_command_that_starts_too_late_expires(on: Run) -> None:
    done = on("submit", "users.register", "user_id=9132", "--not-after", "2020-01-01T00:00:00Z")
    assert (done.status, done.json["status"]) == (1, "expired")


# -- hints


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["nft.byu", "nft_id=1"], "Did you mean nft.buy"),
        (["users.register", "usr_id=1"], "users.register takes user_id, language?."),
        (["nft.buy", "nft_id=1", "price_nano=1000000000"], "--actor"),
    ],
)
def test_a_refusal_comes_with_a_hint(on: Run, arguments: list[str], hint: str) -> None:
    assert_one_sentence(on("submit", *arguments), hint)


def test_a_field_without_a_value_comes_with_a_hint(on: Run) -> None:
    done = on("submit", "users.register", "user_i", "7")
    assert (done.status, done.out) == (2, "")
    assert "did you mean user_id=" in done.err


def test_a_wrong_key_and_a_wrong_address_come_with_a_hint(on: Run, run: Run) -> None:
    assert_one_sentence(on("get", "1", SOUK_API_KEY="souk_x_y"), "SOUK_API_KEY", "souk keys create")
    assert_one_sentence(run("get", "1", SOUK_API_KEY="x", SOUK_URL="http://127.0.0.1:9"), "souk up")
    assert_one_sentence(run("get", "1", SOUK_API_KEY="x", SOUK_URL="127.0.0.1:9"), "not an http address")


# -- how it is shown


def test_people_see_tables_and_pipes_get_json(on: Run, stack: Up) -> None:
    assert "│ operator │" in on_terminal(stack, "keys", "list")
    assert json.loads(on_terminal(stack, "keys", "list", "--json"))[0]["role"] == "operator"
    assert on("keys", "list").json[0]["role"] == "operator"
    assert "│ operator │" in on("keys", "list", "--table").out


@pytest.mark.parametrize("arguments", [["queues"], ["failed"], ["audit"], ["config"]])
def test_whatever_is_a_table_for_people_is_json_for_pipes(on: Run, arguments: list[str]) -> None:
    assert isinstance(on(*arguments).json, list)
    assert on(*arguments, "--table").out[0] not in "[{"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("souk sub", ["submit"]),
        ("souk submit nft.b", ["nft.buy"]),
        ("souk submit users.register l", ["language="]),
        ("souk watch mar", ["market"]),
        ("souk cancel --d", ["--data-dir"]),
    ],
)
def test_the_shell_completes_commands_kinds_fields_and_topics(words: str, offered: list[str]) -> None:
    asked = {"_SOUK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = Path(sys.executable).with_name("souk")
    done = subprocess.run([command], env=os.environ | asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == offered


def test_the_completion_of_a_shell_is_shown() -> None:
    command = [str(Path(sys.executable).with_name("souk")), "--show-completion", "bash"]
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert "_SOUK_COMPLETE=complete_bash" in done.stdout


def test_the_command_line_imports_nothing_heavy_before_a_command_needs_it() -> None:
    program = "import sys, souk; assert not {'httpx', 'pydantic', 'souk_client', 'sqlalchemy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, timeout=60)
