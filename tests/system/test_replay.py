"""The journal is the whole truth: replayed into an empty database it gives every outcome and every row again."""

import random
from collections import Counter
from typing import Any

from commands.outcome import Status
from storage.audit import audit
from storage.postgres.connection import connect, engine
from tests.chronicle import TICK, Chronicle, imagine, verdict
from tests.commands.side_by_side import TERMS
from tests.installation import Installer

COMMANDS = 500
BATCH_MAX = 30


async def test_the_journal_replayed_into_an_empty_database_gives_the_same_marketplace(installer: Installer) -> None:
    """Timers come into being by themselves, under their ids, and are promoted at their places; what couriers did
    outside is no command, so it is told as it was."""
    settings, empty = [await installer.install(**TERMS.model_dump()) for _ in range(2)]
    lane = await connect(settings, "original", timeout_seconds=10, pinned_plans=True)
    original = Chronicle(lane, settings, TICK)
    _, steps = imagine(random.Random(7), COMMANDS, BATCH_MAX)
    await original.live(steps)

    second_lane = await connect(empty, "replayed", timeout_seconds=10, pinned_plans=True)
    replayed = Chronicle(second_lane, empty)
    journal = await original.journal()
    attempted = dict(original.attempted_at)
    for row in journal:
        if row["finished_at"] is None:
            continue
        for reference in [reference for reference, at in attempted.items() if at <= row["finished_at"]]:
            await replayed.attempt(reference)
            del attempted[reference]
        await replayed.promote(row["id"], row["accepted_at"])
        await replayed.copy(row)
        replayed.now = row["finished_at"]
        assert await replayed.execute() == [row["id"]]

    assert _by_id(await replayed.journal()) == _by_id(journal)
    assert await replayed.documents() == await original.documents()
    assert await replayed.records() == await original.records()
    statuses = Counter(row["status"] for row in journal)
    assert statuses.keys() == {Status.SUCCEEDED, Status.REJECTED, Status.SCHEDULED}
    assert min(statuses[status] for status in (Status.SUCCEEDED, Status.REJECTED)) > COMMANDS // 3
    await lane.close()
    await second_lane.close()
    for each in (settings, empty):
        pool = engine(each)
        assert [finding for finding in await audit(pool, each) if finding.broken] == []
        await pool.dispose()


def _by_id(journal: list[dict[str, Any]]) -> dict[Any, Any]:
    return {row["id"]: (row, verdict(row)) for row in journal}
