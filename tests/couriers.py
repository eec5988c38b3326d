"""Couriers in this process, as those of so many workers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from storage.redis.locks import Locks
from storage.redis.queue import connect_redis
from storage.settings import Settings
from workers.services.couriers import Couriers


@asynccontextmanager
async def some_couriers(settings: Settings, count: int = 1) -> AsyncIterator[None]:
    """Each with locks of its own, as in a process of its own."""
    redis = connect_redis(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        locks = [await stack.enter_async_context(Locks(redis)) for _ in range(count)]
        tasks = [asyncio.create_task(Couriers(settings, own, lambda _: None).run()) for own in locks]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks), [task.exception() for task in tasks if not task.cancelled()]
