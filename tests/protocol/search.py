"""Breadth-first search through all states, with the shortest way to the first that breaks an invariant.

"Everything accepted ends when faults stop" is checked on the whole graph: from every state, whatever faults led there,
one in which all is done can be reached by steps that need neither fault nor choice. No such step leads out of being
done again. So a fair history, which puts no step off for ever that is possible again and again, ends with all done.
"""

import gc
import itertools
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.protocol import api, batch, faults, servers, worker
from tests.protocol.bells import Step
from tests.protocol.invariants import BREAKS, ENDS, broken_state, broken_step, done
from tests.protocol.state import WORKERS, State, World, first

_OF_WORKERS = (*worker.STEPS, *batch.STEPS)
_OF_OTHERS = (*api.STEPS, *servers.STEPS)


class Found(NamedTuple):
    """What a search found: how many states and steps there are, which invariant breaks, and the shortest way there."""

    states: int
    steps: int
    broken: str | None
    trace: tuple[str, ...]


def steps(state: State, world: World) -> Iterator[Step]:
    """What may happen next if nothing goes wrong."""
    for step in _OF_OTHERS:
        yield from step(state, world)
    for number in WORKERS:
        if state.workers[number].up:
            for of_worker in _OF_WORKERS:
                yield from of_worker(state, world, number)


def troubles(state: State, world: World) -> Iterator[Step]:
    """What may happen besides, and cannot be counted on."""
    for choice in api.CHOICES:
        yield from choice(state, world)
    if state.faults:
        for sort, strikes in faults.SORTS.items():
            if sort in world.sorts:
                for fault in strikes:
                    for label, after in fault(state, world):
                        yield label, after._replace(faults=state.faults - 1)


def explore(world: World, never: Callable[[State, World], str | None] = broken_state) -> Found:
    """Every state of the world, or the shortest way to one of which `never` or a step tells what it breaks."""
    start = first(world)
    numbers = {start: 0}
    parents = array("q", [-1])
    tails, heads = array("q"), array("q")  # of the steps that need no trouble
    queue = deque([start])
    taken = 0
    with uncollected():
        for number in itertools.count():
            if not queue:
                break
            state = queue.popleft()
            for reliable, nexts in ((True, steps(state, world)), (False, troubles(state, world))):
                for label, after in nexts:
                    taken += 1
                    broken = broken_step(state, after)
                    known = numbers.get(after)
                    if known is None:
                        known = numbers[after] = len(parents)
                        parents.append(number)
                        queue.append(after)
                        broken = broken or never(after, world)
                    if broken is not None:
                        way = (*trace(numbers, parents, number, world), label)
                        return Found(len(numbers), taken, broken, way)
                    if reliable:
                        tails.append(number)
                        heads.append(known)
        stuck = first_stuck(numbers, tails, heads)
    if stuck is None:
        return Found(len(numbers), taken, None, ())
    return Found(len(numbers), taken, ENDS, trace(numbers, parents, stuck, world))


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing here is garbage, and to look for some in a million tuples again and again takes as long as the rest."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def trace(numbers: dict[State, int], parents: "array[int]", number: int, world: World) -> tuple[str, ...]:
    """The sentences of the shortest way to a state."""
    states = list(numbers)
    labels: list[str] = []
    while number:
        before, after = states[parents[number]], states[number]
        taken = itertools.chain(steps(before, world), troubles(before, world))
        labels.append(next(label for label, state in taken if state == after))
        number = parents[number]
    return tuple(reversed(labels))


def first_stuck(numbers: dict[State, int], tails: "array[int]", heads: "array[int]") -> int | None:
    """The first state from which no state is reached in which all is done."""
    size = len(numbers)
    starts = array("q", bytes(8 * (size + 1)))
    for head in heads:
        starts[head + 1] += 1
    for place in range(size):
        starts[place + 1] += starts[place]
    into, ends = array("q", bytes(8 * len(heads))), starts[:]
    for tail, head in zip(tails, heads, strict=True):
        into[ends[head]] = tail
        ends[head] += 1
    ended = bytearray(size)
    stack = [number for state, number in numbers.items() if done(state)]
    for number in stack:
        ended[number] = 1
    while stack:
        number = stack.pop()
        for before in into[starts[number] : starts[number + 1]]:
            if not ended[before]:
                ended[before] = 1
                stack.append(before)
    place = ended.find(0)
    return None if place < 0 else place


def story(world: World, found: Found) -> str:
    """What was explored and what came of it, for people."""
    scope = f"{world.partitions} partition(s), {world.clients} client(s), {world.faults} fault(s)"
    if world.faults:
        scope += f" of {', '.join(sorted(world.sorts))}"
    if world.without:
        scope += f"; without {' and '.join(sorted(world.without))}"
    count = f"{found.states:,} states, {found.steps:,} steps"
    if found.broken is None:
        return f"{scope}\n{count}: every invariant holds."
    way = [f"{number:4}. {label}" for number, label in enumerate(found.trace, 1)]
    return "\n".join([scope, f"{count}: broken is '{found.broken}'.", *way, f"   => {BREAKS[found.broken]}"])
