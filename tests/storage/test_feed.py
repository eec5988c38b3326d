"""The feed: every event once, in one order, whatever order they were committed in."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.feed import SCAN_MAX, Cursor, Reading, read_end, read_events
from storage.postgres.connection import Connection
from storage.settings import Settings
from tests.installation import connected

START = Cursor(0, 0)
COMMAND = UUID(int=1)


async def tell(connection: Connection, *names: str, topics: Sequence[str] = ("market",)) -> None:
    """Events of these names, one each."""
    await connection.executemany(
        "INSERT INTO events (command_id, name, topics, fields, at) VALUES ($1, $2, $3, '{}', now())",
        [(COMMAND, name, list(topics)) for name in names],
    )


@asynccontextmanager
async def telling(settings: Settings, *names: str) -> AsyncIterator[None]:
    """Events of a transaction that is under way within, and committed at the end."""
    async with connected(settings) as connection, connection.transaction():
        await tell(connection, *names)
        yield


def names(reading: Reading) -> list[str]:
    return [event.name for event in reading.events]


async def test_an_event_that_commits_late_is_neither_missed_nor_repeated(settings: Settings, lane: Connection) -> None:
    await tell(lane, "first")
    seen = await read_events(lane, START, None, 100)
    async with telling(settings, "slow"):
        await tell(lane, "quick")
        held = await read_events(lane, seen.reached, None, 100)
        assert (names(held), held.pending, held.reached) == ([], True, seen.reached)
    rest = await read_events(lane, held.reached, None, 100)
    assert (names(rest), rest.pending, rest.more) == (["slow", "quick"], False, False)
    assert names(await read_events(lane, rest.reached, None, 100)) == []


async def test_a_reader_follows_writers_who_commit_in_any_order(settings: Settings, lane: Connection) -> None:
    """Whoever begins first may commit last; a reader who looks all the time sees each event once, in order."""
    writers, rounds = 6, 15

    async def write(writer: int) -> None:
        async with connected(settings) as connection:
            for number in range(rounds):
                async with connection.transaction():
                    await tell(connection, f"{writer}-{number}-a")
                    await connection.execute("SELECT pg_sleep(random() * 0.01)")
                    await tell(connection, f"{writer}-{number}-b")

    writing = asyncio.gather(*(write(writer) for writer in range(writers)))
    seen, cursors, reached = [], [], START
    while True:
        done = writing.done()
        reading = await read_events(lane, reached, ["market"], 7)
        seen += names(reading)
        cursors += [event.cursor for event in reading.events]
        reached = reading.reached
        if done and not reading.more:
            break
    await writing
    assert sorted(seen) == sorted(f"{w}-{n}-{x}" for w in range(writers) for n in range(rounds) for x in "ab")
    assert cursors == sorted(set(cursors))


async def test_a_transaction_that_fails_holds_nothing_back_for_ever(settings: Settings, lane: Connection) -> None:
    async with connected(settings) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await tell(connection, "never")
        await tell(lane, "later")
        assert names(await read_events(lane, START, None, 100)) == []
        await transaction.rollback()
    assert names(await read_events(lane, START, None, 100)) == ["later"]


async def test_only_events_of_the_topics_are_given(lane: Connection) -> None:
    await tell(lane, "of nft 1", topics=["nft:1", "market"])
    await tell(lane, "of nft 2", topics=["nft:2"])
    await tell(lane, "of user 1", topics=["user:1"])
    reading = await read_events(lane, START, ["nft:1", "user:1"], 100)
    assert names(reading) == ["of nft 1", "of user 1"]
    assert reading.events[0].topics == ("nft:1", "market")
    assert names(await read_events(lane, START, [], 100)) == []


async def test_a_reading_moves_on_over_what_nobody_asked_for(lane: Connection) -> None:
    """It looks at so many rows and no more; what was looked at is not looked at again."""
    await tell(lane, *(f"noise {number}" for number in range(25)))
    await tell(lane, "signal", topics=["nft:1"])
    reached, seen, readings = START, [], 0
    while True:
        reading = await read_events(lane, reached, ["nft:1"], 100, scan_max=10)
        assert reading.reached > reached
        reached, readings = reading.reached, readings + 1
        seen += names(reading)
        if not reading.more:
            break
    assert (seen, readings) == (["signal"], 3)
    assert reached == (await read_end(lane)).cursor


@pytest.mark.parametrize("count", [9, 10, 11, 20])
@pytest.mark.parametrize("limit", [1, 5, 10, 11])
async def test_more_says_whether_there_is_more(lane: Connection, count: int, limit: int) -> None:
    await tell(lane, *map(str, range(count)))
    seen: list[str] = []
    reading = await read_events(lane, START, ["market"], limit, scan_max=10)
    while reading.more:
        seen += names(reading)
        reading = await read_events(lane, reading.reached, ["market"], limit, scan_max=10)
    seen += names(reading)
    assert seen == [str(number) for number in range(count)]
    assert names(await read_events(lane, reading.reached, None, 100)) == []


async def test_the_end_of_an_empty_feed_is_its_beginning(lane: Connection) -> None:
    end = await read_end(lane)
    assert end.cursor == START
    reading = await read_events(lane, START, None, 10)
    assert reading == Reading([], START, more=False, pending=False)
    await tell(lane, "first")
    assert (await read_end(lane)).cursor.txid >= end.next_txid


async def test_a_reading_goes_by_the_primary_key(lane: Connection) -> None:
    """However many events there are, it looks at those after its cursor only."""
    await lane.execute(
        "INSERT INTO events (command_id, name, topics, fields, at)"
        " SELECT gen_random_uuid(), 'noise', ARRAY['market'], '{}', now() FROM generate_series(1, 50_000)"
    )
    end = (await read_end(lane)).cursor
    await tell(lane, "news")
    await lane.execute("ANALYZE events")
    for after, rows_max in ((end, 100), (START, 2 * SCAN_MAX + 100)):
        await lane.execute("SELECT pg_stat_force_next_flush()")
        before = await _rows_read(lane)
        assert (await read_events(lane, after, ["nft:1"], 10)).events == []
        await lane.execute("SELECT pg_stat_force_next_flush()")
        assert await _rows_read(lane) - before <= rows_max
    assert await lane.fetchval("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'events'") == 0


async def _rows_read(connection: Connection) -> int:
    """Of the table, and of its index only."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return int(
        await connection.fetchval(
            "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'events'",
        )
    )


@given(st.builds(Cursor, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)))
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    ["", "1", "1-", "-1", "1-2-3", "a-b", "-1-2", "01-2", "1-+2", " 1-2", "1-2\n", f"{2**63}-1", f"1-{10**19}"],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Cursor.parse(text)
