"""The engine of the demo: a small marketplace, ten seconds of everything that happens on it, and what came of it."""

from collections.abc import Mapping

from rich.console import Console

from loadtest.mix import Mix
from loadtest.run import Plan, run
from loadtest.stack import Target


async def demo(
    url: str,
    key: str,
    environment: Mapping[str, str],
    *,
    seed: int = 1,
    seconds: float = 10.0,
    console: Console | None = None,
) -> bool:
    """Trades on the installation at `url` with an operator's `key`, printing as it goes.

    `environment` holds the SOUK_DATABASE_URL that the audit is run on. Returns whether every command got its outcome
    and the audit held. Raises SoukError or populate.SetupFailed when there is nothing to trade on.
    """
    plan = Plan(Mix.EVERYTHING, seed=seed, users=100, items=300, seconds=seconds, concurrency=48, skew=0.7)
    result = await run(Target(url, key, environment), plan, console or Console(), "a marketplace, trading", kinds=False)
    return result.good and result.figures["audit"]["held"] is True
