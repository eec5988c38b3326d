"""The command line in this process, through the same `main` as the console script: starting Python takes longer than
the rest."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import souk
from tests.system.upstack import Up


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `souk` with arguments and environment, in an empty directory."""

    def run(*arguments: str, **variables: str) -> Done:
        with monkeypatch.context() as patched:
            for name in [name for name in os.environ if name.startswith("SOUK_")]:
                patched.delenv(name)
            for name, value in {"COLUMNS": "200", **variables}.items():
                patched.setenv(name, value)
            patched.chdir(tmp_path)
            patched.setattr(sys, "argv", ["souk", *arguments])
            with pytest.raises(SystemExit) as ended:
                souk.main()
        code = ended.value.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(code if isinstance(code, int) else 0 if code is None else 1, out, err)

    return run


@pytest.fixture
def on(run: Run, stack: Up) -> Run:
    """Runs `souk` on the stack in its data directory."""
    return lambda *arguments, **variables: run(*arguments, "--data-dir", str(stack.data_dir), **variables)


def assert_one_sentence(done: Done, *words: str) -> None:
    assert (done.status, done.out) == (1, ""), done
    assert len(done.err.strip().splitlines()) == 1, done.err
    for word in words:
        assert word in done.err
