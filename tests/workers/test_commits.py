"""Transactions side by side and at their end: no deadlocks, effects with their outcome, unknown commits, one order."""

import asyncio
from functools import partial

import asyncpg
import pytest

from storage.journal.accept import Journal
from storage.journal.receipts import Receipt
from storage.postgres.connection import Connection, connect
from storage.settings import Settings
from tests.commits import Wire, outcomes_refused, wire_to
from tests.deadline import eventually
from tests.installation import connected
from tests.journal import accept, statuses
from tests.market import TON, buy, fund, receive, register, set_price, transfer
from tests.workers.test_lanes import ALL, BUYER, SELLER, drain, prepare, proved
from workers.batch import run_batch
from workers.lanes import Lanes

TURNS = 5
USERS = range(1, 41)
KEPT = 21
"""Somebody else keeps the accounts from here on."""

_WAITING_LANES = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'souk lane%' AND wait_event_type = 'Lock'
"""
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


async def test_batches_over_the_same_accounts_never_deadlock(journal: Journal, settings: Settings) -> None:
    """Two lanes at a time buy forty items of forty users. Somebody keeps the last accounts until both wait, so each has
    locked what it could before they go on."""
    halves = [{0: 0, 1: 0}, {2: 0, 3: 0}]
    lanes = [await connect(settings, f"lane {number}", timeout_seconds=30, pinned_plans=True) for number in range(2)]
    await accept(journal, settings, *map(register, USERS))
    await accept(journal, settings, *map(fund, USERS))
    await accept(journal, settings, *(receive(item, item) for item in USERS))
    await drain(lanes[0], settings)
    for turn in range(TURNS):
        owners = {item: (item + turn - 1) % len(USERS) + 1 for item in USERS}
        await accept(journal, settings, *(set_price(owner, item) for item, owner in owners.items()))
        await drain(lanes[0], settings)
        bought = await accept(journal, settings, *(buy(owner % len(USERS) + 1, item) for item, owner in owners.items()))
        async with connected(settings) as keeper, connected(settings) as observer:

            async def both_wait(observer: Connection = observer) -> bool:
                return bool(await observer.fetchval(_WAITING_LANES) == 2)

            async with keeper.transaction():
                await keeper.execute("SELECT 1 FROM accounts WHERE id >= $1 FOR UPDATE", KEPT)
                batches = [
                    asyncio.create_task(run_batch(lane, settings, fences, 100))
                    for lane, fences in zip(lanes, halves, strict=True)
                ]
                await eventually(both_wait, claim="the lanes do not meet")
            await asyncio.gather(*batches)
            assert set(await statuses(journal, bought)) == {"succeeded"}
            assert await observer.fetchval(_DEADLOCKS) == 0
    for lane in lanes:
        await lane.close()
    await proved(settings)


async def test_there_are_no_effects_without_their_outcome(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    await prepare(journal, lane, settings, 1)
    receipts = await accept(journal, settings, buy(BUYER, 1))
    before = await _effects(lane)
    async with outcomes_refused(settings):
        with pytest.raises(asyncpg.RaiseError):
            await run_batch(lane, settings, ALL, 100)
    assert await _effects(lane) == before
    await drain(lane, settings)
    assert await statuses(journal, receipts) == ["succeeded"]
    await proved(settings)


async def test_what_was_committed_without_an_answer_is_not_done_again(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    await prepare(journal, lane, settings, 2)
    async with wire_to(settings) as wire:
        lanes = Lanes(wire.settings, lambda _: None)
        lanes.fences.update(ALL)
        running = asyncio.create_task(lanes.run_lane(0))
        for losses, body in enumerate((set_price(SELLER, 1, 2 * TON), buy(BUYER, 2), set_price(SELLER, 1)), 1):
            wire.lose_the_answer_to_a_commit()
            receipts = await accept(journal, settings, body)
            lanes.ring(ALL)
            await eventually(partial(_has_lost, wire, losses))
            # The second is executed when the lane has come to terms with what became of the first.
            receipts += await accept(journal, settings, body)
            lanes.ring(ALL)
            await eventually(partial(_are_final, journal, receipts))
        lanes.stop()
        await running
    effects = "SELECT count(*), count(DISTINCT command_id) FROM events WHERE name IN ('nft.priced', 'nft.sold')"
    assert [tuple(row) for row in await lane.fetch(effects)] == [(7, 7)]
    await proved(settings)


async def test_commands_run_in_the_order_of_the_journal_whatever_the_clock_said(
    journal: Journal, lane: Connection, settings: Settings
) -> None:
    """The database's clock was set back again and again while they were accepted."""
    await accept(journal, settings, register(SELLER), register(BUYER), receive(5, SELLER))
    await drain(lane, settings)
    there_and_back = [transfer(SELLER, 5, BUYER), transfer(BUYER, 5, SELLER)] * 20
    receipts = await accept(journal, settings, *there_and_back)
    await lane.execute("UPDATE commands SET accepted_at = now() - seq * interval '1 second' WHERE status = 'accepted'")
    await drain(lane, settings)
    assert set(await statuses(journal, receipts)) == {"succeeded"}
    await proved(settings)


async def _has_lost(wire: Wire, losses: int) -> bool:
    return wire.lost == losses


async def _are_final(journal: Journal, receipts: list[Receipt]) -> bool:
    return not {"accepted"} & set(await statuses(journal, receipts))


async def _effects(lane: Connection) -> list[str]:
    """Whatever a purchase changes."""
    tables = ("nfts", "accounts", "postings", "events", "deals")
    return [await lane.fetchval(f"SELECT string_agg(t::text, '' ORDER BY t::text) FROM {table} t") for table in tables]
