"""A whole Souk on one machine: embedded servers where none are given, API and worker processes, watched over."""

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from storage.embedded import EmbeddedPostgres, EmbeddedRedis

READY_SECONDS = 60
STOP_SECONDS = 30
_RESTART_SECONDS = 1.0


class StackError(Exception):
    """The stack could not be started; the text says which part and why."""


class Servers(NamedTuple):
    """Where PostgreSQL and Redis are."""

    database_url: str
    redis_url: str

    def as_environment(self) -> dict[str, str]:
        return {"SOUK_DATABASE_URL": self.database_url, "SOUK_REDIS_URL": self.redis_url}


@contextmanager
def servers(data_dir: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Servers]:
    """The servers that the environment gives, and embedded ones for those it does not."""
    with ExitStack() as started:
        database_url = environment.get("SOUK_DATABASE_URL")
        redis_url = environment.get("SOUK_REDIS_URL")
        if not database_url:
            database_url = started.enter_context(EmbeddedPostgres(data_dir)).url
        if not redis_url:
            redis_url = started.enter_context(EmbeddedRedis(data_dir)).url
        yield Servers(database_url, redis_url)


def running(data_dir: Path) -> dict[str, str]:
    """The settings that lead to the stack running in the data directory; empty when there is none."""
    try:
        settings: dict[str, str] = json.loads((data_dir / "stack.json").read_text())
    except FileNotFoundError:
        return {}
    return settings


def free_port(host: str, wanted: int = 0) -> int:
    """The port if nobody listens there, for 0 any; else whoever does would be taken for our API. Raises StackError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError as error:
            message = f"port {wanted} of {host} cannot be used ({error.strerror}): choose another --port, or 0 for any"
            raise StackError(message) from None
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """The API and the workers, as child processes; one that ends by itself is started again."""

    def __init__(self, data_dir: Path, found: Servers, host: str, port: int, workers: int) -> None:
        self.url = f"http://{host}:{port}"
        self._data_dir = data_dir
        self._environment = os.environ | found.as_environment()
        if not self._environment.get("SOUK_SECRET_KEY"):
            self._environment["SOUK_SECRET_KEY"] = secret_key(data_dir)
        self._settings = found.as_environment() | {"SOUK_URL": self.url}
        self._commands = [["api", "--host", host, "--port", str(port)], *(["worker"] for _ in range(workers))]
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def __enter__(self) -> Self:
        self._children = [self._start(command) for command in self._commands]
        try:
            self._await_ready()
        except BaseException:
            self.__exit__()
            raise
        write_private(self._data_dir / "stack.json", json.dumps(self._settings))
        return self

    def __exit__(self, *_: object) -> None:
        """Drain: the API first, so that what it accepts last can still be executed."""
        (self._data_dir / "stack.json").unlink(missing_ok=True)
        for children in (self._children[:1], self._children[1:]):
            for child in children:
                child.send_signal(signal.SIGTERM)
            for child in children:
                try:
                    child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def watch(self) -> None:
        """Keep the processes running until interrupted."""
        while True:
            time.sleep(_RESTART_SECONDS)
            for number, child in enumerate(self._children):
                if child.poll() is not None:
                    command = self._commands[number]
                    sys.stderr.write(f"souk {command[0]} ended with status {child.returncode} and is started again\n")
                    self._children[number] = self._start(command)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        # It drains when we die; and in a session of its own, a Ctrl-C at the terminal reaches us alone.
        launch = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))]
        facts = [str(int(fact)) for fact in (os.getpid(), os.geteuid(), os.getegid(), signal.SIGTERM)]
        return subprocess.Popen(
            [*launch, *facts, sys.executable, "-m", "souk", *command], env=self._environment, start_new_session=True
        )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for number, child in enumerate(self._children):
                if child.poll() is not None:
                    message = f"souk {self._commands[number][0]} did not start, see above"
                    raise StackError(message)
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=1):  # noqa: S310 - our own address
                    return
            except OSError:
                time.sleep(0.02)
        message = f"the API did not become ready within {READY_SECONDS} s"
        raise StackError(message)


def operator_key_file(data_dir: Path) -> Path:
    return data_dir / "operator.key"


def secret_key(data_dir: Path) -> str:
    """What secrets of this data directory are stored under; made at first."""
    path = data_dir / "secret.key"
    if not path.exists():
        write_private(path, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode() + "\n")
    return path.read_text().strip()


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read, complete or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    temporary.rename(path)
