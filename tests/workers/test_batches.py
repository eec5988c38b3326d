"""Batches of commands of all mechanisms on a real database: one statement writes what the rules decided in memory, and
as much as batches of one would have written.
"""

import random
from collections import Counter

import pytest

from commands.book import Event, Posting
from storage.audit import audit
from storage.postgres.connection import connect, engine
from storage.settings import Settings
from tests.chronicle import Chronicle, imagine, verdict, verdict_of
from tests.commands.side_by_side import TERMS
from tests.installation import Installer

COMMANDS = 300


async def sound(settings: Settings) -> None:
    pool = engine(settings)
    findings = await audit(pool, settings)
    await pool.dispose()
    assert [finding for finding in findings if finding.broken] == []


@pytest.mark.parametrize(("batch_max", "singly"), [(1, True), (12, False), (60, False)])
async def test_the_database_keeps_what_the_rules_decide(installer: Installer, batch_max: int, singly: bool) -> None:
    """In one partition, so that commands whose documents were not announced keep the others waiting."""
    both, steps = imagine(random.Random(batch_max), COMMANDS, batch_max)
    settings = await installer.install(partitions=1, **TERMS.model_dump())
    lane = await connect(settings, "test", timeout_seconds=10, pinned_plans=True)
    chronicle = Chronicle(lane, settings)
    await chronicle.live(steps, singly=singly)

    journal = {row["id"]: row for row in await chronicle.journal()}
    for step in steps:
        for id_, command, outcome in step.sent:
            assert verdict(journal[id_]) == verdict_of(outcome), command
    assert await chronicle.documents() == both.world.rows
    records = await chronicle.records()
    assert Counter(row[1:10] for row in records["postings"]) == Counter(row[1:] for row in both.world.of(Posting))
    told = Counter((event.name, event.topics) for event in both.world.of(Event))
    assert Counter((row[1], tuple(row[2])) for row in records["events"]) == told
    await lane.close()
    await sound(settings)
