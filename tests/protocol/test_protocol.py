"""The protocol keeps its promises under every interleaving, and each of its defences is needed for one of them."""

from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.protocol import api, batch, faults, servers, worker
from tests.protocol.defences import DEFENCES, ENOUGH, EVERYTHING, LAYERS, SCOPES
from tests.protocol.invariants import contention
from tests.protocol.search import explore, steps, story, troubles
from tests.protocol.state import WORKERS, State, World, first

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
NEEDED = [name for name, defence in DEFENCES.items() if defence.breaks is not None]
BACKED = [name for name, defence in DEFENCES.items() if defence.breaks is None]


@pytest.mark.parametrize("world", SCOPES["small"], ids=lambda world: f"{world.partitions} partitions")
def test_every_interleaving_with_a_fault_keeps_every_invariant(world: World) -> None:
    found = explore(world)
    assert found.broken is None, story(world, found)
    assert f"| {found.states:,} | {found.steps:,} |" in PAGE


@pytest.mark.parametrize("name", NEEDED)
def test_a_defence_taken_out_breaks_an_invariant(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    world = DEFENCES[name].world._replace(without=frozenset({name}))
    found = explore(world)
    print(story(world, found))  # noqa: T201 - the counterexample is shown by pytest -s
    assert found.broken == DEFENCES[name].breaks, story(world, found)
    assert explore(DEFENCES[name].world).broken is None


@pytest.mark.parametrize("name", BACKED)
def test_a_defence_behind_which_another_stands_may_be_missing(name: str) -> None:
    world = ENOUGH._replace(without=frozenset({name}))
    found = explore(world)
    assert found.broken is None, story(world, found)


@pytest.mark.parametrize("names", LAYERS, ids=lambda names: " and ".join(sorted(names)))
def test_two_defences_taken_out_at_once(names: frozenset[str]) -> None:
    world = ENOUGH._replace(without=names)
    found = explore(world)
    assert found.broken == LAYERS[names], story(world, found)


def test_without_the_lock_nothing_is_broken_but_workers_contend() -> None:
    calm = World(2, 1, 0, frozenset())
    assert explore(calm, never=contention).broken is None
    assert explore(calm._replace(without=frozenset({"lock"}))).broken is None
    assert explore(calm._replace(without=frozenset({"lock"})), never=contention).broken == "nobody contends"


def reached(world: World) -> Iterator[State]:
    """The states of a world, those that are near first."""
    known = {first(world)}
    queue = deque(known)
    while queue:
        state = queue.popleft()
        yield state
        for nexts in (steps(state, world), troubles(state, world)):
            for _, after in nexts:
                if after not in known:
                    known.add(after)
                    queue.append(after)


def test_every_step_and_every_fault_happens() -> None:
    world = World(2, 1, 2, EVERYTHING)
    missing = {
        f"{step.__name__} {number}": partial(step, world=world, number=number)
        for number in WORKERS
        for step in (*worker.STEPS, *batch.STEPS)
        if step not in (worker.sweep, batch.repeat)  # these are steps of weaker protocols
    }
    others = (*api.STEPS, *api.CHOICES, *servers.STEPS, *(fault for sort in faults.SORTS.values() for fault in sort))
    missing |= {step.__name__: partial(step, world=world) for step in others}
    for state in reached(world):
        for name, step in list(missing.items()):
            if any(step(state)):
                del missing[name]
        if not missing:
            return
    assert not missing


@pytest.mark.parametrize("name", DEFENCES)
def test_the_page_tells_what_each_defence_is_for(name: str) -> None:
    assert f"\n| `{name}` | {DEFENCES[name].breaks or 'nothing'} |" in PAGE
