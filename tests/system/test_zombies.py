"""Workers that are not dead but late: they write nothing that is not theirs."""

import asyncio
import signal

import psutil
import pytest

from tests.deadline import eventually
from tests.installation import connected
from tests.market import set_price
from tests.system.conftest import LEASE_SECONDS
from tests.system.site import Site, Trades, end, until_waiting

ALL_SECONDS = 60
FEES = -1


async def until_shared(site: Site, workers: int) -> None:
    async def shared() -> bool:
        owners = await site.owners()
        return (
            None not in owners
            and len(owners) == workers
            and set(owners.values()) == {site.settings.partitions // workers}
        )

    await eventually(shared, 20 * LEASE_SECONDS, f"{workers} workers never share the work")


async def is_at_work(site: Site) -> None:
    """Whoever is left executes what comes."""
    receipts = await site.submit([set_price(404, number) for number in range(1, 51)], wait=30)
    assert {receipt["status"] for receipt in receipts} == {"rejected"}


@pytest.mark.parametrize("how", ["stopped", "blocked"])
async def test_a_worker_that_dozes_before_its_commit_writes_nothing_and_comes_back(site: Site, how: str) -> None:
    """Everything of the batch is written but the COMMIT, and the lease runs out: the server ends the transaction."""
    dozer = site.start(how, str(4 * LEASE_SECONDS), program="tests.system.dozing")
    await site.start_api()
    await until_shared(site, 1)
    [dozers_name] = await site.owners()
    other = site.start_worker()
    await until_shared(site, 2)
    trades = Trades(rounds=12)
    sending = asyncio.create_task(send_all(trades, site))

    async def taken_over() -> bool:
        return "dozing" in site.log() and dozers_name not in await site.owners()

    await eventually(taken_over, ALL_SECONDS, "a dozer keeps its partitions")
    dozer.send_signal(signal.SIGCONT)
    await until_shared(site, 2)
    await sending
    await eventually(site.all_are_finished, ALL_SECONDS)
    await trades.assert_each_happened_once_in_order(site)
    assert end(other, signal.SIGTERM) == 0
    await is_at_work(site)
    assert dozer.poll() is None


async def send_all(trades: Trades, site: Site) -> None:
    await trades.prepare(site)
    await trades.send(site)


async def test_a_worker_stopped_while_the_server_commits_for_it_doubles_nothing(site: Site) -> None:
    """Its COMMIT is on its way and waits behind a foreign lock; it is carried out while the worker does not look."""
    sleeper = site.start_worker()
    await site.start_api()
    trades = Trades(rounds=12)
    await trades.prepare(site)
    sending = asyncio.create_task(trades.send(site))
    async with connected(site.settings) as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE", FEES)
        await until_waiting(site)
        sleeper.send_signal(signal.SIGSTOP)
    assert psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED
    site.start_worker()
    await sending
    await eventually(site.all_are_finished, ALL_SECONDS, "a sleeper's partitions stand still")
    sleeper.send_signal(signal.SIGCONT)
    await until_shared(site, 2)
    await trades.assert_each_happened_once_in_order(site)
    assert sleeper.poll() is None
