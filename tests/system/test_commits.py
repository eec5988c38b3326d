"""What a worker has done is told when it is committed."""

import asyncio

from redis.asyncio import Redis

from storage.redis.queue import OUTCOMES_CHANNEL, queue_name
from tests.commits import commits_held
from tests.deadline import eventually
from tests.market import register
from tests.system.site import Site

PATIENCE_SECONDS = 0.5


async def test_nothing_is_told_of_a_command_before_it_is_committed(site: Site) -> None:
    """Neither to who waits, nor to who asks, nor is its hint removed."""
    site.start_worker()
    await site.start_api()
    await site.succeed([register(1)])
    redis = Redis.from_url(site.settings.redis_url.get_secret_value())
    async with redis.pubsub() as notices:
        await notices.subscribe(OUTCOMES_CHANNEL)
        while await notices.get_message(timeout=PATIENCE_SECONDS) is not None:
            pass
        async with commits_held(site.settings, "UPDATE") as until_held:
            sent = asyncio.create_task(site.submit([register(2)], wait=30))
            await until_held()
            assert await notices.get_message(timeout=PATIENCE_SECONDS) is None
            assert not sent.done()
            [(id_, partition, status)] = await site.rows(
                "SELECT id, partition, status FROM commands ORDER BY seq DESC LIMIT 1"
            )
            shown = (await site.client.get(f"/v1/commands/{id_}")).json()
            assert status == shown["status"] == "accepted"
            assert await redis.zcard(queue_name(partition)) == 1
        [receipt] = await sent
        assert receipt["status"] == "succeeded"

        async def is_told() -> bool:
            message = await notices.get_message(timeout=PATIENCE_SECONDS)
            return message is not None and str(id_).encode() in message["data"]

        await eventually(is_told)
    await redis.aclose()
