"""PgBouncer in transaction mode: no session is anybody's own, and everything works all the same."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from storage.embedded.servers import POSTGRES_SETTINGS, EmbeddedPostgres
from storage.embedded.stack import free_port
from storage.postgres.connection import connect
from storage.postgres.connection import engine as make_engine
from storage.settings import Settings
from tests.deadline import eventually
from tests.system.site import Site, Trades

SERVER_CONNECTIONS = 6
"""Far fewer than the processes have connections."""
_PREPARED = "SELECT name FROM pg_prepared_statements WHERE name <> ''"
_READ = text("SELECT current_setting('plan_cache_mode'), CAST(:number AS integer)")


async def test_nothing_is_left_in_a_session(settings: Settings) -> None:
    """Settings last for a transaction, and no prepared statement has a name."""
    pooled = settings.model_copy(update={"pgbouncer": True})
    connection = await connect(pooled, "test", timeout_seconds=7, pinned_plans=True)
    names = ("statement_timeout", "enable_seqscan", "plan_cache_mode", "idle_in_transaction_session_timeout")
    shown = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
    assert shown == ["7s", "off", "force_generic_plan", "960ms"]
    tag = await connection.execute("BEGIN; SELECT 1 FROM partitions")
    assert tag == f"SELECT {settings.partitions}"
    row = await connection.fetchrow("SELECT current_setting('enable_hashjoin') AS setting, $1::int AS given", 5)
    assert row is not None
    assert tuple(row) == ("off", 5)
    await connection.execute("COMMIT")
    assert await connection.fetch(_PREPARED) == []
    await connection.close()

    pool = make_engine(pooled)
    async with pool.connect() as reading:
        for number in range(3):
            found = await reading.execute(_READ, {"number": number})
            assert tuple(found.one()) == ("force_custom_plan", number)
        assert (await reading.execute(text(_PREPARED))).all() == []
    await pool.dispose()


@pytest.fixture
def pgbouncer(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[str]:
    """The address (host:port) of one before the session's server."""
    program = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed here")
    directory = tmp_path / "pgbouncer"
    directory.mkdir()
    port = free_port("127.0.0.1")
    (directory / "pgbouncer.ini").write_text(f"""
[databases]
* = host={postgres_server.sockets} port={POSTGRES_SETTINGS["port"]} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
""")
    os.chown(directory, *postgres_server.account)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "pgbouncer.ini"],
            cwd=directory,
            user=postgres_server.account.uid,
            group=postgres_server.account.gid,
            extra_groups=[],
            stdout=log,
            stderr=log,
        )
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()


async def test_it_trades_through_pgbouncer(pgbouncer: str, site: Site) -> None:
    """Two workers and an API share six connections."""

    async def listens() -> bool:
        host, _, port = pgbouncer.partition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return True
        return False

    await eventually(listens)
    direct = site.settings.database_url.get_secret_value()
    database = await site.value("SELECT current_database()")
    through = SecretStr(f"postgresql://souk:any@{pgbouncer}/{database}")
    site.settings = site.settings.model_copy(update={"database_url": through, "pgbouncer": True})
    for _ in range(2):
        site.start_worker()
    await site.start_api()
    trades = Trades(rounds=10)
    await trades.prepare(site)
    reading = asyncio.create_task(read_for(site))
    await trades.send(site)
    await eventually(site.all_are_finished, 60)
    reading.cancel()
    await trades.assert_each_happened_once_in_order(site)
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND backend_type = 'client backend'"
    assert await site.value(sessions) <= SERVER_CONNECTIONS + 3, "of the test's own there are three"
    assert "prepared statement" not in site.log()
    site.settings = site.settings.model_copy(update={"database_url": SecretStr(direct), "pgbouncer": False})


async def read_for(site: Site) -> None:
    while True:
        for path in ("/v1/listings", "/v1/nfts/1", "/v1/commands"):
            answer = await site.client.get(path)
            assert answer.status_code in (200, 404), answer.text
