"""The stories of the whole marketplace: the same seed and answers, the same commands; and every outcome foreseen."""

import json
from collections import Counter

import pytest

from commands.items import Nft
from loadtest.mix import Mix, weights
from tests.loadtest.rehearsal import Rehearsal

STORIES = [mix for mix in Mix if mix is not Mix.BUY]


def kinds_of(rehearsal: Rehearsal) -> Counter[str]:
    return Counter(json.loads(command.body)["kind"] for command in rehearsal.sent)


@pytest.mark.parametrize("mix", STORIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_rules_do_what_the_stories_foresee(mix: Mix, seed: int) -> None:
    rehearsal = Rehearsal(mix, seed)
    rehearsal.play(3_000)
    assert rehearsal.stage.off_script == []
    rehearsal.world.check()
    owners = rehearsal.stage.owners()
    assert len(owners) > len(rehearsal.market.items) / 4
    assert owners == {nft_id: rehearsal.world.get(Nft, nft_id).owner_id for nft_id in owners}


@pytest.mark.parametrize("mix", STORIES)
def test_every_story_of_a_mix_is_told_to_its_end(mix: Mix) -> None:
    rehearsal = Rehearsal(mix, 3)
    rehearsal.play(6_000)
    assert rehearsal.stage.off_script == []
    assert set(rehearsal.stage.ended) == set(weights(mix))
