"""The stories of the whole marketplace: the same seed and answers, the same commands; and every outcome foreseen."""

import json
from collections import Counter

import pytest

from commands.command import KINDS
from commands.nft.items import Nft
from loadtest.mix import Mix, weights
from loadtest.pace import Command
from loadtest.stories.stage import TRADERS_MIN, Scene, Stage
from loadtest.terms import Terms
from loadtest.workload import Marketplace
from tests.commands.world import START
from tests.loadtest.rehearsal import Rehearsal

STORIES = [mix for mix in Mix if mix is not Mix.BUY]
ANSWERED_BY_TIMERS_OR_COURIERS = ("_confirm", "_fail", ".expire")
WITHOUT_A_STORY = {"market.adjust"}


def told_of(commands: list[Command]) -> list[Command]:
    return [command for command in commands if isinstance(command.tag, Scene)]


@pytest.mark.parametrize("mix", STORIES)
def test_the_rules_do_what_the_stories_foresee_and_every_story_is_told_to_its_end(mix: Mix) -> None:
    rehearsal = Rehearsal(mix, seed=1)
    rehearsal.play(3_600 if mix is Mix.EVERYTHING else 1_200)
    assert rehearsal.stage.off_script == []
    assert set(rehearsal.stage.ended) == set(weights(mix))
    rehearsal.world.check()
    owners = rehearsal.stage.owners()
    assert len(owners) > len(rehearsal.market.items) / 4
    assert owners == {nft_id: rehearsal.world.get(Nft, nft_id).owner_id for nft_id in owners}


def test_everything_sends_every_kind_that_people_and_feeds_send() -> None:
    rehearsal = Rehearsal(Mix.EVERYTHING, seed=2)
    rehearsal.play(3_600)
    kinds = {json.loads(command.body)["kind"] for command in rehearsal.sent}
    sendable = {kind for kind in KINDS if not kind.endswith(ANSWERED_BY_TIMERS_OR_COURIERS)}
    assert sendable - kinds == WITHOUT_A_STORY


@pytest.mark.parametrize("mix", STORIES)
def test_the_same_seed_and_the_same_answers_give_the_same_commands(mix: Mix) -> None:
    one, other, another = Rehearsal(mix, seed=5), Rehearsal(mix, seed=5), Rehearsal(mix, seed=6)
    for rehearsal in (one, other, another):
        rehearsal.play(240)
    bodies = [[command.body for command in told_of(rehearsal.sent)] for rehearsal in (one, other, another)]
    assert bodies[0] == bodies[1] != bodies[2]


@pytest.mark.parametrize("mix", STORIES)
def test_most_commands_succeed_and_some_are_refused(mix: Mix) -> None:
    rehearsal = Rehearsal(mix, seed=3)
    rehearsal.play(1_200)
    foreseen = Counter(command.foreseen.partition("|")[0] for command in told_of(rehearsal.sent))
    assert foreseen["succeeded"] > 0.75 * foreseen.total()
    assert len(foreseen) > 5


def test_what_was_not_foreseen_ends_the_story_and_nobody_touches_its_items_again() -> None:
    rehearsal = Rehearsal(Mix.OFFER, seed=4)
    stream = rehearsal.stage.commands()
    command = next(stream)
    scene = command.tag
    rehearsal.stage.note(command, {"status": "rejected", "rejection": {"code": "OUT_OF_THE_BLUE"}})
    assert len(rehearsal.stage.off_script) == 1
    rehearsal.play(600)
    assert len(rehearsal.stage.off_script) == 1
    assert scene.items
    assert all(item.taken and item.nft_id not in rehearsal.stage.owners() for item in scene.items)


def test_stories_need_parties() -> None:
    market = Marketplace(seed=1, users=TRADERS_MIN, items=4, skew=0.0, base=0, run="test")
    with pytest.raises(ValueError, match="at least"):
        Stage(market, weights(Mix.OFFER), Terms(), START)
