"""Processes of the command line that start at once: forks of one that has imported everything.

They are what `python -m souk …` makes but for the second of imports, which hundreds of starts would pay: signals, exit
statuses, files and memory are their own, and nothing is shared with the test.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_PRELOADED = ["souk", "api.app", "api.server", "storage.postgres.schema", "workers.worker", "tests.system.processes"]


class Process:
    """`program` as `python -m` runs it, in a session of its own. Asked and awaited as a `subprocess.Popen` is."""

    def __init__(self, program: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._process = _context().Process(target=_run, args=(program, list(arguments), dict(environment), log))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        self._process.join(seconds)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(repr(self._process), seconds or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _run(program: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
    os.setsid()
    os.chdir(PROJECT)
    os.environ.clear()
    os.environ.update(environment)
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
