"""Gathering: nobody waits for a timer, nobody gets another's answer."""

import asyncio
from collections.abc import Sequence

import pytest

from storage.postgres.group_commit import Gather


class Flushes:
    """Records what was flushed; each flush waits to be let through."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def __call__(self, items: list[int]) -> Sequence[int]:
        self.sizes.append(len(items))
        self.begun.set()
        await self.gate.wait()
        if -1 in items:
            raise RuntimeError
        return [10 * item for item in items]


async def test_a_lone_item_is_flushed_at_once() -> None:
    flushes = Flushes()
    flushes.gate.set()
    assert await Gather(flushes, 10).add([4]) == [40]


async def test_what_comes_meanwhile_goes_together_and_each_gets_its_own() -> None:
    flushes = Flushes()
    gather = Gather(flushes, 100)
    first = gather.add([1])
    await flushes.begun.wait()
    others = [gather.add([number, number + 1]) for number in range(20)]
    flushes.gate.set()
    assert await first == [10]
    assert [await other for other in others] == [[10 * number, 10 * number + 10] for number in range(20)]
    assert flushes.sizes == [1, 40]


async def test_a_flush_is_bounded() -> None:
    flushes = Flushes()
    gather = Gather(flushes, 5)
    waiting = [gather.add([1, 2]) for _ in range(5)]
    waiting.append(gather.add(list(range(9))))
    flushes.gate.set()
    await asyncio.gather(*waiting)
    assert flushes.sizes == [4, 4, 2, 9]


async def test_a_failure_reaches_everybody_of_its_flush_and_nobody_else() -> None:
    flushes = Flushes()
    gather = Gather(flushes, 3)
    doomed = [gather.add([1]), gather.add([-1])]
    later = gather.add([2, 3])
    flushes.gate.set()
    for future in doomed:
        with pytest.raises(RuntimeError):
            await future
    assert await later == [20, 30]


async def test_a_caller_who_left_harms_nobody() -> None:
    flushes = Flushes()
    gather = Gather(flushes, 10)
    gone, stays = gather.add([1]), gather.add([2])
    gone.cancel()
    flushes.gate.set()
    assert await stays == [20]
    await gather.close()


async def test_what_is_abandoned_ends_unanswered() -> None:
    flushes = Flushes()
    gather = Gather(flushes, 10)
    first = gather.add([1])
    await flushes.begun.wait()
    await gather.abandon()
    assert not first.done()
