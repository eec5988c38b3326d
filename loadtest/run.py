"""`loadtest run`: a seeded stream of trades, closed or open loop, single or batched, all accounted for."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol

from rich.console import Console

from loadtest.client import open_client
from loadtest.measure import Tally
from loadtest.mix import Mix, weights
from loadtest.pace import Command, closed_loop, first, open_loop
from loadtest.populate import populate
from loadtest.report import print_kinds, print_stories, print_tables, print_tally, print_verdict, watching
from loadtest.stack import Target, audit
from loadtest.stories.stage import LOOKS_AT_ONCE, Stage
from loadtest.submit import Submitter
from loadtest.tables import read
from loadtest.terms import Terms
from loadtest.workload import Marketplace
from souk_client import Client

ACCEPTANCE_SAMPLE = 20
"""Of so many bodies, one is sent without waiting for results: it measures the time to acceptance."""
CONNECTIONS_OPEN_LOOP = 512


@dataclass(frozen=True)
class Plan:
    """Ends after `commands` or `seconds`, whichever comes first. With `rate` (commands a second) the loop is open."""

    mix: Mix = Mix.BUY
    seed: int = 1
    users: int = 200
    items: int = 2_000
    commands: int | None = None
    seconds: float | None = None
    concurrency: int = 64
    rate: float | None = None
    batch: int = 1
    skew: float = 0.8


@dataclass(frozen=True)
class RunResult:
    good: bool
    figures: dict[str, Any]


class Workload(Protocol):
    """An endless stream of commands that is fed with their answers."""

    def commands(self) -> Iterator[Command]: ...

    def note(self, command: Command, receipt: Mapping[str, Any]) -> None: ...

    def owners(self) -> Mapping[int, int]:
        """By item, as far as the answers tell."""
        ...

    def as_json(self) -> dict[str, Any]:
        """What there is to say about the stories, if it tells any."""
        ...


def unused_base() -> int:
    """First ids that no earlier run on the same installation has used: from the clock, below 2^53."""
    return (int(time.time()) - 1_600_000_000) * 1_000_000


async def run(target: Target, plan: Plan, console: Console, title: str = "load", *, kinds: bool = True) -> RunResult:
    """Sets up a marketplace of its own, trades on it, prints and returns what came of it.

    Good is: every submission has its final outcome, none failed, the outcomes are those that the order within each item
    promises (unless the server broke bodies up), the tables agree with them, and the audit finds nothing broken.
    """
    base = unused_base()
    market = Marketplace(
        seed=plan.seed, users=plan.users, items=plan.items, skew=plan.skew, base=base, run=f"run-{base}-{plan.seed}"
    )
    connections = plan.concurrency if plan.rate is None else CONNECTIONS_OPEN_LOOP
    async with open_client(target.url, target.key, connections + LOOKS_AT_ONCE) as client:
        console.print(f"setting up {plan.users:,} users and {plan.items:,} items at {target.url}", highlight=False)
        await populate(client, market)
        tally = Tally()
        async with _workload(plan.mix, market, client) as workload:
            submit = Submitter(client, tally, batched=plan.batch > 1, sample=ACCEPTANCE_SAMPLE, on_answer=workload.note)
            until = monotonic() + plan.seconds if plan.seconds is not None else float("inf")
            stream = first(workload.commands(), plan.commands)
            async with watching(console, title, tally, total=plan.commands, seconds=plan.seconds):
                if plan.rate is None:
                    await closed_loop(stream, submit, concurrency=plan.concurrency, batch=plan.batch, until=until)
                else:
                    await open_loop(stream, submit, rate=plan.rate, batch=plan.batch, until=until)
    print_tally(console, title, tally)
    if kinds:
        print_kinds(console, tally)
    return await _judged(target, plan, console, tally, base, workload)


@asynccontextmanager
async def _workload(mix: Mix, market: Marketplace, client: Client) -> AsyncIterator[Workload]:
    """The plain stream, or stories, whose looks at the server are done meanwhile."""
    if mix is Mix.BUY:
        yield market
        return
    stage = Stage(market, weights(mix), await Terms.of(client), datetime.now(UTC))
    looking = asyncio.create_task(stage.attend(client))
    try:
        yield stage
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def _judged(
    target: Target, plan: Plan, console: Console, tally: Tally, base: int, workload: Workload
) -> RunResult:
    figures: dict[str, Any] = {"plan": asdict(plan), "url": target.url, **tally.as_json()}
    if stories := workload.as_json():
        figures["stories"] = stories
        print_stories(console, stories)
    agreed = True
    if "SOUK_DATABASE_URL" in target.environment:
        tables = await read(target.environment["SOUK_DATABASE_URL"], base, workload.owners())
        print_tables(console, tables)
        agreed = tables.right
        figures["tables"] = tables.as_json()
    verdict = await audit(target.environment)
    print_verdict(console, verdict)
    figures["audit"] = asdict(verdict)
    as_foreseen = not tally.unforeseen or tally.broken_up > 0
    return RunResult(tally.sound() and as_foreseen and agreed and verdict.held is not False, figures)
