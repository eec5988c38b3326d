"""`loadtest scale`: the same load on 1, 2 and 4 workers behind 1 and 2 APIs, and what each command costs each part.

All on one marketplace and one pair of servers. Rounds go through the configurations to and fro, so that a machine that
grows tired does so for all; a figure is that of the round with the median throughput. Between measurements, outside the
clock, what was sold is put up for sale again.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from statistics import median_low
from time import monotonic
from typing import Any

import asyncpg
import psutil
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from loadtest.costs import OTHERS, PARTS, STATES, Servers, evenness, times, usage
from loadtest.measure import Tally
from loadtest.pace import Sending, Submit, closed_loop
from loadtest.populate import all_succeed, populate
from loadtest.report import print_verdict
from loadtest.run import RunResult
from loadtest.stack import Target, audit
from loadtest.staff import Staff, staffed
from loadtest.submit import Submitter
from loadtest.workload import TON, Marketplace

Configuration = tuple[int, int]
Figures = dict[str, Any]

CONFIGURATIONS: tuple[Configuration, ...] = tuple((apis, workers) for apis in (1, 2) for workers in (1, 2, 4))
LOADS = {"single commands": (1, 256), "batches of 100": (100, 32)}
"""Commands in a body, and bodies under way."""
CONNECTIONS = 256
PRICE_NANO = TON
EACH = {"WAL bytes": "WAL B", "stored bytes": "stored B", "Redis commands": "Redis", "Redis bytes": "Redis B"}
_DEALS = "SELECT count(*) FROM deals"


@dataclass(frozen=True)
class ScalePlan:
    rounds: int = 3
    seconds: float = 8.0
    users: int = 10_000
    items: int = 32_000
    configurations: tuple[Configuration, ...] = CONFIGURATIONS


class Scale:
    """One run: the marketplace, and what watches the servers. `problems` is what went wrong."""

    def __init__(self, plan: ScalePlan, market: Marketplace, postgres: "asyncpg.Connection[Any]", redis: Redis) -> None:
        self._plan = plan
        self._market = market
        self._postgres = postgres
        self._servers = Servers(postgres, redis)
        self._is_set_up = False
        self.problems: list[str] = []

    async def set_up(self, staff: Staff) -> None:
        """Once, by whoever is there first."""
        if not self._is_set_up:
            await populate(staff.clients[0], self._market)
            staff.executed += self._plan.users + len(self._market.traders) + self._plan.items
            self._is_set_up = True

    async def measure(self, staff: Staff, load: str) -> Figures:
        """Everything about one closed loop of purchases, spread evenly over the APIs."""
        batch, bodies = LOADS[load]
        unlisted = [item for item in self._market.items if item.price_nano is None]
        listed = await all_succeed(staff.clients[0], self._market.listings(unlisted, PRICE_NANO))
        staff.executed += listed.final
        worked, before = await staff.worked(), await self._servers.figures()
        deals = await self._postgres.fetchval(_DEALS)
        tally = Tally()
        submit = in_turns([Submitter(client, tally, batched=batch > 1) for client in staff.clients])
        purchases = self._market.purchases(self._market.items)
        async with self._servers.watched() as sessions:
            started = times()
            until = monotonic() + self._plan.seconds
            await closed_loop(purchases, submit, concurrency=bodies, batch=batch, until=until)
            used = usage(started, times(), psutil.cpu_count() or 1)
        staff.executed += tally.final
        after = await staff.worked()
        grown = await self._servers.figures()
        grown.subtract(before)
        deals = await self._postgres.fetchval(_DEALS) - deals
        if not deals == tally.statuses["succeeded"] == tally.submitted:
            self.problems.append(f"{tally.submitted} purchases, {deals} deals: {dict(tally.unforeseen)}")
        batches, commands, trips = (
            [now[figure] - worked[worker][figure] for worker, now in after.items()] for figure in range(3)
        )
        if not all(commands):
            self.problems.append(f"a worker had nothing to do: {commands}")
        return {
            "commands": tally.final,
            "per_second": round(tally.final / tally.elapsed_seconds, 1),
            **{name: tally.to_result.summary_ms()[name] for name in ("p50", "p99")},
            "microseconds": {part: round(cost, 1) for part, cost in used.microseconds_each(tally.final).items()},
            "shares": {part: round(share, 3) for part, share in used.shares().items()},
            "busiest": {part: round(cores, 3) for part, cores in used.busiest.items()},
            "bound": used.bound(),
            "partitions": await staff.partitions(),
            "executed": sorted(commands),
            "evenness": round(evenness(commands), 3),
            "commands_a_batch": round(sum(commands) / max(sum(batches), 1), 1),
            "round_trips_a_batch": round(sum(trips) / max(sum(batches), 1), 2),
            "each": {name: round(figure / max(tally.final, 1), 3) for name, figure in sorted(grown.items())},
            "sessions": {state: round(number, 2) for state, number in sessions.mean().items()},
        }


def in_turns(submits: Sequence[Submit]) -> Submit:
    """Bodies go to each in turn."""
    turns = cycle(submits)

    async def submit(body: Sequence[Sending]) -> None:
        await next(turns)(body)

    return submit


def typical(rounds: Sequence[Figures]) -> Figures:
    """The round with the median throughput: its figures belong together, medians of each would not."""
    middle = median_low(each["per_second"] for each in rounds)
    return next(each for each in rounds if each["per_second"] == middle)


async def scale(target: Target, plan: ScalePlan, console: Console) -> RunResult:
    """Measures and prints. Good when every outcome is right, every worker had work, and the audit holds. Raises
    SetupFailed, StackFailed."""
    run = f"scale-{time.time_ns():x}"
    market = Marketplace(seed=1, users=plan.users, items=plan.items, skew=0.0, base=1_000, run=run)
    postgres = await asyncpg.connect(
        target.environment["SOUK_DATABASE_URL"], server_settings={"default_transaction_read_only": "on"}
    )
    redis = Redis.from_url(target.environment["SOUK_REDIS_URL"])
    found: dict[str, dict[Configuration, list[Figures]]] = {load: {} for load in LOADS}
    try:
        measuring = Scale(plan, market, postgres, redis)
        console.print(f"setting up {plan.users:,} users and {plan.items:,} items at {target.url}", highlight=False)
        for number in range(1, plan.rounds + 1):
            for apis, workers in plan.configurations[:: 1 if number % 2 else -1]:
                async with staffed(target, postgres, apis=apis, workers=workers, connections=CONNECTIONS) as staff:
                    await measuring.set_up(staff)
                    for load, cells in found.items():
                        figures = await measuring.measure(staff, load)
                        cells.setdefault((apis, workers), []).append(figures)
                        console.print(
                            f"round {number} of {plan.rounds}, APIs {apis}, workers {workers}, {load}: "
                            f"{figures['per_second']:,.0f}/s",
                            highlight=False,
                        )
    finally:
        await postgres.close()
        await redis.aclose()
    for load, cells in found.items():
        print_load(console, load, {key: typical(rounds) for key, rounds in sorted(cells.items())})
    for problem in measuring.problems:
        console.print(problem, style="bold red", markup=False)
    verdict = await audit(target.environment)
    print_verdict(console, verdict)
    json = {
        "plan": asdict(plan),
        "cores": psutil.cpu_count(),
        "loads": {
            load: [
                {"apis": apis, "workers": workers, "typical": typical(rounds), "rounds": rounds}
                for (apis, workers), rounds in sorted(cells.items())
            ]
            for load, cells in found.items()
        },
        "problems": measuring.problems,
        "audit": asdict(verdict),
    }
    return RunResult(not measuring.problems and verdict.held is True, json)


def print_load(console: Console, load: str, cells: Mapping[Configuration, Figures]) -> None:
    """Three tables, a row for each configuration."""
    rates = _table(load, "/s", "p50 ms", "p99 ms", "bound by", "least / most of a worker", "a batch")
    costs = _table(f"{load}: µs of a core for each command, and share of the machine", *PARTS, OTHERS)
    servers = _table(f"{load}: for each command; sessions of PostgreSQL running, waiting for", *EACH.values(), *STATES)
    for (apis, workers), cell in cells.items():
        name, shares = f"{apis}, {workers}", cell["shares"]
        rates.add_row(
            *(name, f"{cell['per_second']:,.0f}", f"{cell['p50']:,.1f}", f"{cell['p99']:,.1f}", cell["bound"]),
            *(f"{cell['evenness']:.2f}", f"{cell['commands_a_batch']:,.0f}"),
        )
        spent = (f"{cell['microseconds'][part]:,.0f} {shares[part]:4.0%}" for part in PARTS)
        costs.add_row(name, *spent, f"{shares[OTHERS]:.0%}")
        servers.add_row(
            *(name, *(f"{cell['each'][figure]:,.1f}" for figure in EACH)),
            *(f"{cell['sessions'].get(state, 0.0):.1f}" for state in STATES),
        )
    for table in (rates, costs, servers):
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("APIs, workers", *columns):
        table.add_column(column, justify="right")
    return table
