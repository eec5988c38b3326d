"""The protocol keeps its promises under every interleaving, and each of its defences is needed for one of them."""

import pytest

from tests.protocol.defences import DEFENCES, ENOUGH, LAYERS, SCOPES
from tests.protocol.invariants import contention
from tests.protocol.search import explore, story
from tests.protocol.state import World

NEEDED = [name for name, defence in DEFENCES.items() if defence.breaks is not None]
BACKED = [name for name, defence in DEFENCES.items() if defence.breaks is None]


@pytest.mark.parametrize("world", SCOPES["small"], ids=lambda world: f"{world.partitions} partitions")
def test_every_interleaving_with_a_fault_keeps_every_invariant(world: World) -> None:
    found = explore(world)
    assert found.broken is None, story(world, found)


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
