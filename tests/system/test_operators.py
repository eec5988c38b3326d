"""What operators do offline and after bugs: another number of partitions, failed commands run again."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from storage.journal.accept import Journal
from storage.journal.entry import partition_of
from storage.journal.repartition import AtWork, repartition
from tests.deadline import eventually
from tests.installation import connected
from tests.journal import accept
from tests.market import fund, receive, register, set_price
from tests.system.site import Site, end
from tests.system.upstack import SMALL, Up

OWNER = 1
ITEMS = range(1, 41)
SETUP = [register(OWNER), fund(OWNER), *(receive(item, OWNER) for item in ITEMS)]


async def _spread(site: Site) -> dict[str, int]:
    return {
        row[0]: row[1] for row in await site.rows("SELECT asset, partition FROM commands WHERE status = 'accepted'")
    }


@pytest.mark.parametrize("count", [3, 21])
async def test_waiting_commands_move_to_their_new_partitions_and_are_executed_there(site: Site, count: int) -> None:
    journal = Journal(site.settings)
    await accept(journal, site.settings, *SETUP)
    await journal.close()
    before, moved = await repartition(site.engine, site.settings, count)
    spread = await _spread(site)
    assert before == site.settings.partitions
    assert moved == sum(partition_of(asset, count) != partition_of(asset, before) for asset in spread) + 1
    assert spread == {asset: partition_of(asset, count) for asset in spread}
    assert [row[0] for row in await site.rows("SELECT id FROM partitions ORDER BY id")] == list(range(count))

    site.settings = site.settings.model_copy(update={"partitions": count})
    site.start_worker()
    await eventually(site.all_are_finished)
    assert await site.value("SELECT count(*) FROM commands WHERE status = 'succeeded'") == len(SETUP)
    await site.assert_sound()


async def test_nothing_is_repartitioned_while_a_process_works(site: Site) -> None:
    worker = site.start_worker()

    async def at_work() -> bool:
        return None not in await site.owners()

    await eventually(at_work)
    with pytest.raises(AtWork):
        await repartition(site.engine, site.settings, 3)
    end(worker, signal.SIGTERM)
    assert await site.value("SELECT count(*) FROM partitions") == site.settings.partitions
    await repartition(site.engine, site.settings, 3)


async def test_a_repartition_that_is_cut_off_has_not_happened(site: Site) -> None:
    journal = Journal(site.settings)
    await accept(journal, site.settings, *SETUP)
    await journal.close()
    spread = await _spread(site)
    async with connected(site.settings) as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM commands FOR UPDATE")
        process = site.start("repartition", "3")

        async def waits() -> bool:
            return bool(await site.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

        await eventually(waits)
        end(process, signal.SIGKILL)
    assert await _spread(site) == spread
    assert await site.value("SELECT count(*) FROM partitions") == site.settings.partitions


async def test_a_process_of_the_old_number_does_nothing_any_more(site: Site) -> None:
    await repartition(site.engine, site.settings, 3)
    worker = site.start_worker()
    assert await asyncio.to_thread(worker.wait) == 1
    assert "SOUK_PARTITIONS=3" in site.log()


async def test_a_failed_command_is_shown_and_run_again(site: Site) -> None:
    journal = Journal(site.settings)
    receipts = await accept(journal, site.settings, *SETUP, set_price(OWNER, 1))
    await journal.close()
    await site.rows("ALTER TABLE nfts ADD CONSTRAINT nothing_is_listed CHECK (state <> 'listed')")
    site.start_worker()
    await eventually(site.all_are_finished)
    shown = json.loads(site.output("failed", "--json"))
    assert [(row["id"], row["kind"], row["asset"]) for row in shown] == [
        (str(receipts[-1].id), "nft.set_price", "nft:1")
    ]
    assert "nothing_is_listed" in shown[0]["error"]
    assert "nothing_is_listed" in site.output("failed")

    await site.rows("ALTER TABLE nfts DROP CONSTRAINT nothing_is_listed")
    assert json.loads(site.output("redrive", "--all")) == {"redriven": [str(receipts[-1].id)]}
    await eventually(site.all_are_finished)
    assert await site.value("SELECT state FROM nfts WHERE id = 1") == "listed"
    assert json.loads(site.output("failed", "--json")) == []
    with pytest.raises(AssertionError, match="not failed, or unknown"):
        site.output("redrive", str(receipts[-1].id))


def test_the_embedded_stack_is_repartitioned_while_it_is_down(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Up(data_dir, *SMALL) as up:
        refused = up.souk("repartition", "7")
        assert (refused.returncode, refused.stderr) == (1, "souk: an API or a worker is at work: stop them all first\n")
    changed = up.souk("repartition", "7")
    assert changed.returncode == 0, changed.stderr
    assert json.loads(changed.stdout)["partitions"] == 7
    with Up(data_dir, "--workers", "1", "--partitions", "7") as up:
        assert len(json.loads(up.souk("queues", "--json").stdout)) == 7
