"""A short campaign of faults, the long one being `python -m loadtest faults`."""

from io import StringIO

from rich.console import Console

from loadtest.faults.campaign import Plan, campaign
from loadtest.faults.schedule import FAULTS, NEED_SENTINELS, plan


async def test_a_campaign_of_faults_finds_nothing() -> None:
    console = Console(file=StringIO(), record=True)
    result = await campaign(Plan(seconds=14, seed=7, workers=2, pause_seconds=1), console)
    assert result.good, console.export_text()
    assert result.figures["faults"] >= 2  # each heals before the next, which takes what the machine takes
    assert result.figures["acknowledged"] == result.figures["commands"] > 0


def test_a_seed_gives_a_schedule_in_which_every_fault_comes() -> None:
    def first(seed: int, *, sentinels: bool = True) -> list[tuple[str, float]]:
        planned = plan(seed, 1, sentinels=sentinels)
        return [(fault.name, fault.pause) for fault, _ in zip(planned, FAULTS, strict=False)]

    assert first(1) == first(1) != first(2)
    assert {name for name, _ in first(1)} == FAULTS.keys()
    assert {name for name, _ in first(1, sentinels=False)} == FAULTS.keys() - NEED_SENTINELS
