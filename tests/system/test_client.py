"""The API is killed under load again and again: clients of ours recover by themselves, each command is accounted for.

Nothing here tries again: the client does, with keys of its own making, and its stream goes on where it was cut.
"""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from souk_client import Client, Event, Receipt, Submission
from tests.deadline import eventually
from tests.system.site import Site, Trades

DEATHS = 2
_MARKET = "SELECT txid || '-' || id FROM events WHERE 'market' = ANY(topics) ORDER BY txid, id"


class Through:
    """Sends what it is given through the client, as bodies or one by one, and keeps the receipts."""

    def __init__(self, souk: Client, *, together: bool) -> None:
        self._souk = souk
        self._together = together
        self.receipts: list[Receipt] = []

    async def submit(self, commands: Sequence[Mapping[str, Any]]) -> None:
        """With keys that the client makes."""
        sent = [{name: value for name, value in each.items() if name != "idempotency_key"} for each in commands]
        if self._together:
            submissions = [Submission(**each) for each in sent]  # type: ignore[typeddict-item]
            outcomes = await self._souk.submit_many(submissions, wait=30)
        else:
            outcomes = [await self._souk.submit(**each, wait=30) for each in sent]
        assert all(isinstance(outcome, Receipt) and outcome.succeeded for outcome in outcomes), outcomes
        self.receipts += [outcome for outcome in outcomes if isinstance(outcome, Receipt)]


async def kill_again_and_again(site: Site, commands: int) -> None:
    """Each time when some more of the load is done; another takes its place at once, on the same port."""
    port = site.client.base_url.port
    for number in range(DEATHS):
        target = commands * (number + 1) // (DEATHS + 2)

        async def far_enough(target: int = target) -> bool:
            return await site.finished() >= target

        await eventually(far_enough, 60)
        api = site.processes[-1]
        api.send_signal(signal.SIGKILL)
        api.wait()
        site.start("api", "--port", str(port))


async def listen(souk: Client, heard: list[Event]) -> None:
    async for event in souk.events("market", after="0-0"):
        heard.append(event)  # noqa: PERF401 - it is looked at meanwhile


@pytest.mark.parametrize(("together", "rounds"), [(True, 16), (False, 3)])
async def test_clients_recover_by_themselves_from_the_deaths_of_the_api(
    site: Site, together: bool, rounds: int
) -> None:
    site.start_worker()
    await site.start_api()
    trades = Trades(items=8, users=4, rounds=rounds)
    await trades.prepare(site)
    before = await site.finished()
    heard: list[Event] = []
    async with Client(str(site.client.base_url), site.key) as souk, asyncio.TaskGroup() as group:
        listener = group.create_task(listen(souk, heard))
        killer = group.create_task(kill_again_and_again(site, before + trades.commands_total))
        through = Through(souk, together=together)
        await trades.send(through)
        await killer

        async def all_is_heard() -> bool:
            return len(heard) >= len(await site.rows(_MARKET))

        await eventually(all_is_heard)
        listener.cancel()
    assert len({receipt.id for receipt in through.receipts}) == len(through.receipts) == trades.commands_total
    assert [event.id for event in heard] == [row[0] for row in await site.rows(_MARKET)]
    await trades.assert_each_happened_once_in_order(site)
