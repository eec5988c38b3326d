"""What the triggers of a faults run log of real batches shows one writer for each fence, and any other."""

from collections.abc import AsyncIterator

import pytest

from loadtest.faults.writers import LEASES, WRITES, Lease, Write, writing
from storage.journal.accept import Journal
from storage.postgres.connection import Connection, connect
from storage.settings import Settings
from tests.installation import connected
from tests.journal import accept
from tests.market import register
from workers.batch import run_batch

PARTITIONS = range(4)


@pytest.fixture
async def watched(settings: Settings) -> AsyncIterator[Connection]:
    async with connected(settings) as connection:
        await connection.execute(LEASES + WRITES)
        yield connection


@pytest.fixture
async def other_lane(settings: Settings) -> AsyncIterator[Connection]:
    connection = await connect(settings, "another test", timeout_seconds=10, pinned_plans=True)
    yield connection
    await connection.close()


async def take(watched: Connection, owner: str) -> dict[int, int]:
    """The fences of all partitions, taken by that worker."""
    rows = await watched.fetch("UPDATE partitions SET owner = $1, fence = fence + 1 RETURNING id, fence", owner)
    return {row[0]: row[1] for row in rows}


async def execute(journal: Journal, settings: Settings, lane: Connection, fences: dict[int, int], first: int) -> None:
    await accept(journal, settings, *(register(number) for number in range(first, first + 40)))
    assert len((await run_batch(lane, settings, fences, 1_000)).finished) == 40


async def test_batches_of_one_owner_after_the_other_have_one_writer_each(
    journal: Journal, settings: Settings, lane: Connection, other_lane: Connection, watched: Connection
) -> None:
    await execute(journal, settings, lane, await take(watched, "first"), 1)
    await watched.execute("UPDATE partitions SET owner = NULL")
    await execute(journal, settings, other_lane, await take(watched, "second"), 101)
    ids = [row[0] for row in await watched.fetch("SELECT id::text FROM commands")]
    seen = await writing(watched)
    assert list(seen.strangers(ids)) == []
    assert seen.figures() == {"batches": 2 * len(PARTITIONS), "fences": 2 * len(PARTITIONS), "writers": 2}
    log = [entry for entry in seen.log if entry.partition == 0]
    assert [type(entry) for entry in log] == [Lease, Write, Lease, Lease, Write]
    assert sorted(id_ for entry in seen.log if isinstance(entry, Write) for id_ in entry.commands) == sorted(ids)


async def test_a_worker_that_writes_under_the_fence_of_another_is_found(
    journal: Journal, settings: Settings, lane: Connection, watched: Connection
) -> None:
    await execute(journal, settings, lane, await take(watched, "first"), 1)
    await execute(journal, settings, lane, await take(watched, "second"), 101)  # as a worker without its fences would
    found = list((await writing(watched)).strangers([]))
    assert len(found) == len(PARTITIONS)
    assert all(one.startswith("two writers: ") and ", second's, is written by first" in one for one in found)


async def test_an_outcome_that_is_written_without_the_lock_on_its_partition_is_found(
    journal: Journal, settings: Settings, watched: Connection
) -> None:
    await take(watched, "first")
    await accept(journal, settings, register(1))
    await watched.execute("UPDATE commands SET status = 'succeeded', finished_at = clock_timestamp()")
    [found] = (await writing(watched)).strangers([])
    assert found.startswith("two writers: ")
    assert found.endswith("is written without its lock")
