"""Random histories over all mechanisms against a model that shares nothing with the rules: outcomes, owners, states,
holds, balances and timers are the same after every step.
"""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from commands.command import KINDS, rejection_codes
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


RARE = {
    "accounts.disconnect": {"ACCOUNT_IN_USE"},
    "accounts.send_gift": {"ACCOUNT_NOT_ACTIVE"},
    "accounts.sync": {"USER_BLOCKED"},
    "auctions.create": {"NFT_IN_BUNDLE", "NFT_NOT_AVAILABLE"},
    "auctions.settle": {"USER_BLOCKED"},
    "channels.buy": {"ACCOUNT_NOT_ACTIVE", "USER_BLOCKED"},
    "channels.set_price": {"ACCOUNT_NOT_ACTIVE"},
    "nft.buy": {"NFT_IN_BUNDLE"},
    "nft.receive": {"GIFT_HAS_PRESALE"},
    "nft.return": {"NFT_IN_BUNDLE"},
    "nft.set_price": {"NFT_IN_BUNDLE"},
    "nft.transfer": {"NFT_IN_BUNDLE"},
    "offers.accept": {"INSUFFICIENT_BALANCE", "OFFER_EXPIRED"},
    "offers.create": {"LIMIT_REACHED", "NFT_IN_BUNDLE", "NFT_NOT_AVAILABLE", "OFFER_PRICE_TOO_LOW"},
    "presale.buy": {"PRESALE_ALREADY_BOUGHT"},
    "presale.deliver": {"NFT_ALREADY_IN_CUSTODY", "NFT_RETURN_OPEN", "PRESALE_NOT_AVAILABLE"},
    "trades.accept": {"INSUFFICIENT_BALANCE", "TRADE_REQUIREMENTS_NOT_MET"},
    "trades.create": {"NFT_IN_BUNDLE"},
    "trades.propose": {"LIMIT_REACHED", "NFT_IN_BUNDLE", "NFT_ON_AUCTION"},
    "trades.withdraw_proposal": {"TRADE_NOT_FOUND"},
}
"""Refusals that random histories hardly meet. The tests of each mechanism raise them, in the file of its name."""


def test_long_histories_go_as_predicted_and_meet_every_success_and_every_refusal_but_the_rare_ones() -> None:
    """A code that a kind declares and never raises is found here: no history meets it, and it is not among the rare."""
    seen = {what for seed in range(80) for what in live(random.Random(seed), 120).seen}
    assert {kind for kind, outcome in seen if outcome == "succeeded"} == {
        kind.replace("clear_price", "set_price") for kinds in FAMILIES.values() for kind in kinds
    }
    declared = {(kind, code.name) for kind, command in KINDS.items() for code in rejection_codes(command)}
    assert declared - seen <= {(kind, code) for kind, codes in RARE.items() for code in codes}
