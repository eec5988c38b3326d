"""Redis is stopped: no lock is held, and the database carries the commands all the same."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from storage.embedded.servers import EmbeddedRedis
from storage.redis.locks import Locks, LockUnavailable
from storage.redis.queue import connect_redis
from tests.installation import Installer
from tests.market import TON, buy, fund, receive, register, set_price
from tests.system.site import Site, site_of

WAIT_LIMIT_SECONDS = 5
SELLER, BUYER = 1, 2
ONE, OTHERS = 1, range(2, 27)


def to_and_fro(item: int, times: int) -> list[dict[str, Any]]:
    """Commands of an item of which each succeeds only when all before it have been executed, in this order."""
    commands = []
    for number in range(times):
        price = TON + number
        commands += [set_price(SELLER, item, price), buy(BUYER, item, price)]
        commands += [set_price(BUYER, item, price), buy(SELLER, item, price)]
    return commands


async def test_fallback(installer: Installer, tmp_path: Path) -> None:
    settings = await installer.install(partitions=8)
    with EmbeddedRedis(tmp_path) as redis:
        settings = settings.model_copy(update={"redis_url": SecretStr(redis.url)})
        async with (
            site_of(settings, tmp_path / "logs") as site,
            connect_redis(settings) as client,
            Locks(client) as locks,
        ):
            site.start_worker()
            site.start_worker()
            await site.start_api()
            await site.succeed([register(SELLER), register(BUYER), fund(SELLER), fund(BUYER)])
            await site.succeed([receive(item, SELLER) for item in (ONE, *OTHERS)])
            async with locks.hold("counter"):
                pass
            redis.stop()
            hundred = to_and_fro(ONE, 25)
            hundred_more = [command for item in OTHERS for command in to_and_fro(item, 1)]
            attempts, *answers = await asyncio.gather(
                increments(locks), submitted(site, hundred), submitted(site, hundred_more)
            )
            assert attempts == [LockUnavailable] * 3
            assert [len(answer) for answer in answers] == [100, 100]
            assert {receipt["status"] for answer in answers for receipt in answer} == {"succeeded"}
            assert await site.value("SELECT count(*) FROM deals") == 100
            assert await in_order(site, ONE) == [TON + number for number in range(25) for _ in range(4)]
            for item in OTHERS:
                assert await in_order(site, item) == [TON] * 4
            assert redis.process is None, "Redis was not stopped"


async def increments(locks: Locks) -> list[type[Exception]]:
    """How three locked increments are refused; they count to nothing."""
    counter = 0

    async def increment() -> None:
        nonlocal counter
        async with locks.hold("counter", wait_seconds=WAIT_LIMIT_SECONDS):
            counter += 1

    async def attempt() -> type[Exception]:
        async with asyncio.timeout(WAIT_LIMIT_SECONDS):
            with pytest.raises(LockUnavailable) as refusal:
                await increment()
        return refusal.type

    refusals: list[type[Exception]] = await asyncio.gather(*(attempt() for _ in range(3)))
    assert counter == 0
    return refusals


async def submitted(site: Site, commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The final receipts."""
    receipts = await site.submit(commands)
    answers = [await site.client.get(receipt["links"]["self"], params={"wait": "30"}) for receipt in receipts]
    return [answer.json() for answer in answers]


async def in_order(site: Site, item: int) -> list[int]:
    """The prices of the item's effects, in the order in which they were made, which is that of the journal."""
    rows = await site.rows(f"""
        SELECT seq, (commands.payload ->> 'price_nano')::bigint FROM events JOIN commands ON commands.id = command_id
        WHERE name IN ('nft.priced', 'nft.sold') AND asset = 'nft:{item}' ORDER BY events.id
    """)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    return [row[1] for row in rows]
