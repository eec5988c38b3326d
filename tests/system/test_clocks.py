"""Whether something is in time is for the database's clock to say."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.deadline import eventually
from tests.market import TON, fund, receive, register
from tests.system.site import Site

HOUR = 3_600
SELLER, BIDDER, ITEM = 1, 2, 17


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
async def test_the_clock_of_a_worker_decides_nothing(site: Site, seconds: int) -> None:
    worker = site.start("worker", str(seconds), program="tests.system.skewed")
    await site.start_api()
    now = datetime.now(UTC)
    soon, past = (now + timedelta(minutes=30)).isoformat(), (now - timedelta(minutes=1)).isoformat()
    receipts = await site.submit(
        [
            register(SELLER) | {"not_after": soon},
            register(BIDDER) | {"not_after": past},
            register(BIDDER),
            receive(ITEM, SELLER),
            fund(BIDDER, 10 * TON),
            register(3) | {"run_at": soon},
            register(4) | {"run_at": (now + timedelta(seconds=1)).isoformat()},
        ]
    )

    async def all_but_one_are_finished() -> bool:
        return await site.finished() == len(receipts) - 1

    await eventually(all_but_one_are_finished)
    statuses = [(await site.client.get(f"/v1/commands/{receipt['id']}")).json()["status"] for receipt in receipts]
    assert statuses == ["succeeded", "expired", *["succeeded"] * 3, "scheduled", "succeeded"]

    create = {"kind": "auctions.create", "actor": SELLER, "payload": {"nft_id": ITEM, "start_nano": TON}}
    [opened] = await site.submit([create], wait=30)
    auction = {"nft_id": ITEM, "auction_id": opened["result"]["auction_id"]}
    settle = {"kind": "auctions.settle", "actor": BIDDER, "payload": auction}
    bid = {"kind": "auctions.place_bid", "actor": BIDDER, "payload": auction | {"amount_nano": TON}}
    answers = [(await site.submit([body], wait=30))[0] for body in (settle, bid)]
    assert [answer["status"] for answer in answers] == ["rejected", "succeeded"]
    assert await site.value("SELECT count(*) FROM auctions WHERE state = 'active' AND ends_at > now()") == 1

    wrong = "finished_at NOT BETWEEN accepted_at AND now()"
    assert await site.value(f"SELECT count(*) FROM commands WHERE {wrong}") == 0
    assert (
        await site.value("SELECT count(*) FROM events WHERE at NOT BETWEEN now() - interval '1 minute' AND now()") == 0
    )
    assert worker.poll() is None
