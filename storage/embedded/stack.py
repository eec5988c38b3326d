"""A whole Souk on one machine: embedded servers where none are given, API and worker processes, all of them kept.

We are the parent of every one, and each has a keeper (keeper.py) from when it works until we end it.
"""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from storage.embedded.child import spawn
from storage.embedded.keeper import Keeper
from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis

T = TypeVar("T")

READY_SECONDS = 60
STOP_SECONDS = 30
_SOUK = str(Path(__file__).parents[2] / "souk.py")
"""Run by its path, not with `-m`, so that a process runs the code that started it, whatever folders called `api` or
`storage` there are in the current directory."""
_NOTICE_SECONDS = 0.1
"""Who loses a server may hear of its end a little before its keeper does."""


class StackError(Exception):
    """The stack could not be started; the text says which part and why."""


class Servers(NamedTuple):
    """Where PostgreSQL and Redis are, and who keeps those that are embedded."""

    database_url: str
    redis_url: str
    keepers: tuple[Keeper, ...] = ()

    def as_environment(self) -> dict[str, str]:
        return {"SOUK_DATABASE_URL": self.database_url, "SOUK_REDIS_URL": self.redis_url}

    def outlast(self, work: Callable[[], T]) -> T:
        """What the work returns; it is done again when it fails and an embedded server has ended meanwhile."""
        while True:
            before = self._ends()
            try:
                return work()
            except Exception:
                time.sleep(_NOTICE_SECONDS)
                if self._ends() == before:
                    raise

    def _ends(self) -> int:
        """How often an embedded server has ended so far, as soon as all of them work."""
        for keeper in self.keepers:
            keeper.works.wait()
        return sum(keeper.ends for keeper in self.keepers)


@contextmanager
def servers(data_dir: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Servers]:
    """The servers that the environment gives, and embedded ones, kept, for those it does not."""
    with ExitStack() as started:
        keepers = []
        database_url = environment.get("SOUK_DATABASE_URL")
        redis_url = environment.get("SOUK_REDIS_URL")
        if not database_url:
            postgres = started.enter_context(EmbeddedPostgres(data_dir))
            keepers.append(started.enter_context(Keeper(postgres)))
            database_url = postgres.url
        if not redis_url:
            redis = started.enter_context(EmbeddedRedis(data_dir))
            keepers.append(started.enter_context(Keeper(redis)))
            redis_url = redis.url
        yield Servers(database_url, redis_url, tuple(keepers))


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


class Process:
    """An API or a worker process. It drains when we die; a Ctrl-C at the terminal reaches us alone."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.title = f"souk {arguments[0]}"
        self._command = [sys.executable, _SOUK, *arguments]
        self._environment = environment
        self.start()

    def start(self) -> None:
        self.process, self.ended = spawn(self._command, signal.SIGTERM, env=self._environment)

    def start_again(self, given_up: Callable[[], bool]) -> None:
        """Return at once: who asks for its work waits until it is up."""
        self.start()

    def why(self) -> str:
        return "see above"


class Processes:
    """The API and the workers, as child processes, kept from when all are ready."""

    def __init__(self, data_dir: Path, found: Servers, host: str, port: int, workers: int) -> None:
        self.url = f"http://{host}:{port}"
        self._data_dir = data_dir
        self._found = found
        self._environment = os.environ | found.as_environment()
        if not self._environment.get("SOUK_SECRET_KEY"):
            self._environment["SOUK_SECRET_KEY"] = secret_key(data_dir)
        self._settings = found.as_environment() | {"SOUK_URL": self.url}
        self._commands = [["api", "--host", host, "--port", str(port)], *(["worker"] for _ in range(workers))]
        self._children: list[Process] = []
        self._keepers = ExitStack()

    def __enter__(self) -> Self:
        self._found.outlast(self._start)
        for child in self._children:
            self._keepers.enter_context(Keeper(child))
        write_private(self._data_dir / "stack.json", json.dumps(self._settings))
        return self

    def __exit__(self, *_: object) -> None:
        (self._data_dir / "stack.json").unlink(missing_ok=True)
        self._keepers.close()
        self._drain()

    def _start(self) -> None:
        self._children.clear()
        try:
            for command in self._commands:
                self._children.append(Process(command, self._environment))
            self._await_ready()
        except BaseException:
            self._drain()
            raise

    def _drain(self) -> None:
        """The API first, so that what it accepts last can still be executed."""
        for children in (self._children[:1], self._children[1:]):
            for child in children:
                child.process.send_signal(signal.SIGTERM)
            for child in children:
                try:
                    child.process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for child in self._children:
                if child.ended.done():
                    message = f"{child.title} did not start, see above"
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
