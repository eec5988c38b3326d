"""Workers share the partitions evenly, and hand them back when they go."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deadline import eventually
from tests.installation import Installer
from tests.market import register
from tests.system.site import Site, Trades, end, site_of

LEASE_SECONDS = 4.0
TICK_SECONDS = LEASE_SECONDS / 5
SLACK_SECONDS = 0.5
JOIN_SECONDS = 5.0


@pytest.fixture
async def calm(installer: Installer, tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose leases last so long that one handed back can be told from one run out."""
    settings = await installer.install(partitions=8, lease_seconds=LEASE_SECONDS, batch_max=60)
    async with site_of(settings, tmp_path / "logs") as site:
        yield site


async def until_shared(site: Site, *shares: int) -> None:
    async def shared() -> bool:
        owners = await site.owners()
        return None not in owners and sorted(owners.values()) == sorted(shares)

    await eventually(shared, 30, f"the partitions are never shared {shares}")


async def test_workers_come_and_go_and_the_partitions_follow_them(calm: Site) -> None:
    """Even shares for all who live; at once when one leaves, within its lease when one dies; and nothing is lost."""
    first, second = calm.start_worker(), calm.start_worker()
    await calm.start_api()
    await until_shared(calm, 4, 4)
    third = calm.start_worker()
    await until_shared(calm, 3, 3, 2)
    trades = Trades()
    await trades.prepare(calm)
    sending = asyncio.create_task(trades.send(calm))

    left = time.monotonic()
    assert end(first, signal.SIGTERM) == 0
    gone = time.monotonic()
    assert gone - left < LEASE_SECONDS, "it does not stop within seconds"
    await until_shared(calm, 4, 4)
    assert time.monotonic() - gone < LEASE_SECONDS - TICK_SECONDS, "the others waited for the lease to run out"

    end(second, signal.SIGKILL)
    died = time.monotonic()
    await until_shared(calm, 8)
    assert time.monotonic() - died < LEASE_SECONDS + SLACK_SECONDS, "a dead worker's partitions lie idle"
    await sending
    await eventually(calm.all_are_finished, 60)
    await trades.assert_each_happened_once_in_order(calm)

    assert end(third, signal.SIGINT) == 0
    assert await calm.owners() == {None: 8}
    await calm.submit([register(number) for number in range(100, 600)])
    assert calm.start("worker", "--burst").wait(60) == 0
    assert await calm.all_are_finished()
    assert await calm.owners() == {None: 8}


async def test_a_newcomer_gets_its_share_from_a_worker_that_is_never_idle_and_then_nothing_moves(calm: Site) -> None:
    """All partitions are in some batch at any moment; and who has its share keeps it."""
    await calm.rows("""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$
    """)
    await calm.rows("CREATE TRIGGER slow AFTER INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION dawdle()")
    await calm.start_api()
    for start in range(1, 6_001, 1_000):
        await calm.submit([register(number) for number in range(start, start + 1_000)])
    calm.start_worker()
    await until_shared(calm, 8)
    calm.start_worker()

    async def announced() -> bool:
        return bool(await calm.value("SELECT count(*) = 2 FROM workers"))

    await eventually(announced)
    joined = time.monotonic()
    await until_shared(calm, 4, 4)
    assert time.monotonic() - joined < JOIN_SECONDS
    assert not await calm.all_are_finished(), "it was idle"
    fences = await calm.rows("SELECT id, owner, fence FROM partitions ORDER BY id")
    await eventually(calm.all_are_finished, 60)
    assert await calm.rows("SELECT id, owner, fence FROM partitions ORDER BY id") == fences
