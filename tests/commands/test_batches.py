"""A batch of n commands, of all mechanisms, is worth n batches of one: the same outcomes and the same world."""

import random
from copy import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.commands.acts import FAMILIES, Act, acts, random_acts
from tests.commands.side_by_side import SideBySide, command_of
from tests.commands.world import World

BATCH_MAX = 12
SECONDS = (0, 0, 0, 1, 130, 400, 3_600, 90_000)

Step = tuple[int, list[Act]]
"""Some time passes, then commands come, all at one moment."""
ANY_ACT = st.sampled_from(sorted(FAMILIES)).flatmap(acts)


@given(st.lists(st.tuples(st.sampled_from(SECONDS), st.lists(ANY_ACT, max_size=BATCH_MAX)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_worth_as_many_batches_of_one(history: list[Step]) -> None:
    compare(history)


def test_long_histories_do_not_depend_on_batches() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        drawn = iter(random_acts(chance, 150))
        history: list[Step] = []
        while step := [act for _, act in zip(range(chance.randint(1, BATCH_MAX)), drawn, strict=False)]:
            history.append((chance.choice(SECONDS), step))
        compare(history)


def compare(history: list[Step]) -> None:
    """Batches take no time here, so that even the moments are the same."""
    both = SideBySide(batch_seconds=0)
    batched = fork(both.world)
    for seconds, some in history:
        both.pass_time(seconds)
        batched.advance(seconds)
        sent = [both.act(act) for act in some]
        outcomes = batched.run(*((command_of(command), command.actor) for command, _ in sent)) if sent else []
        assert outcomes == [outcome for _, outcome in sent]
        assert batched.rows == both.world.rows
        assert batched.records == both.world.records
        assert batched.timers == both.world.timers


def fork(world: World) -> World:
    other = copy(world)
    other.rows, other.records, other.timers = world.rows.copy(), world.records.copy(), world.timers.copy()
    return other
