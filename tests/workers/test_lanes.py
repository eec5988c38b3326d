"""Batches: in order, once, within their budget; and what happens to a command that cannot be executed."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from commands.book import Book, Posting
from commands.command import KINDS, SYSTEM, Command, Envelope
from commands.decide import decide_all
from commands.document import Need
from commands.outcome import Status
from storage.audit import audit
from storage.journal.accept import Journal
from storage.journal.unit_of_work import Fenced, UnitOfWork
from storage.postgres.connection import Connection, connect, engine, is_weather
from storage.settings import Settings
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.journal import accept, statuses
from tests.market import TON, buy, fund, receive, register, set_price, transfer
from workers.batch import ALONE_AFTER_DEATHS, DEATHS_MAX, LOSSES_MAX, run_batch, run_isolated, run_suspect
from workers.lanes import Lanes

ALL = dict.fromkeys(range(4), 0)
SELLER, BUYER = 1, 2


async def drain(lane: Connection, settings: Settings) -> list[int]:
    """Execute all that waits; the round trips of each batch."""
    round_trips = []
    while (batch := await run_batch(lane, settings, ALL, 1_000)).finished:
        round_trips.append(batch.round_trips)
    return round_trips


async def prepare(journal: Journal, lane: Connection, settings: Settings, items: int) -> None:
    """A seller's listed items, and a buyer with money."""
    await accept(journal, settings, register(SELLER), register(BUYER))
    await accept(journal, settings, fund(BUYER, 90_000 * TON))
    await accept(journal, settings, *(receive(item, SELLER) for item in range(1, items + 1)))
    await drain(lane, settings)
    await accept(journal, settings, *(set_price(SELLER, item) for item in range(1, items + 1)))
    await drain(lane, settings)


async def proved(settings: Settings) -> None:
    pool = engine(settings)
    findings = await audit(pool, settings)
    await pool.dispose()
    assert [finding for finding in findings if finding.broken] == []


async def test_the_budget_of_round_trips_does_not_grow_with_the_batch(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    """begin, claim, users, items, accounts, write, commit: seven for one purchase, seven for a hundred."""
    await prepare(journal, lane, settings, 101)
    one = await accept(journal, settings, buy(BUYER, 101))
    assert await drain(lane, settings) == [7]
    hundred = await accept(journal, settings, *(buy(BUYER, item) for item in range(1, 101)))
    assert await drain(lane, settings) == [7]
    assert set(await statuses(journal, one + hundred)) == {"succeeded"}
    await proved(settings)


async def test_commands_of_one_item_run_in_the_order_of_acceptance(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    await accept(journal, settings, register(SELLER), register(BUYER), receive(5, SELLER))
    await drain(lane, settings)
    there_and_back = [transfer(SELLER, 5, BUYER), transfer(BUYER, 5, SELLER)] * 20
    receipts = await accept(journal, settings, *there_and_back)
    await drain(lane, settings)
    assert set(await statuses(journal, receipts)) == {"succeeded"}
    await proved(settings)


async def test_a_batch_takes_its_fair_part_of_each_partition(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    await accept(journal, settings, *(register(user_id) for user_id in range(1, 201)))
    batch = await run_batch(lane, settings, ALL, 40)
    counts = [sum(partition == found for found, _ in batch.finished) for partition in range(4)]
    assert counts == [10, 10, 10, 10]
    assert batch.unfinished == {0, 1, 2, 3}


async def test_an_old_fence_writes_nothing(journal: Journal, lane: Connection, settings: Settings) -> None:
    receipts = await accept(journal, settings, register(1))
    await lane.execute("UPDATE partitions SET fence = fence + 1 WHERE id = 2")
    with pytest.raises(Fenced):
        await run_batch(lane, settings, ALL, 100)
    assert await statuses(journal, receipts) == ["accepted"]
    assert not lane.is_in_transaction()


async def test_a_batch_that_stands_still_cannot_be_overtaken(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    """Whoever takes the partition waits for the transaction under way, so nothing is executed twice."""
    receipts = await accept(journal, settings, register(1))
    other = await connect(settings, "other", timeout_seconds=10)
    async with UnitOfWork(lane, settings) as work:
        await work.begin(ALL)
        taking = asyncio.create_task(other.execute("UPDATE partitions SET fence = fence + 1"))
        envelopes, book = await work.claim(list(ALL), 10)
        await work.load(book, envelopes)
        outcomes, _ = decide_all(book, envelopes)
        await work.write(book, outcomes)
        assert not taking.done()
        await work.commit()
    await taking
    await other.close()
    assert await statuses(journal, receipts) == ["succeeded"]


async def test_leaving_without_commit_rolls_back(journal: Journal, lane: Connection, settings: Settings) -> None:
    await accept(journal, settings, register(1))
    async with UnitOfWork(lane, settings) as work:
        await work.begin(ALL)
    assert not lane.is_in_transaction()
    assert len(await drain(lane, settings)) == 1


async def test_two_batches_that_register_one_user_both_succeed(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    """An item's intake and a registration, in different partitions at the same time: one waits, then is repeated."""
    other = await connect(settings, "other", timeout_seconds=10, pinned_plans=True)
    for user_id in range(100, 110):
        receipts = await accept(journal, settings, receive(user_id, user_id), register(user_id))
        partitions = {receipt.partition for receipt in receipts}
        if len(partitions) == 1:
            continue
        results = await asyncio.gather(
            *(
                run_batch(connection, settings, {partition: 0}, 10)
                for connection, partition in zip((lane, other), partitions, strict=True)
            ),
            return_exceptions=True,
        )
        assert any(not isinstance(result, BaseException) for result in results)
        await drain(lane, settings)
        assert await statuses(journal, receipts) == ["succeeded", "succeeded"]
    await other.close()
    await proved(settings)


@pytest.fixture
def forbidden_write() -> Iterator[type[Command]]:
    """A command with a bug that only the database notices."""

    class Forbidden(Command, kind="test.forbidden", sent_by=SYSTEM):
        user_id: int

        def asset(self, envelope_id: UUID, actor: int | None) -> str:
            return f"user:{self.user_id}"

        def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
            yield from ()

        def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
            book.add(Posting(book.command_id, 1, "available", 1, "available", 5, None, None, None, None))
            return {}

    yield Forbidden
    del KINDS["test.forbidden"]


async def test_a_write_that_the_database_refuses_sets_one_command_aside(
    journal: Journal, lane: Connection, settings: Settings, forbidden_write: type[Command]
) -> None:
    poison = {"kind": "test.forbidden", "payload": {"user_id": 3}}
    receipts = await accept(journal, settings, register(3), poison, fund(3), register(4))
    lanes = Lanes(settings, lambda _: None)
    lanes.fences.update(ALL)
    lanes.ring(ALL)
    task = asyncio.create_task(lanes.run_lane(0))
    async with asyncio.timeout(20):
        while "accepted" in await statuses(journal, receipts):
            pass
    lanes.stop()
    await task
    assert await statuses(journal, receipts) == ["succeeded", "failed", "succeeded", "succeeded"]
    error = await lane.fetchval("SELECT error FROM commands WHERE status = 'failed'")
    assert "postings_two_sides_check" in error
    await proved(settings)


async def test_isolated_commands_are_executed_in_order(journal: Journal, lane: Connection, settings: Settings) -> None:
    receipts = await accept(journal, settings, register(3), fund(3), register(3), receive(8, 3), set_price(3, 8))
    await run_isolated(lane, settings, ALL, 100)
    assert await statuses(journal, receipts) == ["succeeded"] * 5
    await proved(settings)


async def test_a_stored_command_that_nobody_can_read_is_set_aside(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    receipts = await accept(journal, settings, register(3), register(4))
    await lane.execute("UPDATE commands SET kind = 'nft.of_yesterday' WHERE id = $1", receipts[0].id)
    await drain(lane, settings)
    assert await statuses(journal, receipts) == [Status.FAILED, Status.SUCCEEDED]


async def test_a_lane_survives_the_loss_of_its_connection(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    lanes = Lanes(settings, lambda _: None)
    lanes.fences.update(ALL)
    task = asyncio.create_task(lanes.run_lane(0))
    async with asyncio.timeout(20):
        for user_id in range(1, 6):
            receipts = await accept(journal, settings, register(user_id))
            lanes.ring(ALL)
            while await statuses(journal, receipts) != ["succeeded"]:
                pass
            await lane.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'souk lane 0' AND datname = current_database()"
            )
    lanes.stop()
    await task


async def test_hot_queries_use_their_indexes(journal: Journal, lane: Connection, settings: Settings) -> None:
    for statement in (
        "SELECT * FROM nfts WHERE id = ANY('{1,2}'::bigint[]) ORDER BY id FOR UPDATE",
        "SELECT * FROM accounts WHERE id = ANY('{1,2}'::bigint[]) ORDER BY id FOR UPDATE",
        "UPDATE commands SET status = 'failed' FROM unnest('{}'::uuid[]) AS v(id) WHERE commands.id = v.id",
        "UPDATE accounts SET held_nano = 0 FROM unnest('{1}'::bigint[]) AS v(id) WHERE accounts.id = v.id",
    ):
        plan = "\n".join(row[0] for row in await lane.fetch(f"EXPLAIN {statement}"))
        assert "Seq Scan" not in plan, plan
        assert "Index" in plan


async def test_a_sleeper_in_a_batch_loses_its_locks_within_the_lease(installer: Installer) -> None:
    settings = await installer.install(lease_seconds=1)
    sleeper = await connect(settings, "sleeper", timeout_seconds=10)
    heir = await connect(settings, "heir", timeout_seconds=10)
    async with UnitOfWork(sleeper, settings) as work:
        await work.begin(ALL)
        async with asyncio.timeout(5):
            await heir.execute("UPDATE partitions SET fence = fence + 1")
        with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, asyncpg.InternalClientError)) as raised:
            await work.claim(list(ALL), 10)
        assert is_weather(raised.value)
    sleeper.terminate()
    await heir.close()


async def test_a_command_that_is_tried_alone_outlives_any_bad_weather(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    """Only deaths are counted: a write that fails and is repeated, ever so often, sets nothing aside."""
    [waiting] = await accept(journal, settings, register(SELLER))
    partition, deaths = waiting.partition, ALONE_AFTER_DEATHS
    await lane.execute("UPDATE partitions SET deaths = $2 WHERE id = $1", partition, deaths)
    await lane.execute("""
        CREATE FUNCTION weather() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'bad weather' USING ERRCODE = '40001'; END $$;
        CREATE TRIGGER weather BEFORE INSERT ON users EXECUTE FUNCTION weather();
    """)
    for _ in range(2 * DEATHS_MAX):
        with pytest.raises(asyncpg.SerializationError):
            await run_suspect(lane, settings, partition, 0, deaths)
    await lane.execute("DROP TRIGGER weather ON users")
    batch, empty = await run_suspect(lane, settings, partition, 0, deaths)
    assert ([id_ for _, id_ in batch.finished], empty) == ([waiting.id], True)
    assert await statuses(journal, [waiting]) == ["succeeded"]


@pytest.mark.parametrize(
    ("living", "status"), [(0, "failed"), (1, "succeeded"), (DEATHS_MAX, "succeeded"), (LOSSES_MAX, "failed")]
)
async def test_a_command_is_set_aside_when_workers_died_of_it_and_not_when_they_lost_their_lease(
    journal: Journal, lane: Connection, settings: Settings, living: int, status: str
) -> None:
    """Of all that tried it so many show themselves; when too many lost their lease over it, that is its fault too."""
    quick = settings.model_copy(update={"lease_seconds": 0.1})
    [receipt] = await accept(journal, settings, register(SELLER))
    tried_by = [f"worker {number}" for number in range(max(DEATHS_MAX, living))]
    await lane.execute(
        "INSERT INTO workers (id, alive_until, batches, commands, round_trips)"
        " SELECT id, clock_timestamp() + interval '1 hour', 0, 0, 0 FROM unnest($1::text[]) AS living(id)",
        tried_by[:living],
    )
    await lane.execute(
        "UPDATE partitions SET deaths = $2, trying = $3, tried_by = $4 WHERE id = $1",
        *(receipt.partition, DEATHS_MAX, receipt.id, tried_by),
    )
    batch, _ = await run_suspect(lane, quick, receipt.partition, 0, DEATHS_MAX)
    assert [id_ for _, id_ in batch.finished] == [receipt.id]
    assert await statuses(journal, [receipt]) == [status]


@pytest.mark.parametrize("died", [0, DEATHS_MAX])
async def test_a_cancelled_suspect_leaves_its_trial_to_nobody_else(
    journal: Journal, lane: Connection, settings: Settings, died: int
) -> None:
    """It is cancelled between being chosen and being tried: what comes next is not set aside, nor run, in its name."""
    bodies = [register(user_id) for user_id in range(1, 40)]
    receipts = await accept(journal, settings, *bodies)
    partition = receipts[0].partition
    suspect, other, *_ = (receipt for receipt in receipts if receipt.partition == partition)
    await lane.execute(
        "UPDATE partitions SET deaths = $2, trying = $3, tried_by = $4 WHERE id = $1",
        *(partition, DEATHS_MAX, suspect.id, ["dead"] * died),
    )
    async with connected(settings) as canceller:
        async with canceller.transaction():
            await canceller.execute("SELECT 1 FROM partitions WHERE id = $1 FOR NO KEY UPDATE", partition)
            trial = asyncio.create_task(run_suspect(lane, settings, partition, 0, DEATHS_MAX))

            async def waits() -> bool:
                return bool(await canceller.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

            await eventually(waits)
            await canceller.execute(
                "UPDATE commands SET status = 'cancelled', finished_at = now() WHERE id = $1", suspect.id
            )
        batch, empty = await trial
        assert await canceller.fetchval("SELECT trying FROM partitions WHERE id = $1", partition) != suspect.id
    assert empty
    assert suspect.id not in [id_ for _, id_ in batch.finished]
    assert await statuses(journal, [suspect, other]) == ["cancelled", "succeeded"]
