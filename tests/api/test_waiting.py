"""Waiting for outcomes: by the thousand, with few statements and one subscription; and whatever becomes of notices."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from api import outcomes as outcomes_module
from api.auth import Keyring
from api.outcomes import Outcomes
from api.submit import Submit
from storage.journal.accept import Journal
from storage.journal.receipts import Receipt
from storage.postgres.connection import Connection, connect, engine
from storage.redis.hints import Hints
from storage.redis.queue import OUTCOMES_CHANNEL, Queue, connect_redis
from storage.settings import Settings
from storage.tasks import end
from tests.api.api import Api, running
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.journal import accept
from tests.market import register
from workers.batch import run_batch
from workers.worker import execute

WAITERS = 2_000
HELD_SECONDS = 3.0


@pytest.fixture
def without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read again by and by: who misses a notice waits for ever."""
    monkeypatch.setattr(outcomes_module, "_REREAD_SECONDS", 3_600)
    monkeypatch.setattr(outcomes_module, "_REREAD_SECONDS_WITHOUT_NOTICES", 3_600)


class Worker:
    """Executes when asked to, and tells of it only when asked to."""

    def __init__(self, settings: Settings, connection: Connection, hints: Hints) -> None:
        self._settings = settings
        self._connection = connection
        self._hints = hints

    async def work(self, *, tells: bool) -> None:
        """All that waits, in batches."""
        fences = {row["id"]: row["fence"] for row in await self._connection.fetch("SELECT id, fence FROM partitions")}
        while finished := (await run_batch(self._connection, self._settings, fences, 1_000)).finished:
            if tells:
                self._hints.finish(finished)


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Worker]:
    redis = connect_redis(settings)
    connection = await connect(settings, "test", timeout_seconds=10, pinned_plans=True)
    hints = Hints(Queue(redis))
    try:
        yield Worker(settings, connection, hints)
    finally:
        await hints.close()
        await connection.close()
        await redis.aclose()


async def transactions(settings: Settings, postgres: Connection) -> int:
    """Of this installation's database so far; its connections tell when they end, so it waits until all have."""
    database = settings.database_url.get_secret_value().partition("?")[0].rpartition("/")[2]

    async def nobody_is_there() -> bool:
        return not await postgres.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = $1", database)

    await eventually(nobody_is_there)
    return int(await postgres.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = $1", database))


async def subscribers(settings: Settings) -> tuple[int, int]:
    """To outcomes, of all processes; and connections to Redis at all."""
    redis = connect_redis(settings)
    [(_, count)] = await redis.pubsub_numsub(OUTCOMES_CHANNEL)
    connections = len(await redis.client_list())
    await redis.aclose()
    return int(count), connections


async def listens(api: Api) -> None:
    """The process hears notices by now."""

    async def hears() -> bool:
        return bool((await api.anonymous.get("/readyz")).json()["parts"]["redis"] == "ok")

    await eventually(hears)


@pytest.fixture
async def quiet(installer: Installer) -> AsyncIterator[Api]:
    """An application that hears notices, and no others than are told in its test."""
    async with running(await installer.install()) as api:
        await listens(api)
        yield api


async def test_two_thousand_waiters_share_their_statements_and_one_subscription(installer: Installer) -> None:
    settings = await installer.install()
    ids: list[str] = []
    async with running(settings) as api:
        for first in range(0, WAITERS, 1_000):
            commands = [register(number) for number in range(first + 1, first + 1_001)]
            answer = await api.operator.post("/v1/commands/batch", json={"commands": commands})
            ids += [receipt["id"] for receipt in answer.json()["receipts"]]
    async with connected(await installer.empty()) as observer:
        before = await transactions(settings, observer)
        async with running(settings) as api, working(settings) as worker:
            await listens(api)
            subscribed = await subscribers(settings)
            waits = [
                asyncio.create_task(api.operator.get(f"/v1/commands/{command_id}", params={"wait": "30"}))
                for command_id in ids
            ]
            answered, _ = await asyncio.wait(waits, timeout=HELD_SECONDS)
            assert not answered
            listeners, connections = await subscribers(settings)
            assert listeners <= subscribed[0]
            assert connections <= subscribed[1] + 2
            began = time.monotonic()
            await worker.work(tells=True)
            answers = await asyncio.wait_for(asyncio.gather(*waits), 20)
            assert time.monotonic() - began < 10
        assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "succeeded")}
        assert [answer.json()["id"] for answer in answers] == ids
        made = await transactions(settings, observer) - before
        assert made < WAITERS / 10, "each waiter asks for itself"


@pytest.mark.usefixtures("without_looking")
async def test_a_notice_ends_the_wait(quiet: Api) -> None:
    async with working(quiet.settings) as worker:
        polling, submitting = (
            asyncio.create_task(quiet.operator.get(await link(quiet, 1), params={"wait": "30"})),
            asyncio.create_task(quiet.operator.post("/v1/commands", json=register(2), headers={"Prefer": "wait=30"})),
        )
        await eventually(lambda: accepted(quiet, 2))
        await worker.work(tells=True)
        for answer in await asyncio.wait_for(asyncio.gather(polling, submitting), 10):
            assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


class SlowJournal(Journal):
    """What it answers is old by the time it arrives: the command was executed meanwhile, and its only notice came."""

    meanwhile: Callable[[UUID], Awaitable[None]] | None = None

    def look(self, command_ids: Sequence[UUID]) -> "asyncio.Future[Sequence[Receipt | None]]":
        return asyncio.ensure_future(self._look(command_ids))

    async def _look(self, command_ids: Sequence[UUID]) -> Sequence[Receipt | None]:
        answer = await super().look(command_ids)
        if self.meanwhile is not None:
            happen, self.meanwhile = self.meanwhile, None
            await happen(command_ids[0])
        return answer


async def test_an_outcome_cannot_slip_in_between_the_reading_and_the_wait(settings: Settings) -> None:
    """Nothing is read again by and by here: who missed the notice would wait for ever."""
    journal, pool, redis = SlowJournal(settings), engine(settings), connect_redis(settings)
    hints, outcomes = Hints(Queue(redis)), Outcomes(journal)
    submit = Submit(settings, journal, hints, outcomes, Keyring(pool), lambda _: None)

    async def executed_and_told(command_id: UUID) -> None:
        await execute({"settings": settings}, str(command_id))
        outcomes.heard(str(command_id))

    [receipt] = await accept(journal, settings, register(1))
    journal.meanwhile = executed_and_told
    [final] = await asyncio.wait_for(submit.wait([receipt], 10), 15)
    assert final.status == "succeeded"
    await hints.close()
    await journal.close()
    await redis.aclose()
    await pool.dispose()


async def test_a_lost_notice_delays_an_answer_by_a_second_or_so(quiet: Api) -> None:
    async with working(quiet.settings) as worker:
        place = await link(quiet, 1)
        wait = asyncio.create_task(quiet.operator.get(place, params={"wait": "30"}))
        answered, _ = await asyncio.wait([wait], timeout=0.5)
        assert not answered
        await worker.work(tells=False)
        answer = await asyncio.wait_for(wait, 5)
        assert answer.json()["status"] == "succeeded"


async def test_a_notice_that_says_nothing_true_harms_nobody(quiet: Api) -> None:
    place = await link(quiet, 1)
    wait = asyncio.create_task(quiet.operator.get(place, params={"wait": "2"}))
    redis = connect_redis(quiet.settings)
    for notice in ("", " ", "not an id", "\udcff".encode("utf-8", "surrogateescape"), place.rpartition("/")[2]):
        await redis.publish(OUTCOMES_CHANNEL, notice)
    await redis.aclose()
    answer = await wait
    assert (answer.status_code, answer.json()["status"]) == (200, "accepted")


async def test_a_database_that_does_not_answer_is_not_asked_again_meanwhile(
    journal: Journal, settings: Settings, lane: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes_module, "_REREAD_SECONDS_WITHOUT_NOTICES", 0.001)
    [receipt] = await accept(journal, settings, register(1))
    outcomes = Outcomes(journal)
    looking = asyncio.create_task(outcomes.run())
    with outcomes.expect([receipt.id]) as expectation:
        async with lane.transaction():
            await lane.execute("LOCK TABLE commands IN ACCESS EXCLUSIVE MODE")
            assert await expectation.wait(0.5) == {}
            assert len(journal._receipts._reads._waiting) <= 1
        await execute({"settings": settings}, str(receipt.id))
        final = await expectation.wait(10)
    await end([looking])
    assert final[receipt.id].status == "succeeded"


async def test_a_wait_that_is_over_leaves_nothing(journal: Journal, settings: Settings) -> None:
    outcomes = Outcomes(journal)
    receipts = await accept(journal, settings, register(1), register(2))
    with outcomes.expect([receipt.id for receipt in receipts]), outcomes.expect([receipts[0].id]):
        assert len(outcomes._waiting) == 2
    assert not outcomes._waiting


async def link(api: Api, number: int) -> str:
    """Of a command that waits to be executed."""
    return str((await api.send(register(number)))["links"]["self"])


async def accepted(api: Api, count: int) -> bool:
    return await api.count("status = 'accepted'") == count
