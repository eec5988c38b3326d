"""Accepting: durable, once for each key, in order, within limits."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commands.terms import TIMER_GRACE_MIN_SECONDS, Terms
from storage.journal.accept import (
    ACCEPT_IDLE_SECONDS,
    ACCEPT_SECONDS,
    Journal,
    KeyReused,
    Overloaded,
    TooManyUnfinished,
)
from storage.journal.entry import fingerprint_of, new_id, partition_of
from storage.journal.receipts import Receipt
from storage.postgres.connection import Connection, Unavailable, is_weather
from storage.settings import Settings
from tests.commits import wire_to
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.journal import accept, submission
from tests.market import buy, register, set_price


async def test_what_is_accepted_is_in_the_table(journal: Journal, settings: Settings, lane: Connection) -> None:
    [receipt] = await accept(journal, settings, register(42))
    row = await lane.fetchrow("SELECT * FROM commands")
    assert row is not None
    assert (row["id"], row["status"], row["asset"]) == (receipt.id, "accepted", "user:42")
    assert row["accepted_at"] == receipt.accepted_at
    assert await journal.read(receipt.id) == receipt


async def test_commands_of_a_batch_keep_its_order(journal: Journal, settings: Settings, lane: Connection) -> None:
    receipts = await accept(journal, settings, *(register(user_id) for user_id in range(1, 300)))
    rows = await lane.fetch("SELECT id FROM commands ORDER BY seq")
    assert [row["id"] for row in rows] == [receipt.id for receipt in receipts]


async def test_concurrent_submissions_share_their_commits(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    await asyncio.gather(*(accept(journal, settings, register(user_id)) for user_id in range(1, 201)))
    transactions = await lane.fetchval("SELECT count(DISTINCT xmin::text) FROM commands")
    assert transactions <= 5


async def test_a_repeated_key_gives_the_first_receipt(journal: Journal, settings: Settings) -> None:
    [first] = await journal.accept([submission(settings, buy(1, 2), key="k")])
    [again] = await journal.accept([submission(settings, buy(1, 2), key="k")])
    assert isinstance(first, Receipt)
    assert again == first._replace(replayed=True)


async def test_a_key_twice_in_one_batch_is_one_command(journal: Journal, settings: Settings) -> None:
    first, again = await journal.accept([submission(settings, register(7), key="k") for _ in range(2)])
    assert isinstance(first, Receipt)
    assert again == first._replace(replayed=True)


async def test_a_hundred_duplicates_at_once_are_one_command(
    installer: Installer, settings: Settings, lane: Connection
) -> None:
    journals = [Journal(settings) for _ in range(4)]  # as of four API processes
    answers = await asyncio.gather(
        *(journals[number % 4].accept([submission(settings, register(7), key="k")]) for number in range(100))
    )
    await asyncio.gather(*(journal.close() for journal in journals))
    assert {receipt.id for [receipt] in answers if isinstance(receipt, Receipt)} == {
        await lane.fetchval("SELECT id FROM commands")
    }
    assert sum(isinstance(receipt, Receipt) and not receipt.replayed for [receipt] in answers) == 1


async def test_a_key_with_another_payload_is_refused(journal: Journal, settings: Settings, lane: Connection) -> None:
    await journal.accept([submission(settings, buy(1, 2), key="k")])
    for other in (buy(1, 3), set_price(1, 2)):
        [answer] = await journal.accept([submission(settings, other, key="k")])
        assert isinstance(answer, KeyReused)
    assert await lane.fetchval("SELECT count(*) FROM commands") == 1


async def test_a_key_is_its_actors_own(journal: Journal, settings: Settings, lane: Connection) -> None:
    bodies = [buy(1, 2), buy(2, 2), register(9)]
    answers = await journal.accept([submission(settings, body, key="k") for body in bodies])
    assert not any(isinstance(answer, Receipt) and answer.replayed for answer in answers)
    assert await lane.fetchval("SELECT count(*) FROM commands") == 3


async def test_an_insert_whose_answer_was_lost_is_found_when_repeated(journal: Journal, settings: Settings) -> None:
    lost = submission(settings, register(7))
    [first] = await journal.accept([lost])
    [again] = await journal.accept([lost])
    assert again == first


async def test_a_command_for_later_is_scheduled(journal: Journal, settings: Settings) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    past = datetime.now(UTC) - timedelta(hours=1)
    later, now = await journal.accept(
        [submission(settings, register(1), run_at=soon), submission(settings, register(2), run_at=past)]
    )
    assert isinstance(later, Receipt)
    assert isinstance(now, Receipt)
    assert (later.status, later.accepted_at) == ("scheduled", None)
    assert now.status == "accepted"


async def test_an_actor_has_so_many_unfinished_commands(installer: Installer) -> None:
    settings = await installer.install(actor_unfinished_max=5)
    journal = Journal(settings)
    answers = await journal.accept([submission(settings, buy(1, item)) for item in range(1, 8)])
    assert [type(answer) for answer in answers] == [Receipt] * 5 + [TooManyUnfinished] * 2
    await accept(journal, settings, buy(2, 1))
    async with connected(settings) as connection:
        await connection.execute("UPDATE commands SET status = 'rejected', finished_at = now() WHERE actor = 1")
    await accept(journal, settings, buy(1, 8))
    await journal.close()


async def test_a_full_backlog_refuses_more(installer: Installer) -> None:
    settings = await installer.install(backlog_max=3)
    journal = Journal(settings)
    answers = await journal.accept([submission(settings, register(user_id)) for user_id in range(1, 6)])
    assert [type(answer) for answer in answers] == [Receipt] * 3 + [Overloaded] * 2
    await journal.close()


async def test_a_terminated_connection_is_made_anew(journal: Journal, settings: Settings, lane: Connection) -> None:
    await accept(journal, settings, register(1))
    await lane.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'souk accept' AND datname = current_database()"
    )
    await accept(journal, settings, register(2))
    assert await lane.fetchval("SELECT count(*) FROM commands") == 2


async def test_without_a_database_nothing_is_accepted(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"database_url": type(settings.database_url)("postgresql://127.0.0.1:1/x")})
    journal = Journal(nowhere)
    with pytest.raises(Unavailable):
        await journal.accept([submission(nowhere, register(1))])
    await journal.close()


async def test_a_look_at_a_database_that_is_gone_holds_up_no_end(settings: Settings) -> None:
    """It would be repeated for ten seconds; a read leaves nothing half done."""
    nowhere = settings.model_copy(update={"database_url": type(settings.database_url)("postgresql://127.0.0.1:1/x")})
    journal = Journal(nowhere)
    looking = journal.look([new_id()])
    async with asyncio.timeout(5):
        await journal.close()
    assert not looking.done()


async def test_waiting_commands_are_claimed_by_an_index(lane: Connection) -> None:
    plan = await lane.fetch(
        "EXPLAIN SELECT * FROM commands WHERE partition = 1 AND status = 'accepted' ORDER BY seq LIMIT 10"
    )
    assert any("commands_claim_idx" in row[0] for row in plan)


@given(st.text(max_size=40), st.integers(1, 999))
def test_a_partition_is_within_its_range_and_stable(asset: str, partitions: int) -> None:
    partition = partition_of(asset, partitions)
    assert 0 <= partition < partitions
    assert partition == partition_of(asset, partitions)


def test_partitions_are_what_earlier_versions_computed() -> None:
    assert [partition_of(f"nft:{number}", 64) for number in range(1, 6)] == [33, 27, 13, 46, 56]


def test_assets_spread_evenly() -> None:
    counts = [0] * 64
    for number in range(64_000):
        counts[partition_of(f"nft:{number}", 64)] += 1
    assert max(counts) < 1.3 * 1_000


def test_ids_are_version_7_and_follow_time() -> None:
    made = [new_id() for _ in range(1_000)]
    assert {(id_.version, id_.variant) for id_ in made} == {(7, UUID(int=0x8 << 60).variant)}
    assert len(set(made)) == 1_000
    assert [id_.int >> 80 for id_ in made] == sorted(id_.int >> 80 for id_ in made)


def test_a_fingerprint_tells_kinds_and_payloads_apart() -> None:
    assert len({fingerprint_of("a", "{}"), fingerprint_of("b", "{}"), fingerprint_of("a", "[]")}) == 3


def test_weather_is_told_from_bugs() -> None:
    assert is_weather(ConnectionResetError())
    assert is_weather(TimeoutError())
    assert not is_weather(ValueError())


async def test_a_repeated_key_is_answered_when_limits_are_reached(installer: Installer) -> None:
    settings = await installer.install(actor_unfinished_max=1)
    journal = Journal(settings)
    [first] = await journal.accept([submission(settings, buy(1, 2), key="k")])
    again, other = await journal.accept([submission(settings, buy(1, 2), key="k"), submission(settings, buy(1, 3))])
    assert isinstance(first, Receipt)
    assert again == first._replace(replayed=True)
    assert isinstance(other, TooManyUnfinished)
    await journal.close()


async def test_a_command_whose_sender_slept_past_the_timer_it_precedes_is_not_accepted(
    settings: Settings, lane: Connection
) -> None:
    """Through PgBouncer the COMMIT is a message of its own, which may come late: stamped in time, committed after the
    timer. A repeat takes its place, with a stamp of its own."""
    async with wire_to(settings.model_copy(update={"pgbouncer": True})) as wire:
        journal = Journal(wire.settings)
        await accept(journal, settings, register(1))
        wire.hold_a_commit_back()
        accepting = asyncio.create_task(journal.accept([submission(settings, register(2))]))
        await wire.held.wait()
        held_at = await lane.fetchval("SELECT clock_timestamp()")

        async def the_timer_may_run() -> bool:
            grace = timedelta(seconds=settings.timer_grace_seconds)
            return await lane.fetchval("SELECT clock_timestamp() > $1", held_at + grace) is True

        await eventually(the_timer_may_run)
        wire.release()
        with suppress(Unavailable):  # where the machine is too busy for the repeat to be in time
            await accepting
        await journal.close()
    assert (
        await lane.fetchval("SELECT count(*) FROM commands WHERE asset = 'user:2' AND accepted_at <= $1", held_at) == 0
    )


def test_accepting_takes_less_than_the_least_grace_of_timers() -> None:
    assert ACCEPT_SECONDS + ACCEPT_IDLE_SECONDS < TIMER_GRACE_MIN_SECONDS
    assert Terms().timer_grace_seconds >= TIMER_GRACE_MIN_SECONDS
    with pytest.raises(ValidationError, match="timer_grace_seconds"):
        Terms(timer_grace_seconds=TIMER_GRACE_MIN_SECONDS - 1)
