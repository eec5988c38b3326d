"""Ending tasks, also those that lose a cancellation."""

import asyncio
from contextlib import suppress

from storage.tasks import end


async def test_a_task_that_swallows_its_cancellation_ends_all_the_same() -> None:
    async def deaf_once() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    await asyncio.wait_for(end([task]), 5)
    assert task.cancelled()


async def test_there_may_be_none_and_some_may_have_ended() -> None:
    await end([])
    done = asyncio.create_task(asyncio.sleep(0))
    await done
    await end([done])
