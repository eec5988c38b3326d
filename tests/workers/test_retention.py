"""What is old is let go: keys, commands, the log of calls; and what must stay stays."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from storage.journal.accept import Journal, KeyReused
from storage.journal.entry import Entry
from storage.journal.receipts import Receipt
from storage.journal.redrive import failed, redrive
from storage.journal.retire import _CALLS, _COMMANDS, _KEYS, expire_keys, forget_calls, retire_commands, statement
from storage.postgres.connection import Connection, engine
from storage.settings import Settings
from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.journal import submission
from tests.market import buy, register
from workers.services.retention import Retention
from workers.worker import execute


def ago(days: float, moment: Entry) -> Entry:
    """The same, sent so long ago."""
    shift = int(timedelta(days=days) / timedelta(milliseconds=1)) << 80
    return moment._replace(id=UUID(int=moment.id.int - shift))


async def accepted(journal: Journal, *submissions: Entry) -> list[Receipt]:
    answers = await journal.accept(submissions)
    receipts = [answer for answer in answers if isinstance(answer, Receipt)]
    assert len(receipts) == len(submissions), answers
    return receipts


async def finish(lane: Connection, receipts: list[Receipt], days_ago: float, status: str = "succeeded") -> None:
    """As if executed so long ago."""
    await lane.execute(
        "UPDATE commands SET status = $3, finished_at = now() - $2::interval WHERE id = ANY($1::uuid[])",
        [receipt.id for receipt in receipts],
        timedelta(days=days_ago),
        status,
    )


async def old(
    journal: Journal, settings: Settings, lane: Connection, days_ago: float, count: int = 1, *, key: str | None = None
) -> list[Receipt]:
    """Commands that were sent and executed so long ago; the key, if any, with the number of each."""
    sent = [
        ago(days_ago, submission(settings, register(number), key=key and f"{key} {number}"))
        for number in range(1, count + 1)
    ]
    receipts = await accepted(journal, *sent)
    await finish(lane, receipts, days_ago)
    return receipts


async def count(lane: Connection, table: str, where: str = "true") -> int:
    return int(await lane.fetchval(f"SELECT count(*) FROM {table} WHERE {where}"))


@pytest.fixture
async def forgetful(installer: Installer) -> Settings:
    return await installer.install(keep_commands_days=60)


@pytest.fixture
async def settings(forgetful: Settings) -> Settings:
    return forgetful


def turn(settings: Settings, step_max: int = 1_000) -> Retention:
    return Retention(settings, turn_seconds=0.01, pace_seconds=0, step_max=step_max)


# -- keys


async def test_a_key_is_new_again_after_its_days(journal: Journal, settings: Settings, lane: Connection) -> None:
    [expired], [kept] = [await old(journal, settings, lane, days, key=f"{days} days") for days in (30.01, 29.99)]
    await turn(settings).turn()
    other = buy(1, 2) | {"actor": None}
    [fresh, refused] = await journal.accept(
        [submission(settings, other, key="30.01 days 1"), submission(settings, other, key="29.99 days 1")]
    )
    assert isinstance(fresh, Receipt)
    assert not fresh.replayed
    assert fresh.id != expired.id
    assert isinstance(refused, KeyReused)
    [again] = await accepted(journal, submission(settings, register(1), key="29.99 days 1"))
    assert (again.id, again.replayed) == (kept.id, True)


async def test_how_long_is_a_setting(installer: Installer) -> None:
    settings = await installer.install(idempotency_days=1)
    journal = Journal(settings)
    async with connected(settings) as lane:
        await old(journal, settings, lane, 1.1, key="k")
        await expire_keys(lane, settings)
        assert await count(lane, "commands", "idempotency_key IS NULL") == 1
    await journal.close()


async def test_a_key_outlives_its_days_while_its_command_is_unfinished(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    later = datetime.now(UTC) + timedelta(days=10)
    sent = ago(40, submission(settings, register(1), key="payday", run_at=later))
    [scheduled] = await accepted(journal, sent)
    await turn(settings).turn()
    [again] = await accepted(journal, submission(settings, register(1), key="payday", run_at=later))
    assert (again.id, again.replayed) == (scheduled.id, True)


async def test_keys_are_expired_in_bounded_steps_and_each_row_is_looked_at_once(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    await old(journal, settings, lane, 31, 25, key="many")
    steps = [await expire_keys(lane, settings, 10) for _ in range(4)]
    assert steps == [(10, 10), (10, 10), (5, 5), (0, 0)]
    await old(journal, settings, lane, 30.5, 3, key="more")
    assert await expire_keys(lane, settings, 10) == (3, 3)


# -- commands


async def test_a_finished_command_goes_to_the_archive_and_its_receipt_stays_the_same(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    [mine] = await accepted(journal, ago(61, submission(settings, buy(1, 2))))
    await lane.execute(
        "UPDATE commands SET status = 'rejected', rejection = '{\"code\": \"NFT_NOT_FOUND\"}',"
        " finished_at = now() - interval '61 days' WHERE id = $1",
        mine.id,
    )
    before, row = await journal.read(mine.id), await lane.fetchrow("SELECT * FROM commands WHERE id = $1", mine.id)
    await turn(settings).turn()
    assert await count(lane, "commands") == 0
    assert await journal.read(mine.id) == before
    archived = await lane.fetchrow("SELECT * FROM archived_commands WHERE id = $1", mine.id)
    assert row is not None
    assert archived is not None
    assert dict(archived).items() <= dict(row).items()
    assert await journal.look([mine.id, mine.id, ago(1, submission(settings, register(1))).id]) == [
        before,
        before,
        None,
    ]


async def test_a_command_is_deleted_where_nothing_is_archived(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    [gone] = await old(journal, settings, lane, 61)
    [kept] = await old(journal, settings, lane, 59)
    await turn(settings.model_copy(update={"archive_commands": False})).turn()
    assert await journal.look([gone.id, kept.id]) == [None, await journal.read(kept.id)]
    assert await count(lane, "archived_commands") == 0
    assert await lane.fetchval("SELECT position FROM maintenance WHERE name = 'deleted'") == gone.id


async def test_nothing_is_let_go_unless_asked(journal: Journal, settings: Settings, lane: Connection) -> None:
    await old(journal, settings, lane, 20_000)
    await turn(settings.model_copy(update={"keep_commands_days": None})).turn()
    assert await count(lane, "commands") == 1


async def test_what_is_not_done_with_stays(journal: Journal, settings: Settings, lane: Connection) -> None:
    waiting, scheduled, recent, broken, sealed = await accepted(
        journal,
        *(ago(90, submission(settings, register(number))) for number in (1,)),
        ago(90, submission(settings, register(2), run_at=datetime.now(UTC) + timedelta(days=1))),
        *(ago(90, submission(settings, register(number))) for number in (3, 4, 5)),
    )
    await finish(lane, [recent], 59)
    await finish(lane, [broken], 61, "failed")
    await finish(lane, [sealed], 61)
    await lane.execute("UPDATE commands SET secrets = '\\x00' WHERE id = $1", sealed.id)
    await turn(settings).turn()
    kept = {row["id"] for row in await lane.fetch("SELECT id FROM commands")}
    assert kept == {receipt.id for receipt in (waiting, scheduled, recent, broken, sealed)}
    pool = engine(settings)
    assert [row["id"] for row in await failed(pool)] == [broken.id]
    assert await redrive(pool, [broken.id]) == [broken.id]
    await pool.dispose()


async def test_what_finishes_late_is_found_later(journal: Journal, settings: Settings, lane: Connection) -> None:
    """Its place in the walk was passed by before it finished."""
    [late] = await accepted(journal, ago(90, submission(settings, register(1))))
    others = await old(journal, settings, lane, 80, 25)
    await turn(settings, 10).turn()
    assert await count(lane, "archived_commands") == len(others)
    await finish(lane, [late], 61)
    await turn(settings, 10).turn()
    assert await count(lane, "commands") == 0


async def test_what_is_left_behind_does_not_keep_the_walk_from_the_rest(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    await accepted(journal, *(ago(90, submission(settings, register(number))) for number in range(1, 26)))
    done = await old(journal, settings, lane, 80, 25)
    await asyncio.wait_for(turn(settings, 10).turn(), 20)
    assert (await count(lane, "archived_commands"), await count(lane, "commands")) == (len(done), 25)


async def test_a_command_that_came_twice_is_archived_as_it_was_first(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    [first] = await old(journal, settings, lane, 61)
    await retire_commands(lane, settings)
    before = await journal.read(first.id)
    await accepted(journal, ago(61, submission(settings, register(1)))._replace(id=first.id))
    await finish(lane, [first], 61, "rejected")
    await retire_commands(lane, settings)
    assert await journal.read(first.id) == before
    assert await count(lane, "commands") == 0


# -- the log of calls


async def test_calls_are_forgotten_with_commands_unless_their_request_is_open(
    settings: Settings, lane: Connection
) -> None:
    old_id, open_id = (ago(61, submission(settings, register(number))).id for number in (1, 2))
    recent_id = submission(settings, register(3)).id
    for reference, closed in ((old_id, True), (open_id, False), (recent_id, True)):
        days = 0 if reference == recent_id else 61
        await lane.execute(
            "INSERT INTO gateway_requests (reference, op, account, body, names, state, attempts, opened_at, closed_at)"
            " VALUES ($1, 'ton.pay', 'wallet', '{}', '{}', $2, 2, now(), $3)",
            reference,
            "done" if closed else "unknown",
            datetime.now(UTC) if closed else None,
        )
        await lane.execute(
            "INSERT INTO gateway_log (reference, number, op, call, at)"
            " SELECT $1, number, 'ton.pay', 'perform', now() - $2::interval FROM generate_series(1, 2) AS number",
            reference,
            timedelta(days=days),
        )
    await forget_calls(lane, settings, 1)  # a step may end between the calls of one request
    await turn(settings, 1).turn()
    await turn(settings).turn()
    rows = await lane.fetch("SELECT DISTINCT reference FROM gateway_log")
    assert {row["reference"] for row in rows} == {open_id, recent_id}


# -- the service


async def test_workers_that_let_go_at_once_do_each_row_once_and_wait_for_nobody(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    receipts = await old(journal, settings, lane, 61, 200, key="many")
    await asyncio.gather(*(turn(settings, 10).turn() for _ in range(4)))
    assert await count(lane, "archived_commands") == len(receipts)
    async with connected(settings) as other, other.transaction():
        await other.execute("SELECT 1 FROM maintenance FOR UPDATE")
        await old(journal, settings, lane, 61, 5)
        await asyncio.wait_for(turn(settings).turn(), 5)
        assert await count(lane, "commands") == 5


async def test_the_service_turns_again_and_outlives_trouble(
    journal: Journal, settings: Settings, lane: Connection
) -> None:
    service = asyncio.create_task(turn(settings).run())
    for days in (70, 65):
        await lane.execute("ALTER TABLE maintenance RENAME TO elsewhere")
        await old(journal, settings, lane, days, 3)
        await asyncio.sleep(0)
        await lane.execute("ALTER TABLE elsewhere RENAME TO maintenance")

        async def all_are_gone() -> bool:
            return await count(lane, "commands") == 0

        await eventually(all_are_gone)
    assert not service.done()
    service.cancel()


PLANNED = {"keys": _KEYS, "commands": _COMMANDS, "gateway_log": _CALLS}


@pytest.mark.parametrize("name", PLANNED)
async def test_a_step_costs_no_more_than_the_rows_it_looks_at(settings: Settings, lane: Connection, name: str) -> None:
    """Whatever the size of the table: the rows come in the order of the primary key, from the place on."""
    await lane.execute(
        "INSERT INTO commands (id, kind, asset, partition, payload, fingerprint, status, accepted_at, finished_at,"
        "   idempotency_key)"
        " SELECT ('0190' || lpad(to_hex(number), 28, '0'))::uuid, 'x', 'x', 0, '{}', '', 'succeeded', now(),"
        "   now() - interval '61 days', number FROM generate_series(1, 20000) AS number"
    )
    await lane.execute(
        "INSERT INTO gateway_log (reference, number, op, call, at)"
        " SELECT id, 1, 'x', 'lookup', finished_at FROM commands"
    )
    await lane.execute("ANALYZE commands; ANALYZE gateway_log")
    types, arguments = ("integer, boolean", "60, true") if name == "commands" else ("integer", "60")
    await lane.execute(f"PREPARE step({types}) AS {statement(PLANNED[name])}")
    plan = await lane.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE step({arguments})")
    nodes = list(flat(json.loads(plan)[0]["Plan"]))
    table = PLANNED[name]["table"]
    scans = [node for node in nodes if node["Node Type"].endswith("Scan") and node.get("Relation Name") == table]
    assert len(scans) == 2  # what is looked at, and what of it is changed
    assert {node["Index Name"] for node in scans} == {f"{table}_pkey"}
    assert [node["Actual Rows"] * node["Actual Loops"] for node in scans] == [1_000, 1_000]
    assert nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"] < 30 * 1_000


def flat(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from flat(child)


# -- in the life of a worker


async def test_what_was_let_go_may_come_again(journal: Journal, settings: Settings, lane: Connection) -> None:
    [first] = await old(journal, settings, lane, 61, key="k")
    await turn(settings).turn()
    [second] = await accepted(journal, submission(settings, register(1), key="k 1"))
    await execute({"settings": settings}, str(second.id))
    receipt = await journal.read(second.id)
    assert receipt is not None
    assert (receipt.status, receipt.id == first.id) == ("succeeded", False)
