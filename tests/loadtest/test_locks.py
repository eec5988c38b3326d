"""The comparison of locks measures both in one run and holds ours to its bars."""

from rich.console import Console

from loadtest.locks import BARS, compare_locks
from loadtest.stack import Target
from storage.settings import Settings


async def test_every_figure_of_both_locks_is_reported_with_its_bar(settings: Settings) -> None:
    target = Target("", "", {"SOUK_REDIS_URL": settings.redis_url.get_secret_value()})
    console = Console(record=True, width=120)
    result = await compare_locks(target, 1, console)
    assert result.figures["souk"].keys() >= BARS.keys()
    assert result.figures["souk"].keys() - result.figures["redis-py"].keys() == {
        "keys/s, 100 at once",
        "ratio in sequence",
    }
    text = console.export_text()
    assert all(str(bar) in text for bar in BARS.values())


def test_a_bar_that_is_missed_is_seen() -> None:
    assert BARS["p50 ms"].holds(1)
    assert not BARS["p50 ms"].holds(1.01)
    assert not BARS["ratio in sequence"].holds(1.29)
