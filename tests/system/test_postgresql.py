"""PostgreSQL in trouble under load: it costs time, and nothing else.

That it is killed or restarted is tested in test_faults.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedPostgres, EmbeddedRedis
from storage.settings import load_settings
from tests.deadline import eventually
from tests.installation import connected, database_url, prepare
from tests.market import register
from tests.system.conftest import BATCH_MAX, LEASE_SECONDS
from tests.system.site import Site, Trades, site_of, until_waiting

ALL_SECONDS = 60
WEATHER = "40001 40P01 53100 53200 55P03 57014 58030"
TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def at_work(site: Site, workers: int = 1) -> None:
    for _ in range(workers):
        site.start_worker()
    await site.start_api()


async def trade_through(site: Site, trouble: Callable[[Trades], Awaitable[None]], rounds: int = 12) -> None:
    """A load with trouble in the middle: each command happens once, in order, and no process ends of it."""
    trades = Trades(rounds=rounds)
    await trades.prepare(site)
    sending = asyncio.create_task(trades.send(site))
    await trouble(trades)
    await sending
    await eventually(site.all_are_finished, ALL_SECONDS)
    await trades.assert_each_happened_once_in_order(site)
    assert [process.poll() for process in site.processes] == [None] * len(site.processes)


async def assert_unavailable(site: Site, command: dict[str, object]) -> None:
    """It is not accepted, and the client is told to come again; the batch too."""
    for path, body in (("/v1/commands", command), ("/v1/commands/batch", {"commands": [command] * 3})):
        answer = await site.client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
        assert int(answer.headers["retry-after"]) >= 1


async def accepted_again(site: Site, command: dict[str, object]) -> None:
    async def accepted() -> bool:
        return (await site.client.post("/v1/commands", json=command)).status_code == httpx.codes.ACCEPTED

    await eventually(accepted, 15, "it does not recover")


async def test_all_connections_terminated_again_and_again(site: Site) -> None:
    await at_work(site, workers=2)

    async def terminate(trades: Trades) -> None:
        async with connected(site.settings) as connection:
            ended = 0
            for _ in range(15):
                ended += await connection.fetchval(TERMINATE)
                await asyncio.sleep(0.2)  # the pause between two blows
            assert ended > 30

    await trade_through(site, terminate)


async def test_deadlocks_cost_the_batch_a_repeat(site: Site) -> None:
    """A foreign transaction takes an account before an item; a batch takes items first. The batch is the victim."""
    await at_work(site)

    async def cross(trades: Trades) -> None:
        item = trades.items[0]
        for _ in range(20):
            with suppress(asyncpg.DeadlockDetectedError):
                async with connected(site.settings) as connection, connection.transaction():
                    await connection.execute("SET LOCAL deadlock_timeout = '5s'")
                    await connection.execute("SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE", trades.parties(item)[0])
                    await until_waiting(site)
                    await connection.execute("SELECT 1 FROM nfts WHERE id = $1 FOR UPDATE", item)
            if "DeadlockDetectedError" in site.log():
                return

    await trade_through(site, cross, rounds=20)
    assert "DeadlockDetectedError" in site.log()


async def test_serialization_failures_cost_the_batch_a_repeat(site: Site) -> None:
    """A database that is serializable by default, and two workers whose users trade with one another."""
    await site.rows(f"ALTER DATABASE {await name(site)} SET default_transaction_isolation = serializable")
    await at_work(site, workers=2)

    async def touch(trades: Trades) -> None:
        async with connected(site.settings) as connection:
            for _ in range(20):
                async with connection.transaction(isolation="read_committed"):
                    await connection.execute("UPDATE accounts SET available_nano = available_nano WHERE id > 0")
                    await asyncio.sleep(0.05)  # others read what it is about to change

    await trade_through(site, touch, rounds=6)
    assert "SerializationError" in site.log()


async def test_errors_of_the_server_at_any_write_and_at_commit_cost_a_repeat(site: Site) -> None:
    """Full disks, failing ones, no memory, locks not had, statements cancelled: now at the write, now at the COMMIT."""
    await at_work(site)
    await site.rows(f"""
        CREATE FUNCTION sometimes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF random() < 0.3 THEN
                RAISE 'the weather' USING ERRCODE = (string_to_array('{WEATHER}', ' '))[1 + floor(random() * 7)];
            END IF;
            RETURN NULL;
        END $$
    """)

    async def weather(trades: Trades) -> None:
        await site.rows("CREATE TRIGGER a AFTER INSERT ON commands FOR EACH STATEMENT EXECUTE FUNCTION sometimes()")
        await site.rows("CREATE TRIGGER b AFTER UPDATE ON nfts FOR EACH STATEMENT EXECUTE FUNCTION sometimes()")
        await site.rows(
            "CREATE CONSTRAINT TRIGGER c AFTER UPDATE ON partitions"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sometimes()"
        )
        await site.rows(
            "CREATE CONSTRAINT TRIGGER d AFTER UPDATE ON accounts"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.id = -1) EXECUTE FUNCTION sometimes()"
        )

    await trade_through(site, weather, rounds=3)
    assert "the weather" in site.log()


async def test_a_read_only_database_accepts_nothing_and_does_nothing_by_halves(site: Site) -> None:
    await at_work(site)
    receipts = await site.submit([register(1)], wait=30)
    database = await name(site)
    async with connected(site.settings) as connection:
        await connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        await connection.execute(TERMINATE)
        before = await connection.fetchval("SELECT md5(string_agg(c::text, '' ORDER BY seq)) FROM commands c")
        for _ in range(3):
            await assert_unavailable(site, register(2))
        read = await site.client.get(f"/v1/commands/{receipts[0]['id']}")
        assert read.json()["status"] == "succeeded", "reads go on"
        assert before == await connection.fetchval("SELECT md5(string_agg(c::text, '' ORDER BY seq)) FROM commands c")
        await connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    # Nobody ends the connections that are read-only for good: they are made anew by those who meet them.
    await accepted_again(site, register(3))
    await eventually(site.all_are_finished, 15)
    assert [process.poll() for process in site.processes] == [None, None]


async def test_a_long_foreign_transaction_holds_nobody_up(site: Site) -> None:
    """A report that reads everything under one snapshot, and has locked what it read against being dropped."""
    await at_work(site)
    async with connected(site.settings) as connection, connection.transaction(isolation="repeatable_read"):
        for table in ("commands", "accounts", "nfts", "postings", "events", "partitions"):
            await connection.fetchval(f"SELECT count(*) FROM {table}")

        async def nothing_else(trades: Trades) -> None: ...

        await trade_through(site, nothing_else)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A directory on a file system of 48 MB, where one may be made."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    mount = shutil.which("mount")
    if (
        os.geteuid() != 0
        or mount is None
        or subprocess.call([mount, "-t", "tmpfs", "-o", "size=48m", "tmpfs", directory])
    ):
        directory.rmdir()
        pytest.skip("no file system can be mounted here")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)
    directory.rmdir()


async def test_a_full_disk_accepts_nothing_and_loses_nothing(
    small_disk: Path, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    with EmbeddedPostgres(tmp_path) as postgres:
        space = small_disk / "space"
        space.mkdir(mode=0o700)
        os.chown(space, *postgres.account)
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        await connection.execute("CREATE DATABASE market TABLESPACE small")
        await connection.close()
        settings = load_settings(
            database_url=SecretStr(database_url(postgres, "market")),
            redis_url=SecretStr(f"{redis_server.url}?db=13"),
            partitions=8,
            lease_seconds=LEASE_SECONDS,
            batch_max=BATCH_MAX,
        )
        await prepare(settings)
        async with site_of(settings, tmp_path / "logs") as site:
            await at_work(site)
            ballast = small_disk / "ballast"

            async def fill() -> None:
                await asyncio.to_thread(_fill, ballast)

                async def full() -> bool:
                    answer = await site.client.post("/v1/commands/batch", json={"commands": [register(7)] * 1_000})
                    return answer.status_code == httpx.codes.SERVICE_UNAVAILABLE

                await eventually(full, ALL_SECONDS)
                ballast.unlink()

            trades = Trades(rounds=6)
            await trades.prepare(site)
            sending = asyncio.create_task(trades.send(site))
            await fill()
            await sending
            await eventually(site.all_are_finished, ALL_SECONDS)
            assert await site.value("SELECT count(*) FROM deals") == trades.commands_total // 2
            assert [process.poll() for process in site.processes] == [None, None]


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            return


async def name(site: Site) -> str:
    return str(await site.value("SELECT current_database()"))
