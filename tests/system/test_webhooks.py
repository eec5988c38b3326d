"""Webhooks of a whole site: real workers, one of which dies at the worst moment."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tests.deadline import eventually
from tests.installation import Installer
from tests.market import register
from tests.receiver import OK, Seen, a_receiver
from tests.system.site import Site, end, site_of


@pytest.fixture
async def site(installer: Installer, tmp_path: Path) -> AsyncIterator[Site]:
    settings = await installer.install(
        partitions=8,
        lease_seconds=1.0,
        secret_key=SecretStr(Fernet.generate_key().decode()),
        webhook_private=True,
        webhook_timeout_seconds=1.0,
        webhook_backoff_seconds=[0.1],
    )
    async with site_of(settings, tmp_path / "logs") as site:
        yield site


async def endpoint(site: Site, url: str, *topics: str) -> dict[str, Any]:
    response = await site.client.post("/v1/webhooks", json={"url": url, "topics": topics})
    assert response.status_code == 201, response.text
    webhook: dict[str, Any] = response.json()
    return webhook


async def test_a_worker_killed_between_sending_and_noting_repeats_under_the_same_id_and_loses_nothing(
    site: Site,
) -> None:
    await site.start_api()
    worker = site.start_worker()
    async with a_receiver() as receiver:
        webhook = await endpoint(site, receiver.url, "ops")

        async def dies_at_the_third(seen: Seen, writer: asyncio.StreamWriter) -> None:
            if len(receiver.seen) == 3:
                end(worker, signal.SIGKILL)  # what it sent is here, and it hears no answer
            writer.write(OK)

        receiver.respond = dies_at_the_third
        await site.submit([register(user) for user in range(1, 11)])

        async def dead() -> bool:
            return worker.poll() is not None

        await eventually(dead)
        for _ in range(2):
            site.start_worker()

        async def all_delivered() -> bool:
            return (await site.rows("SELECT state, count(*) FROM deliveries GROUP BY state")) == [("delivered", 10)]

        await eventually(all_delivered, seconds=60)
        events = await site.rows(
            "SELECT txid::text || '-' || id FROM events WHERE 'ops' = ANY(topics) ORDER BY txid, id"
        )
        places = [seen.place for seen in receiver.seen]
        assert [place for number, place in enumerate(places) if place not in places[:number]] == [
            row[0] for row in events
        ]
        assert len(places) == 11
        assert receiver.seen[2].id == receiver.seen[3].id
        assert all(seen.verified(webhook["secret"]) for seen in receiver.seen)
        log = (await site.client.get(webhook["links"]["deliveries"])).json()["items"]
        assert [entry["attempts"] for entry in log[::-1]] == [1, 1, 2, *[1] * 7]


async def test_who_sent_a_command_is_told_what_came_of_it(site: Site) -> None:
    await site.start_api()
    site.start_worker()
    async with a_receiver() as receiver:
        await endpoint(site, receiver.url, "commands")
        users = iter(range(1, 1_000))
        sent: set[str] = set()

        async def told() -> bool:  # of those sent from some moment on
            [receipt] = await site.submit([register(next(users))], wait=10)
            sent.add(receipt["id"])
            return bool(receiver.seen)

        await eventually(told)
        fields = receiver.seen[0].body["data"]["fields"]
        assert fields["id"] in sent
        assert (fields["kind"], fields["status"]) == ("users.register", "succeeded")
