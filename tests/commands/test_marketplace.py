"""Random histories over all mechanisms against a model that shares nothing with the rules: outcomes, owners, states,
holds, balances and timers are the same after every step.
"""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from commands.outcome import Code
from tests.commands.acts import FAMILIES, Act, acts, random_acts
from tests.commands.invariants import check
from tests.commands.side_by_side import SideBySide

SECONDS = (1, 1, 59, 130, 400, 400, 3_600, 90_000)
PLACES = st.integers(0, 4)
AROUND = (-1, 0, 1, 2)
"""Seconds from a deadline to a command; the last is that of its timer."""


class Marketplace(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.both = SideBySide()

    @rule(act=acts("people"))
    def people(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("items"))
    def items(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("offers"))
    def offers(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("auctions"))
    def auctions(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("presales"))
    def presales(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("trades"))
    def trades(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("money out"))
    def money_out(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("returns"))
    def returns(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("accounts"))
    def accounts(self, act: Act) -> None:
        self.both.act(act)

    @rule(act=acts("channels"))
    def channels(self, act: Act) -> None:
        self.both.act(act)

    @rule(place=PLACES)
    def the_courier_attempts_a_request(self, place: int) -> None:
        self.both.attempt(place)

    @rule(seconds=st.sampled_from(SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.both.pass_time(seconds)

    @rule(place=PLACES, seconds=st.sampled_from(AROUND))
    def a_deadline_comes(self, place: int, seconds: float) -> None:
        self.both.pass_to_deadline(place, seconds)

    @invariant()
    def the_world_is_as_predicted(self) -> None:
        self.both.look()
        check(self.both.world)


TestMarketplace = Marketplace.TestCase
TestMarketplace.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def live(chance: random.Random, steps: int) -> SideBySide:
    """A long random history, looked at after every step."""
    both = SideBySide()
    for act in random_acts(chance, steps):
        match chance.randrange(25):
            case 0 | 1:
                both.pass_time(chance.choice(SECONDS))
            case 2 | 3:
                both.pass_to_deadline(chance.randrange(5), chance.choice(AROUND))
            case 4:
                both.attempt(chance.randrange(3))
            case _:
                both.act(act)
        both.look()
    check(both.world)
    return both


def test_long_histories_go_as_predicted_and_see_nearly_everything() -> None:
    """Every command succeeds in some, and all but a few rejection codes come up."""
    seen = {what for seed in range(80) for what in live(random.Random(seed), 120).seen}
    assert {kind for kind, outcome in seen if outcome == "succeeded"} == {
        kind.replace("clear_price", "set_price") for kinds in FAMILIES.values() for kind in kinds
    }
    assert len({code.name for code in Code} - {outcome for _, outcome in seen}) <= 8
