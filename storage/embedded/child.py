"""An embedded server as a child process: started, stopped, killed, and cleaned up after.

It dies with us, however we die: on Linux by the parent-death signal (launch.py). Where a system has none, or the server
hung, the next start on the directory ends what was left. A lock file keeps two stacks off one directory, from the start
to the stop, also while a server that ended is started again (keeper.py).
"""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import psutil

START_SECONDS = 300  # after a crash, PostgreSQL replays up to max_wal_size first
STOP_SECONDS = 30  # a fast shutdown of PostgreSQL writes a checkpoint
KILL_SECONDS = 5
POLL_SECONDS = 0.02
SOCKET_DIR_BYTES_MAX = 80  # a socket's path ends at 104 bytes on macOS, 108 on Linux; its own name takes up to 20


class EmbeddedError(Exception):
    """An embedded server cannot run; the message says why and what to do."""


class Account(NamedTuple):
    uid: int
    gid: int

    @classmethod
    def current(cls) -> Self:
        return cls(os.geteuid(), os.getegid())


class Server:
    """One server process on one directory. Subclasses say how it is launched and recognised."""

    name: ClassVar[str]
    title: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.directory = self.data_dir / self.name
        self.log = self.data_dir / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.ended: Future[int] = Future()
        self.account = Account.current()
        self._sockets: Path | None = None
        self._lock: int | None = None
        self._log_start = 0
        self._given_up: Callable[[], bool] = lambda: False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        if self.process is None:
            raise EmbeddedError(f"{self.title} in {self.data_dir} is not running: call start() first.")
        return self.process.pid

    @property
    def sockets(self) -> Path:
        """The directory of its sockets: near the data, or in /tmp when that is too long or closed to the account."""
        near = self.data_dir / "run"
        if self.account == Account.current() and len(os.fsencode(near)) <= SOCKET_DIR_BYTES_MAX:
            return near
        digest = sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path("/tmp") / f"souk-{self.account.uid}-{digest}"  # noqa: S108 - _make_sockets checks that it is ours

    def start(self) -> None:
        """Return once the server answers, whatever state its last run left behind. Raises EmbeddedError."""
        self.kill()
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(self.data_dir / f"{self.name}.lock", self.data_dir)
            self._end_leftovers(self.stop_signal)
            self.launch()
        except OSError as error:
            self.kill()
            raise EmbeddedError(
                f"{self.title} cannot use {self.data_dir} ({error}): choose another directory."
            ) from None
        except BaseException:
            self.kill()
            raise

    def start_again(self, given_up: Callable[[], bool]) -> None:
        """Start it where it ran, once it has ended, and return when it answers; the directory stays ours meanwhile.

        Raises EmbeddedError, and leaves no process, when that fails or `given_up` comes true.
        """
        self._given_up = given_up
        try:
            self._end_process()
            self._end_leftovers(signal.SIGKILL)  # what it left has nobody to report to any more
            self.launch()
        except OSError as error:
            self._end_process()
            raise EmbeddedError(f"{self.title} cannot use {self.data_dir} ({error}).") from None
        except BaseException:
            self._end_process()
            raise
        finally:
            self._given_up = lambda: False

    def stop(self) -> None:
        """Shut down in good order."""
        if self.process is not None:
            self.process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would, and let go of the directory."""
        if self._lock is None:
            return
        self._end_process()
        with suppress(OSError):  # the other server of this directory still has its socket there
            self.sockets.rmdir()
        os.close(self._lock)
        self._lock = None

    def launch(self) -> None:
        """Spawn the server and wait until it answers."""
        raise NotImplementedError

    def crash(self, process: subprocess.Popen[bytes]) -> None:
        """Do what must precede SIGKILL."""

    def is_ours(self, process: psutil.Process) -> bool:
        """Whether this is a program of our kind; its directory is looked at elsewhere."""
        raise NotImplementedError

    def spawn(self, command: Sequence[str | Path], directory: Path, orphan_signal: signal.Signals) -> None:
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process, self.ended = spawn(
                command,
                orphan_signal,
                self.account,
                cwd=directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_until(self, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if self.process is None or self.process.poll() is not None:
                raise EmbeddedError(f"{self.title} did not start: {self.why()}.")
            if self._given_up():
                raise EmbeddedError(f"{self.title} is not waited for any more.")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.title} did not answer within {START_SECONDS} s: see {self.log}.")
            time.sleep(POLL_SECONDS)

    def why(self) -> str:
        return f"{self.last_words()} (all of it is in {self.log})"

    def last_words(self) -> str:
        """What the log of this run says of its end."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").strip().splitlines()
        fatal = [line for line in lines if "FATAL" in line or "rror" in line]
        return (fatal or lines or ["it said nothing"])[-1].strip().rstrip(".")

    def make_sockets(self) -> None:
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        found = self.sockets.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (self.account.uid, os.geteuid()):
            raise EmbeddedError(f"{self.sockets} belongs to somebody else: remove it.")
        self.sockets.chmod(0o700)
        os.chown(self.sockets, *self.account)

    def _end_process(self) -> None:
        if self.process is not None:
            self.crash(self.process)
            self.process.kill()
            self.process.wait()
            self.process = None

    def _leftovers(self) -> Iterator[psutil.Process]:
        """Servers that an earlier stack left in this directory. Their working directory tells; pid files grow stale."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if self.is_ours(process) and Path(process.cwd()) == self.directory:
                    yield process

    def _end_leftovers(self, first: signal.Signals) -> None:
        found = list(self._leftovers())
        pids = {process.pid for process in found}
        for process in found:
            with suppress(psutil.NoSuchProcess):
                if process.ppid() not in pids:  # its children follow it
                    process.send_signal(first)
        _, alive = psutil.wait_procs(found, timeout=STOP_SECONDS)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(alive, timeout=KILL_SECONDS)
        if alive:
            raise EmbeddedError(f"An earlier {self.title} in {self.data_dir} does not end: pid {alive[0].pid}.")


def environment() -> dict[str, str]:
    """Ours without PGPORT, PGOPTIONS and the like, which PostgreSQL's programs obey."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _lock(path: Path, data_dir: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EmbeddedError(f"Another stack is using {data_dir}: stop it, or choose another directory.") from None
    return descriptor


def spawn(
    command: Sequence[str | Path], orphan_signal: signal.Signals, account: Account | None = None, **options: Any
) -> tuple[subprocess.Popen[bytes], Future[int]]:
    """Start a child that gets `orphan_signal` when we die, and no Ctrl-C from our terminal; the options are Popen's.

    Returns it, and what becomes its exit status as soon as it has ended. The kernel sends that signal when the *thread*
    that started the child ends, so a thread stays with each.
    """
    launch = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))]
    facts = [str(int(fact)) for fact in (os.getpid(), *(account or Account.current()), orphan_signal)]
    started: Future[subprocess.Popen[bytes]] = Future()
    ended: Future[int] = Future()

    def stay() -> None:
        try:
            process = subprocess.Popen([*launch, *facts, *command], start_new_session=True, **options)
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            started.set_exception(error)
            return
        started.set_result(process)
        ended.set_result(process.wait())

    threading.Thread(target=stay, name=f"stays with {Path(command[0]).name}", daemon=True).start()
    return started.result(), ended
