"""Not before and not after: by the database's clock, as it stands when a command's turn has come."""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from storage.journal.accept import Journal
from storage.journal.entry import Entry
from storage.journal.receipts import Receipt
from storage.postgres.connection import Connection, connect
from storage.settings import Settings
from tests.deadline import eventually
from tests.installation import connected
from tests.journal import accept, statuses, submission
from tests.market import TON, fund, register
from tests.workers.test_lanes import ALL, drain, proved
from workers.batch import run_batch
from workers.services.timers import Timers

USER = 1
SOON = timedelta(seconds=0.5)


async def sent(journal: Journal, *submissions: Entry) -> list[Receipt]:
    receipts = [receipt for receipt in await journal.accept(submissions) if isinstance(receipt, Receipt)]
    assert len(receipts) == len(submissions)
    return receipts


async def clock(lane: Connection) -> datetime:
    now: datetime = await lane.fetchval("SELECT clock_timestamp()")
    return now


async def until(lane: Connection, moment: datetime) -> None:
    async def is_past() -> bool:
        return await clock(lane) > moment

    await eventually(is_past)


async def test_what_nobody_took_in_time_is_expired_by_the_next_who_does(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    """The partitions had no owner; until one comes the command is as it was, and it is never executed late."""
    end = await clock(lane) + SOON
    late, timely = await sent(
        journal,
        submission(settings, register(1), not_after=end),
        submission(settings, register(2), not_after=end + timedelta(hours=1)),
    )
    await until(lane, end)
    assert await statuses(journal, [late, timely]) == ["accepted", "accepted"]
    await drain(lane, settings)
    assert await statuses(journal, [late, timely]) == ["expired", "succeeded"]
    assert [row["id"] for row in await lane.fetch("SELECT id FROM users WHERE id > 0")] == [2]
    assert await lane.fetchval("SELECT count(*) FROM events WHERE command_id = $1", late.id) == 0
    await proved(settings)


async def test_what_began_in_time_is_not_expired_however_long_it_takes(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    await accept(journal, settings, register(USER))
    await drain(lane, settings)
    worker = await connect(settings, "slow", timeout_seconds=20, pinned_plans=True)
    end = await clock(lane) + timedelta(seconds=3)
    [slow] = await sent(journal, submission(settings, fund(USER, TON), not_after=end))
    async with connected(settings) as keeper:
        async with keeper.transaction():
            await keeper.execute("SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE", USER)
            batch = asyncio.create_task(run_batch(worker, settings, ALL, 100))
            await until(lane, end)
        await batch
    await worker.close()
    assert await statuses(journal, [slow]) == ["succeeded"]
    assert await lane.fetchval("SELECT finished_at <= not_after FROM commands WHERE id = $1", slow.id)
    await proved(settings)


async def test_what_is_promoted_too_late_expires(journal: Journal, lane: Connection, settings: Settings) -> None:
    """No worker looked at the timers between its start and its end."""
    start = await clock(lane) + SOON
    receipts = await sent(
        journal,
        submission(settings, register(1), run_at=start, not_after=start + SOON),
        submission(settings, register(2), run_at=start, not_after=start + timedelta(hours=1)),
        submission(settings, register(3), run_at=start + timedelta(hours=1), not_after=start + timedelta(hours=2)),
    )
    await drain(lane, settings)
    assert await statuses(journal, receipts) == ["scheduled"] * 3
    await until(lane, start + SOON)
    promoted = asyncio.Event()
    timers = asyncio.create_task(Timers(settings, lambda due: promoted.set() if due else None).run())
    async with asyncio.timeout(20):
        await promoted.wait()
    timers.cancel()
    await drain(lane, settings)
    assert await statuses(journal, receipts) == ["expired", "succeeded", "scheduled"]
    assert await lane.fetchval("SELECT count(*) FROM users WHERE id IN (1, 3)") == 0
    await proved(settings)


async def test_a_cancelled_command_is_not_promoted(journal: Journal, lane: Connection, settings: Settings) -> None:
    """Whoever has the row first decides: a promotion waits for what is being cancelled, and then leaves it out."""
    start = await clock(lane) + SOON
    cancelled, other = await sent(
        journal, *(submission(settings, register(user_id), run_at=start) for user_id in (1, 2))
    )
    accepted: set[UUID] = set()
    promoted = asyncio.Event()

    def hear(due: Collection[tuple[int, UUID]]) -> None:
        accepted.update(id_ for _, id_ in due)
        if accepted:
            promoted.set()

    async with connected(settings) as canceller, canceller.transaction():
        await canceller.execute(
            "UPDATE commands SET status = 'cancelled', finished_at = now() WHERE id = $1", cancelled.id
        )
        timers = asyncio.create_task(Timers(settings, hear).run())

        async def promotion_waits() -> bool:
            return bool(
                await lane.fetchval(
                    "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'souk timers'"
                    " AND datname = current_database() AND wait_event_type = 'Lock'"
                )
            )

        await eventually(promotion_waits)
        assert not accepted
    async with asyncio.timeout(20):
        await promoted.wait()
    timers.cancel()
    assert accepted == {other.id}
    assert await statuses(journal, [cancelled, other]) == ["cancelled", "accepted"]
