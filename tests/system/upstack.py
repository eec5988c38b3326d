"""`souk up` as a user runs it: found by its ready line, asked by command line and over HTTP."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen

import psutil

from tests.system.processes import PROJECT
from tests.system.site import gone

SOUK = str(Path(sys.executable).with_name("souk"))
"""The console script, which installations have."""
STOP_SECONDS = 30
SMALL = ("--workers", "1", "--partitions", "4")


def clean_environment(**variables: str) -> dict[str, str]:
    """Ours without any setting of a Souk, with this checkout's code, and a terminal wide enough for its tables."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SOUK_")}
    code = os.pathsep.join((str(PROJECT), str(PROJECT / "client")))
    return ours | {"COLUMNS": "200", "PYTHONPATH": code} | variables


def put_packages_in_the_way(directory: Path) -> None:
    """Makes packages there, named like ours, that cannot be imported."""
    for name in ("api", "commands", "loadtest", "storage", "workers"):
        package = directory / name
        package.mkdir()
        (package / "__init__.py").write_text("raise AssertionError('this package is not ours')\n")


class Up:
    """A running `souk up`, started in `directory`; whatever happens, nothing of it outlives the context."""

    def __init__(
        self, data_dir: Path, *options: str, command: str = "up", port: int = 0, directory: Path = PROJECT
    ) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [SOUK, command, "--data-dir", str(data_dir), "--port", str(port), *options],
                cwd=directory,
                env=clean_environment(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.children: list[psutil.Process] = []
        self.url = ""

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line.startswith("ready: http://"), (line, self.log.read_text())
        self.url = line.removeprefix("ready: ")
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGTERM)
        for child in self.children:
            if child.is_running():
                child.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def end(self, number: signal.Signals) -> int:
        """Send the signal and return the exit status."""
        self.children += psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def left_nothing_running(self, seconds: float = 0.0) -> bool:
        return gone(self.children, seconds)

    @property
    def key(self) -> str:
        return (self.data_dir / "operator.key").read_text().strip()

    def souk(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return souk(*arguments, "--data-dir", str(self.data_dir))

    def post(self, path: str, body: Mapping[str, Any], **headers: str) -> dict[str, Any]:
        return self._ask(path, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})

    def get(self, path: str) -> dict[str, Any]:
        return self._ask(path, None, {})

    def _ask(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
        request = Request(self.url + path, body, {"Authorization": f"Bearer {self.key}", **headers})  # noqa: S310 - ours
        with urlopen(request, timeout=60) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
            return answer


def souk(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SOUK, *arguments],
        cwd=PROJECT,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
