"""Workers let go of what is old, beside their work."""

import asyncio
import signal
from pathlib import Path

from tests.deadline import eventually
from tests.installation import Installer, connected
from tests.market import buy
from tests.system.site import end, site_of


async def test_every_worker_lets_go_of_what_is_old(installer: Installer, tmp_path: Path) -> None:
    async with site_of(await installer.install(keep_commands_days=60), tmp_path) as site:
        await site.start_api()
        sent = [buy(number, 404) | {"idempotency_key": f"key {number}"} for number in range(1, 11)]  # without effect
        receipts = await site.submit(sent)
        first = site.start_worker()
        await eventually(site.all_are_finished)
        assert await asyncio.to_thread(end, first, signal.SIGTERM) == 0
        old, kept = receipts[0]["id"], [receipt["id"] for receipt in receipts[1:]]
        async with connected(site.settings) as connection:
            await connection.execute(
                "UPDATE commands SET id = ('0190' || right(id::text, 32))::uuid,"
                " finished_at = now() - interval '61 days' WHERE id = $1",
                old,
            )
        site.start_worker()

        async def it_is_archived() -> bool:
            return bool(await site.value("SELECT count(*) FROM archived_commands") == 1)

        await eventually(it_is_archived)
        assert {str(id_) for (id_,) in await site.rows("SELECT id FROM commands")} == set(kept)
        again = await site.submit(sent)
        assert [receipt["id"] for receipt in again[1:]] == kept
        assert again[0]["id"] not in (old, *kept)
        await eventually(site.all_are_finished)
