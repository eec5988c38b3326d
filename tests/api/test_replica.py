"""Reads from a streaming replica; and receipts, which are never behind."""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest
from pydantic import SecretStr

from storage.embedded.child import environment
from storage.embedded.servers import POSTGRES_SETTINGS, EmbeddedPostgres, EmbeddedRedis, _postgres_binaries
from storage.settings import load_settings
from tests.api.api import Api, running
from tests.deadline import eventually
from tests.installation import database_url, prepare
from tests.market import receive, register, set_price

OWNER, ITEM = 1, 17
AWAY_SECONDS = 10


class Pair(NamedTuple):
    api: Api
    replica: EmbeddedPostgres

    async def tell_replica(self, statement: str) -> None:
        connection = await asyncpg.connect(self.replica.url)
        await connection.execute(statement)
        await connection.close()

    async def state(self) -> str:
        """The item's, as a read tells it."""
        response = await self.api.operator.get(f"/v1/nfts/{ITEM}")
        return str(response.json()["state"]) if response.status_code == 200 else str(response.status_code)

    async def shows(self, state: str) -> None:
        async def shown() -> bool:
            return await self.state() == state

        await eventually(shown, AWAY_SECONDS, f"the item is never shown {state}")

    async def offer_for_sale(self) -> None:
        [*_, receipt] = await self.api.settle([register(OWNER), receive(ITEM, OWNER), set_price(OWNER, ITEM)])
        assert receipt["status"] == "succeeded", "a receipt is of the primary"


def copy_of(primary: EmbeddedPostgres, data_dir: Path) -> EmbeddedPostgres:
    """A streaming replica, not started yet."""
    replica = EmbeddedPostgres(data_dir)
    replica.directory.mkdir(mode=0o700, parents=True)
    os.chown(replica.directory, *primary.account)
    subprocess.run(
        [
            *(_postgres_binaries(primary.account) / "pg_basebackup", "-D", "/proc/self/cwd", "-R", "-c", "fast"),
            *("-h", primary.sockets, "-p", POSTGRES_SETTINGS["port"], "-U", "postgres"),
        ],
        cwd=replica.directory,
        env=environment(),
        user=primary.account.uid,
        group=primary.account.gid,
        extra_groups=[],
        check=True,
    )
    return replica


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    with EmbeddedPostgres(tmp_path / "primary") as primary, copy_of(primary, tmp_path / "replica") as replica:
        yield primary, replica


@pytest.fixture
async def pair(servers: tuple[EmbeddedPostgres, EmbeddedPostgres], redis_server: EmbeddedRedis) -> AsyncIterator[Pair]:
    primary, replica = servers
    settings = load_settings(
        database_url=SecretStr(database_url(primary, "souk")),
        read_database_url=SecretStr(database_url(replica, "souk")),
        redis_url=SecretStr(f"{redis_server.url}?db=14"),
        partitions=4,
    )
    await prepare(settings)
    async with running(settings) as api:
        yield Pair(api, replica)


async def test_reads_are_the_replicas_and_receipts_the_primarys(pair: Pair) -> None:
    await pair.shows("404")
    await pair.tell_replica("SELECT pg_wal_replay_pause()")
    await pair.offer_for_sale()
    assert await pair.state() == "404", "the replica cannot know it yet"
    listed = (await pair.api.operator.get("/v1/commands")).json()["items"]
    assert {receipt["status"] for receipt in listed} == {"succeeded"}
    await pair.tell_replica("SELECT pg_wal_replay_resume()")
    await pair.shows("listed")


async def test_without_its_replica_the_primary_answers_and_with_it_the_replica_again(pair: Pair) -> None:
    await pair.offer_for_sale()
    await pair.shows("listed")
    before = await pair.api.operator.get(f"/v1/nfts/{ITEM}")
    pair.replica.kill()
    began = time.monotonic()
    assert await asyncio.gather(*(pair.state() for _ in range(10))) == ["listed"] * 10
    assert time.monotonic() - began < 5

    pair.replica.start()
    await pair.tell_replica("SELECT pg_wal_replay_pause()")
    [repriced] = await pair.api.settle([set_price(OWNER, ITEM, 7_000_000_000)])
    assert repriced["status"] == "succeeded"

    async def behind() -> bool:
        now = await pair.api.operator.get(f"/v1/nfts/{ITEM}")
        return bool(now.json() == before.json())

    await eventually(behind, AWAY_SECONDS, "the replica is never asked again")
    await pair.tell_replica("SELECT pg_wal_replay_resume()")
