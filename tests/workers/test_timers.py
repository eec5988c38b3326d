"""Timers: what is overdue is accepted in the order of its times, however much there is and whoever promotes it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage.journal.accept import Journal
from storage.journal.promote import PROMOTE
from storage.postgres.connection import Connection, connect
from storage.settings import Settings
from storage.tasks import end
from tests.deadline import eventually
from tests.journal import accept, submission
from tests.market import TON, receive, register, set_price
from workers.batch import run_batch
from workers.services.timers import Timers

OVERDUE = 5_000
AT_ONCE = 20
"""Commands that are due at the same moment."""
PROMOTERS = 4
ITEMS = range(1, 51)


async def schedule(lane: Connection, count: int) -> None:
    """Commands that were due an hour ago, in no order on disk; the payload of each tells its place."""
    await lane.execute(
        """
        INSERT INTO commands (id, seq, kind, asset, partition, payload, status, fingerprint, run_at)
        SELECT gen_random_uuid(), place, 'users.register', 'user:1', place % 4, to_json(place), 'scheduled', '',
            statement_timestamp() - interval '1 hour' + make_interval(secs => place / $2::integer)
        FROM generate_series(1, $1::integer) AS place ORDER BY md5(place::text)
        """,
        count,
        AT_ONCE,
    )
    await lane.execute("SELECT setval(pg_get_serial_sequence('commands', 'seq'), $1)", count)


async def accepted(lane: Connection) -> list[int]:
    """The places of what was accepted, in the order of the journal."""
    rows = await lane.fetch("SELECT payload::text::integer FROM commands WHERE status = 'accepted' ORDER BY seq")
    return [row[0] for row in rows]


@pytest.mark.parametrize("pinned_plans", [True, False])
async def test_overdue_commands_are_accepted_in_the_order_of_their_times_whatever_the_plan(
    settings: Settings, lane: Connection, pinned_plans: bool
) -> None:
    await schedule(lane, OVERDUE)
    connection = await connect(settings, "test", timeout_seconds=10, pinned_plans=pinned_plans)
    while await connection.fetch(PROMOTE, 1_000):
        pass
    await connection.close()
    assert await accepted(lane) == list(range(1, OVERDUE + 1))
    times = [row[0] for row in await lane.fetch("SELECT accepted_at FROM commands ORDER BY seq")]
    assert times == sorted(times)


async def test_workers_that_promote_at_the_same_time_accept_in_one_order(settings: Settings, lane: Connection) -> None:
    await schedule(lane, OVERDUE)
    workers = [await connect(settings, "test", timeout_seconds=20, pinned_plans=True) for _ in range(PROMOTERS)]

    async def promote(worker: Connection) -> None:
        while await worker.fetch(PROMOTE, 70):
            pass

    await asyncio.gather(*map(promote, workers))
    for worker in workers:
        await worker.close()
    assert await accepted(lane) == list(range(1, OVERDUE + 1))


async def test_a_worker_does_not_overtake_one_that_has_not_committed(settings: Settings, lane: Connection) -> None:
    """Else its commands could be executed before the earlier ones of the same asset are there to be seen."""
    await schedule(lane, 20)
    slow, quick = [await connect(settings, name, timeout_seconds=20, pinned_plans=True) for name in ("slow", "quick")]
    transaction = slow.transaction()
    await transaction.start()
    assert len(await slow.fetch(PROMOTE, 10)) == 10
    promoting = asyncio.create_task(quick.fetch(PROMOTE, 10))
    process = quick.get_server_pid()

    async def waits() -> bool:
        return bool(
            await lane.fetchval("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", process)
        )

    async def waits_or_is_done() -> bool:
        return promoting.done() or await waits()

    await eventually(waits_or_is_done)
    assert await accepted(lane) == []
    await transaction.commit()
    assert len(await promoting) == 10
    assert await accepted(lane) == list(range(1, 21))
    for connection in (slow, quick):
        await connection.close()


async def test_an_item_whose_price_is_cleared_and_then_set_ends_listed_however_late_it_comes(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    """Cleared at T+30 and set at T+60, on each of fifty items, while workers are away from T+20 to T+90."""
    await accept(journal, settings, register(1), *(receive(item, 1) for item in ITEMS))
    await drain(lane, settings)
    begun = datetime.now(UTC) + timedelta(hours=1)

    def later(seconds: int, body: dict[str, Any]) -> Any:
        return submission(settings, body, run_at=begun + timedelta(seconds=seconds))

    for item in ITEMS:  # who plans may think of the last first
        await journal.accept([later(60, set_price(1, item, 5 * TON)), later(30, set_price(1, item, None))])
    await lane.execute("UPDATE commands SET run_at = run_at - interval '1 day' WHERE status = 'scheduled'")
    promoted = 0

    def count(due: Any) -> None:
        nonlocal promoted
        promoted += len(due)

    services = [asyncio.create_task(Timers(settings, count).run()) for _ in range(2)]

    async def all_are_promoted() -> bool:
        return promoted == 2 * len(ITEMS)

    await eventually(all_are_promoted)
    await end(services)
    await drain(lane, settings)
    assert await lane.fetchval("SELECT count(*) FROM nfts WHERE state = 'listed'") == len(ITEMS)


async def drain(lane: Connection, settings: Settings) -> None:
    while (await run_batch(lane, settings, dict.fromkeys(range(4), 0), 1_000)).finished:
        pass
