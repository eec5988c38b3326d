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


async def test_workers_share_the_partitions_evenly_and_hand_them_back_at_once(calm: Site) -> None:
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
    assert time.monotonic() - left < LEASE_SECONDS, "it does not stop within seconds"
    gone = time.monotonic()
    await until_shared(calm, 4, 4)
    assert time.monotonic() - gone < LEASE_SECONDS - TICK_SECONDS, "the others waited for the lease to run out"

    assert end(second, signal.SIGINT) == 0
    await until_shared(calm, 8)
    await sending
    await eventually(calm.all_are_finished, 60)
    await trades.assert_each_happened_once_in_order(calm)
    assert end(third, signal.SIGTERM) == 0
    assert await calm.owners() == {None: 8}


async def test_a_killed_workers_partitions_go_to_the_others_when_its_lease_runs_out(site: Site) -> None:
    first, _ = site.start_worker(), site.start_worker()
    await site.start_api()
    await until_shared(site, 4, 4)
    end(first, signal.SIGKILL)
    await site.succeed([register(number) for number in range(1, 101)])
    await until_shared(site, 8)


async def test_a_worker_that_ends_in_a_burst_leaves_nothing_waiting(site: Site) -> None:
    await site.start_api()
    await site.submit([register(number) for number in range(1, 501)])
    assert site.start("worker", "--burst").wait(60) == 0
    assert await site.all_are_finished()
    assert await site.owners() == {None: 8}
