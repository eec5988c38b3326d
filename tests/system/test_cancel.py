"""Cancelling against workers at work: a command runs, or is cancelled, and whoever asked was told which."""

import asyncio
import random
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deadline import eventually
from tests.installation import Installer
from tests.market import TON, fund, register
from tests.system.site import Site, end, site_of

ROUNDS = 150
AT_ONCE = 25
USER = 1

_EFFECTS = """
SELECT commands.id::text, status, (SELECT count(*) FROM postings WHERE command_id = commands.id),
    (SELECT count(*) FROM events WHERE command_id = commands.id)
FROM commands WHERE kind = 'market.adjust'
"""


def adjust(number: int, **more: Any) -> dict[str, Any]:
    """A nano for the user: whoever counts them knows how many commands ran."""
    payload = {"user_id": USER, "amount_nano": 1, "reason": "race"}
    return {"kind": "market.adjust", "payload": payload, "idempotency_key": f"adjust-{number}", **more}


async def cancel(site: Site, receipt: dict[str, Any]) -> httpx.Response:
    answer = await site.client.delete(receipt["links"]["self"])
    while answer.status_code == 503:
        answer = await site.client.delete(receipt["links"]["self"])
    return answer


async def race(site: Site, numbers: range) -> dict[str, int]:
    """Submits, and cancels at once or a little later; by id, what the cancelling was answered."""
    chance = random.Random(numbers.start)
    answers: dict[str, int] = {}

    async def one(number: int) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=chance.uniform(0, 1.5))
        when = chance.choice(({}, {"run_at": soon.isoformat()}))
        [receipt] = await site.submit([adjust(number, **when)])
        until = chance.uniform(0, 1.5) if when else chance.uniform(0, 0.02)
        await asyncio.sleep(until)  # any moment will do: this is a race
        answer = await cancel(site, receipt)
        told = answer.json() if answer.status_code == 200 else answer.json()["receipt"]
        assert told["id"] == receipt["id"]
        assert (told["status"] == "cancelled") == (answer.status_code == 200)
        answers[receipt["id"]] = answer.status_code

    for first in range(numbers.start, numbers.stop, AT_ONCE):
        await asyncio.gather(*(one(number) for number in range(first, first + AT_ONCE)))
    return answers


async def assert_each_ran_or_was_cancelled(site: Site, answers: dict[str, int]) -> None:
    await eventually(site.all_are_finished)
    found = {row[0]: row[1:] for row in await site.rows(_EFFECTS)}
    assert found.keys() == answers.keys()
    for id_, (status, postings, events) in found.items():
        assert (status, postings, events) == (("cancelled", 0, 0) if answers[id_] == 200 else ("succeeded", 1, 1))
    ran = sum(status == 409 for status in answers.values())
    assert await site.value(f"SELECT available_nano FROM accounts WHERE id = {USER}") == 10 * TON + ran
    assert 0 < ran < len(answers), "it was no race"


@pytest.fixture
async def site(installer: Installer, tmp_path: Path) -> Any:
    async with site_of(await installer.install(partitions=4, lease_seconds=1), tmp_path / "logs") as site:
        site.start_worker()
        await site.start_api()
        await site.succeed([register(USER)])
        await site.succeed([fund(USER, 10 * TON)])
        yield site


async def test_a_command_runs_or_is_cancelled_and_who_cancels_is_told_which(site: Site) -> None:
    await assert_each_ran_or_was_cancelled(site, await race(site, range(ROUNDS)))


async def test_so_it_is_when_workers_are_killed_meanwhile(site: Site) -> None:
    racing = asyncio.create_task(race(site, range(ROUNDS)))
    while not racing.done():
        site.start_worker()
        finished = await site.finished()

        async def went_on(finished: int = finished) -> bool:
            return racing.done() or await site.finished() > finished + 2 * AT_ONCE

        await eventually(went_on)
        await asyncio.to_thread(end, site.processes[-1], signal.SIGKILL)
    site.start_worker()
    await assert_each_ran_or_was_cancelled(site, await racing)
