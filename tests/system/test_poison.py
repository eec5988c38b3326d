"""A command that kills its worker is tried a few times, then set aside, and its partition goes on."""

import asyncio
import json
from contextlib import suppress

from storage.journal.accept import Journal
from storage.journal.receipts import Receipt
from tests.deadline import eventually
from tests.journal import accept, submission
from tests.market import fund, receive, register, set_price
from tests.system.poisoned import KIND
from tests.system.site import Site

ITEM, OWNER = 17, 1
DEATHS_MAX = 7


async def test_a_command_that_kills_its_worker_is_set_aside_and_its_neighbours_are_executed(site: Site) -> None:
    journal = Journal(site.settings)
    before = [register(OWNER), fund(OWNER), receive(ITEM, OWNER)]
    receipts = await accept(journal, site.settings, *before, set_price(OWNER, ITEM))
    poison = submission(site.settings, set_price(OWNER, ITEM))._replace(kind=KIND, payload=json.dumps({"nft_id": ITEM}))
    [poisoned] = await journal.accept([poison])
    assert isinstance(poisoned, Receipt)
    receipts += [poisoned, *await accept(journal, site.settings, set_price(OWNER, ITEM), set_price(OWNER, ITEM))]
    deaths = 0

    async def keep_a_worker_alive() -> None:
        nonlocal deaths
        while True:
            worker = site.start("worker", program="tests.system.poisoned")
            while worker.poll() is None:  # noqa: ASYNC110 - a process tells nobody
                await asyncio.sleep(0.05)
            deaths += 1

    keeping = asyncio.create_task(keep_a_worker_alive())
    await eventually(site.all_are_finished, 60)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping

    found = await journal.look([receipt.id for receipt in receipts])
    await journal.close()
    assert [receipt and receipt.status for receipt in found] == [*["succeeded"] * 4, "failed", *["succeeded"] * 2]
    [(error,)] = await site.rows(f"SELECT error FROM commands WHERE id = '{poisoned.id}'")
    assert "workers died" in error
    assert deaths <= DEATHS_MAX
    assert await site.value("SELECT sum(deaths) + sum(cardinality(tried_by)) + count(trying) FROM partitions") == 0
    await site.assert_sound()
