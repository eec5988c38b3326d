"""The hub: each subscription's events once, in order, however they come to it; and no work while nobody listens."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest

from api.events import hub as hub_module
from api.events.hub import Behind, Hub, Subscription
from commands.command import Invalid
from storage.feed import Cursor, StoredEvent, read_end, read_events
from storage.postgres.connection import Connection, Unavailable
from storage.settings import Settings
from storage.tasks import end
from tests.deadline import eventually
from tests.installation import connected
from tests.storage.test_feed import tell, telling

T = TypeVar("T")
START = Cursor(0, 0)


async def soon(coming: Awaitable[T], seconds: float = 10) -> T:
    """What comes, unless it takes too long."""
    async with asyncio.timeout(seconds):
        return await coming


async def names(subscription: Subscription, count: int) -> list[str]:
    """Of the next events."""
    return [(await soon(anext(subscription))).name for _ in range(count)]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Hub]:
    """It hears no notices, so it looks often."""
    hub = Hub(settings)
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        hub.drain()
        await end([task])
        await hub.close()


@pytest.fixture
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    async with running(settings) as hub:
        yield hub


async def test_a_subscription_gets_what_comes_after_it_began(hub: Hub, lane: Connection) -> None:
    await tell(lane, "before")
    async with hub.subscribe(["market"]) as subscription:
        assert subscription.position == (await read_end(lane)).cursor
        await tell(lane, "one", "two")
        await tell(lane, "another's", topics=["user:1"])
        await tell(lane, "three", topics=["nft:1", "market"])
        assert await names(subscription, 3) == ["one", "two", "three"]


async def test_a_subscription_resumes_where_another_ended(hub: Hub, lane: Connection) -> None:
    await tell(lane, *(f"{number}" for number in range(10)))
    async with hub.subscribe(["market"], START) as first:
        seen = await names(first, 4)
        position = first.position
    async with hub.subscribe(["market"], position) as second:
        seen += await names(second, 6)
        await tell(lane, "10")
        seen += await names(second, 1)
    assert seen == [str(number) for number in range(11)]


async def test_an_event_that_commits_late_comes_in_its_turn(hub: Hub, settings: Settings, lane: Connection) -> None:
    """Both to who listens all the time and to who resumes in between."""
    async with AsyncExitStack() as stack, hub.subscribe(["market"]) as listening:
        await tell(lane, "first")
        [event] = [await soon(anext(listening))]
        async with telling(settings, "slow"):
            await tell(lane, "quick")
            async with hub.subscribe(["market"], event.cursor) as resumed:
                assert await resumed.take(0.3) == []
                assert resumed.position == event.cursor
            again = await stack.enter_async_context(hub.subscribe(["market"], resumed.position))
        assert await names(again, 2) == ["slow", "quick"]
        assert await names(listening, 2) == ["slow", "quick"]


async def test_whoever_resumes_again_and_again_sees_each_event_once(
    hub: Hub, settings: Settings, lane: Connection
) -> None:
    """While writers, in transactions of random length, commit in any order."""
    writers, rounds = 4, 40

    async def write(writer: int) -> None:
        async with connected(settings) as connection:
            for number in range(rounds):
                async with connection.transaction():
                    await tell(connection, f"{writer}-{number}", "noise")
                    await connection.execute("SELECT pg_sleep(random() * 0.02)")

    seen: list[StoredEvent] = []
    position, cuts, due = START, 0, 2 * writers * rounds
    writing = [asyncio.create_task(write(writer)) for writer in range(writers)]
    while len(seen) < due:
        async with hub.subscribe(["market"], position) as subscription:
            count = min(random.randint(0, 8), due - len(seen))
            seen += [await soon(anext(subscription)) for _ in range(count)]
            position = subscription.position
            cuts += 1
    await asyncio.gather(*writing)
    assert cuts > 20
    cursors = [event.cursor for event in seen]
    assert cursors == sorted(set(cursors))
    assert cursors == [event.cursor for event in (await read_events(lane, START, None, 10_000)).events]


async def test_a_long_past_is_read_up_while_more_comes(hub: Hub, settings: Settings, lane: Connection) -> None:
    """Many readings of the table, and a join with what comes meanwhile."""
    past, coming = 3 * hub_module._RESUMED_MAX + 7, 600
    await tell(lane, *(f"past {number}" for number in range(past)))

    async def write() -> None:
        async with connected(settings) as connection:
            for number in range(coming):
                await tell(connection, f"coming {number}")

    async with hub.subscribe(["market"], START) as subscription:
        writing = asyncio.create_task(write())
        seen = await names(subscription, past + coming)
        await writing
    assert seen == [f"past {number}" for number in range(past)] + [f"coming {number}" for number in range(coming)]


async def test_a_client_that_is_too_slow_is_told_where_to_resume(hub: Hub, lane: Connection) -> None:
    async with hub.subscribe(["market"]) as slow, hub.subscribe(["market"]) as quick:
        await tell(lane, "first")
        assert await names(slow, 1) == ["first"]
        await tell(lane, *map(str, range(hub_module.BUFFER_MAX + 500)))  # in one transaction
        assert len(await names(quick, hub_module.BUFFER_MAX + 501)) == hub_module.BUFFER_MAX + 501
        await eventually(_answering(lambda: slow._behind))
        with pytest.raises(Behind) as behind:
            await anext(slow)
        with pytest.raises(Behind):
            await slow.take(1)
    async with hub.subscribe(["market"], behind.value.cursor) as resumed:
        assert await names(resumed, 1_200) == [str(number) for number in range(1_200)]


async def test_while_nobody_listens_nothing_is_read(hub: Hub, lane: Connection) -> None:
    for _ in range(2):
        async with hub.subscribe(["market"]) as subscription:
            await tell(lane, "one")
            assert await names(subscription, 1) == ["one"]
        await asyncio.sleep(2 * hub_module.LOOK_SECONDS_WITHOUT_NOTICES)
        readings = hub.readings
        hub.heard()
        await asyncio.sleep(3 * hub_module.LOOK_SECONDS_WITHOUT_NOTICES)
        assert hub.readings == readings
        await tell(lane, "unheard")


async def test_topics_may_come_and_go(hub: Hub, lane: Connection) -> None:
    async with hub.subscribe(["nft:1"]) as subscription:
        await tell(lane, "unasked", topics=["nft:2"])
        await tell(lane, "one", topics=["nft:1"])
        assert await names(subscription, 1) == ["one"]
        start = subscription.add(["nft:2"])
        assert start <= (await read_end(lane)).cursor
        await tell(lane, "two", topics=["nft:2", "nft:1"])
        assert await names(subscription, 1) == ["two"]
        subscription.discard(["nft:1"])
        await tell(lane, "unasked", topics=["nft:1"])
        await tell(lane, "three", topics=["nft:2"])
        assert await names(subscription, 1) == ["three"]


async def test_a_topic_that_is_added_is_heard_from_the_cursor_that_was_answered(hub: Hub, lane: Connection) -> None:
    """Whatever the hub is doing at that moment."""
    async with hub.subscribe(["nft:0"]) as subscription:
        added: dict[str, Cursor] = {}
        for number in range(1, 60):  # from some number of topics on, PostgreSQL selects no more
            topic = f"nft:{number}"
            writing = asyncio.create_task(tell(lane, topic, topics=[topic]))
            await asyncio.sleep(random.random() * 0.004)
            added[topic] = subscription.add([topic])
            await writing
        last = (await read_events(lane, START, None, 1_000)).events
        due = [event.name for event in last if event.cursor > added[event.name]]
        assert await names(subscription, len(due)) == due


async def test_a_topic_that_is_added_while_the_past_is_read_is_heard_too(hub: Hub, lane: Connection) -> None:
    await tell(lane, *(f"{number}" for number in range(700)), topics=["nft:1"])
    await tell(lane, "other", topics=["nft:2"])
    async with hub.subscribe(["nft:1"], START) as subscription:
        waiting = asyncio.create_task(names(subscription, 701))
        await asyncio.sleep(0)
        subscription.add(["nft:2"])
        assert (await waiting)[-1] == "other"


async def test_a_cursor_from_the_future_is_refused(hub: Hub, lane: Connection) -> None:
    await tell(lane, "one")
    future = Cursor((await read_end(lane)).next_txid, 0)
    with pytest.raises(Invalid, match="future"):
        await hub.subscribe(["market"], future).__aenter__()
    with pytest.raises(Invalid, match="future"):
        await hub.page(future, ["market"], 1)


async def test_a_drain_ends_every_iteration_and_lets_nobody_in(hub: Hub, lane: Connection) -> None:
    async with hub.subscribe(["market"]) as first, hub.subscribe(["market"], START) as second:
        await tell(lane, "one")
        assert await names(first, 1) == ["one"]
        position = first.position
        waiting = asyncio.create_task(soon(anext(first, None)))
        await asyncio.sleep(0)
        hub.drain()
        assert await waiting is None
        assert first.position >= position
        assert await second.take(1) == []
        assert second.closed
    with pytest.raises(Unavailable):
        await hub.subscribe(["market"]).__aenter__()


async def test_a_broken_connection_delays_and_loses_nothing(hub: Hub, settings: Settings, lane: Connection) -> None:
    async with hub.subscribe(["market"], START) as subscription:
        await tell(lane, "one")
        assert await names(subscription, 1) == ["one"]
        assert await lane.fetchval(
            "SELECT bool_and(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name IN ('souk feed', 'souk resume') AND datname = current_database()"
        )
        await tell(lane, "two")
        assert await names(subscription, 1) == ["two"]


async def test_without_a_database_nobody_is_let_in(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"database_url": type(settings.database_url)("postgresql://127.0.0.1:1/x")})
    async with running(nowhere) as hub:
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            await soon(hub.subscribe(["market"]).__aenter__())
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            await hub.page(START, ["market"], 1)


def _answering(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def answer() -> bool:
        return holds()

    return answer
