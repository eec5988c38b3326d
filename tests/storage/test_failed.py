"""Failed commands are run again in their order, or not at all."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.journal.accept import Journal
from storage.journal.entry import new_id
from storage.journal.receipts import Receipt
from storage.journal.redrive import Refused, failed, redrive
from storage.journal.repartition import repartition
from storage.postgres.connection import Connection, connect, engine
from storage.settings import Settings
from tests.journal import accept, statuses
from tests.market import TON, receive, register, set_price
from workers.batch import run_batch

OWNER, ITEM, OTHER_ITEM = 1, 17, 18


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[AsyncEngine]:
    pool = engine(settings)
    yield pool
    await pool.dispose()


@pytest.fixture
async def broken(journal: Journal, settings: Settings, lane: Connection) -> list[Receipt]:
    """Commands of an item that failed one after another: it is priced at 1 to 30 TON."""
    await accept(journal, settings, register(OWNER), receive(ITEM, OWNER), receive(OTHER_ITEM, OWNER))
    await drain(lane, settings)
    receipts = await accept(journal, settings, *(set_price(OWNER, ITEM, ton * TON) for ton in range(1, 31)))
    await fail(lane, *receipts)
    return receipts


async def fail(lane: Connection, *receipts: Receipt) -> None:
    await lane.execute(
        "UPDATE commands SET status = 'failed', error = 'a bug', finished_at = clock_timestamp() WHERE id = ANY($1)",
        [receipt.id for receipt in receipts],
    )


async def drain(lane: Connection, settings: Settings, batch_max: int = 1_000) -> None:
    fences = {row["id"]: row["fence"] for row in await lane.fetch("SELECT id, fence FROM partitions")}
    while (await run_batch(lane, settings, fences, batch_max)).finished:
        pass


async def executed(lane: Connection) -> list[UUID]:
    """What was executed of the item's prices, in its order."""
    rows = await lane.fetch("SELECT id FROM commands WHERE kind = 'nft.set_price' ORDER BY finished_at, seq")
    return [row["id"] for row in rows]


def ids(receipts: list[Receipt]) -> list[UUID]:
    return [receipt.id for receipt in receipts]


@pytest.mark.parametrize("batch_max", [1, 1_000])
async def test_all_failed_commands_run_again_in_the_order_in_which_they_were_accepted(
    journal: Journal, settings: Settings, lane: Connection, pool: AsyncEngine, broken: list[Receipt], batch_max: int
) -> None:
    assert await redrive(pool, [], all_of_them=True) == ids(broken)
    await drain(lane, settings, batch_max)
    assert await executed(lane) == ids(broken)
    assert set(await statuses(journal, broken)) == {"succeeded"}
    assert await lane.fetchval("SELECT price_nano FROM nfts WHERE id = $1", ITEM) == 30 * TON


async def test_one_that_fails_again_keeps_its_place(
    settings: Settings, lane: Connection, pool: AsyncEngine, broken: list[Receipt]
) -> None:
    await redrive(pool, [broken[0].id])
    await fail(lane, broken[0])
    assert [row["id"] for row in await failed(pool)] == ids(broken)
    assert await redrive(pool, [], all_of_them=True) == ids(broken)
    await drain(lane, settings, 1)
    assert await executed(lane) == ids(broken)


async def test_what_was_accepted_later_and_still_waits_comes_after_what_is_run_again(
    journal: Journal, settings: Settings, lane: Connection, pool: AsyncEngine, broken: list[Receipt]
) -> None:
    waiting = await accept(journal, settings, set_price(OWNER, ITEM, None))
    await redrive(pool, [], all_of_them=True)
    await drain(lane, settings, 1)
    assert await executed(lane) == ids(broken + waiting)
    assert await lane.fetchval("SELECT state FROM nfts WHERE id = $1", ITEM) == "held"


async def test_one_that_would_overtake_an_older_failed_command_is_refused_and_named(
    journal: Journal, lane: Connection, pool: AsyncEngine, broken: list[Receipt]
) -> None:
    oldest, *_, last = broken
    with pytest.raises(Refused) as refused:
        await redrive(pool, [last.id])
    assert f"{last.id} would overtake {oldest.id}, which failed before it" in str(refused.value)
    with pytest.raises(Refused, match=f"{last.id} would overtake {broken[1].id}"):
        await redrive(pool, [oldest.id, last.id])
    assert set(await statuses(journal, broken)) == {"failed"}
    assert await lane.fetchval("SELECT count(*) FROM commands WHERE status = 'accepted'") == 0


async def test_both_may_be_named_in_any_order(pool: AsyncEngine, broken: list[Receipt]) -> None:
    assert await redrive(pool, ids(broken[:2])[::-1]) == ids(broken[:2])
    assert await redrive(pool, ids(broken[2:4])) == ids(broken[2:4])


async def test_an_older_failed_command_of_another_asset_is_in_nobodys_way(
    journal: Journal, settings: Settings, lane: Connection, pool: AsyncEngine, broken: list[Receipt]
) -> None:
    assert {receipt.status for receipt in broken} == {"accepted"}
    other = await accept(journal, settings, set_price(OWNER, OTHER_ITEM))
    await fail(lane, *other)
    assert await redrive(pool, ids(other)) == ids(other)


async def test_nothing_is_run_again_when_one_of_those_named_is_not_failed(
    journal: Journal, pool: AsyncEngine, broken: list[Receipt]
) -> None:
    unknown = new_id()
    with pytest.raises(Refused, match=f"not failed, or unknown: {unknown}"):
        await redrive(pool, [broken[0].id, unknown])
    assert set(await statuses(journal, broken)) == {"failed"}


async def test_failed_commands_move_to_their_new_partitions_and_run_again_there(
    settings: Settings, journal: Journal, lane: Connection, pool: AsyncEngine, broken: list[Receipt]
) -> None:
    await journal.close()
    await lane.close()
    await repartition(pool, settings, 2)
    settings = settings.model_copy(update={"partitions": 2})
    again = await connect(settings, "test", timeout_seconds=10, pinned_plans=True)
    await redrive(pool, [], all_of_them=True)
    await drain(again, settings)
    assert await again.fetchval("SELECT count(*) FROM commands WHERE status <> 'succeeded'") == 0
    await again.close()
    assert broken
