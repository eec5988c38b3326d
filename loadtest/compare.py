"""`loadtest compare`: one trade, three ways, in one run on the same servers and the same items.

(a) plain SQL by pgbench; (b) Souk over HTTP, one command a request; (c) Souk over HTTP, bodies of 100. All wait for
the result. Rounds of the three alternate, so that a noisy machine is noisy for all, and each figure is a median.
Between rounds, outside the clock, what was sold is put up for sale again by its new owner.
"""

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from math import inf
from time import monotonic
from typing import Any

import asyncpg
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from loadtest.baseline import CLIENTS, Ground, bring_fees_up_to_date, pgbench
from loadtest.client import open_client
from loadtest.measure import Latencies, Tally
from loadtest.pace import Sending, closed_loop
from loadtest.populate import all_succeed, populate
from loadtest.report import print_verdict
from loadtest.run import RunResult
from loadtest.stack import Target, audit
from loadtest.submit import Submitter
from loadtest.workload import TON, Marketplace
from souk_client import Client

BATCH = 100
BATCH_CONNECTIONS = 32
PRICE_NANO = TON
IDLE_TRADES = 200
SINGLE_BAR, BATCH_BAR = 1.0, 2.0
PROBE_TRADES = 4_800
"""pgbench's first turn: warms it up, and tells how many trades fill a round."""
_WORKED = "SELECT sum(round_trips), sum(batches), sum(commands) FROM workers"


@dataclass(frozen=True)
class ComparePlan:
    rounds: int = 3
    seconds: float = 5.0
    users: int = 2_000
    items: int = 32_000
    concurrency: int = 256
    workers: int = 1


@dataclass
class Contestant:
    """One of the ways to trade; a rate per round, in trades that the tables confirm a second."""

    name: str
    rates: list[float] = field(default_factory=list)
    trades: int = 0
    costs: list[dict[str, float]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


class Comparison:
    """The state of one comparison: the marketplace, and the connections that watch the servers."""

    def __init__(
        self, plan: ComparePlan, client: Client, market: Marketplace, postgres: "asyncpg.Connection[Any]", redis: Redis
    ) -> None:
        self._plan = plan
        self._client = client
        self._market = market
        self._postgres = postgres
        self._redis = redis
        self._round = 0
        self._attempts = PROBE_TRADES

    async def put_up_for_sale(self) -> None:
        """Every item listed again, by whoever owns it now."""
        rows = await self._postgres.fetch(
            "SELECT id, owner_id, price_nano FROM nfts WHERE id BETWEEN $1 AND $2",
            self._market.items[0].nft_id,
            self._market.items[-1].nft_id,
        )
        owners = {row["id"]: (row["owner_id"], row["price_nano"]) for row in rows}
        for item in self._market.items:
            item.owner_id, item.price_nano = owners[item.nft_id]
        unlisted = [item for item in self._market.items if item.price_nano is None]
        await all_succeed(self._client, self._market.listings(unlisted, PRICE_NANO))

    async def sql_round(self, contestant: Contestant, ground: Ground, *, hot_fees: bool) -> None:
        """A round of pgbench, as long as its last rate lets expect."""
        self._round += 1
        before = await self._deals()
        seconds = await pgbench(ground, self._attempts, round_number=self._round, hot_fees=hot_fees)
        if not hot_fees:
            await bring_fees_up_to_date(ground.dsn)
        trades = await self._deals() - before
        contestant.rates.append(trades / seconds)
        contestant.trades += trades

    def expect_sql_rate(self, rate: float) -> None:
        self._attempts = int(min(rate * self._plan.seconds, self._plan.items) // CLIENTS * CLIENTS)

    async def souk_round(self, contestant: Contestant, *, batch: int, concurrency: int) -> None:
        """A round over HTTP; every purchase must succeed, and be in the tables."""
        self._round += 1
        tally = Tally()
        submit = Submitter(self._client, tally, batched=batch > 1)
        purchases = list(self._market.purchases(self._market.items))
        before = await self._deals()
        async with self._counting(contestant, tally):
            await closed_loop(
                purchases,
                submit,
                concurrency=concurrency,
                batch=batch,
                until=monotonic() + self._plan.seconds,
            )
        trades = await self._deals() - before
        succeeded = tally.statuses["succeeded"]
        if trades != succeeded or succeeded != tally.submitted:
            message = f"{tally.submitted} purchases, {succeeded} succeeded, {trades} deals: {dict(tally.unforeseen)}"
            raise Untrue(message)
        contestant.rates.append(trades / tally.elapsed_seconds)
        contestant.trades += trades

    async def idle_latency(self) -> Latencies:
        """One trade after the other on the idle system, submit to result."""
        latencies = Latencies()
        tally = Tally()
        submit = Submitter(self._client, tally, batched=False)
        for command in self._market.purchases(self._market.items[:IDLE_TRADES]):
            started = monotonic()
            await submit([Sending(command, started)])
            latencies.add(monotonic() - started)
        if tally.statuses["succeeded"] != IDLE_TRADES:
            message = f"of {IDLE_TRADES} purchases in a row: {dict(tally.unforeseen)}"
            raise Untrue(message)
        return latencies

    @asynccontextmanager
    async def _counting(self, contestant: Contestant, tally: Tally) -> AsyncIterator[None]:
        """What the servers had to do meanwhile, per batch and per trade."""
        redis_before, worked_before = await self._redis_calls(), await self._worked()
        yield
        redis_calls = await self._redis_calls() - redis_before
        trips, batches, commands = (
            now - before for now, before in zip(await self._worked(), worked_before, strict=True)
        )
        costs = {"redis_commands_per_trade": redis_calls / max(tally.final, 1)}
        if batches:
            costs |= {"round_trips_per_batch": trips / batches, "commands_per_batch": commands / batches}
        contestant.costs.append(costs)

    async def _deals(self) -> int:
        return int(await self._postgres.fetchval("SELECT count(*) FROM deals"))

    async def _redis_calls(self) -> int:
        """Commands that Redis executed, those inside scripts too, but for our own INFO."""
        stats = await self._redis.info("commandstats")
        return sum(int(each["calls"]) for name, each in stats.items() if name != "cmdstat_info")

    async def _worked(self) -> list[int]:
        """Round trips, batches and commands of the workers, as they last said."""
        return [int(figure or 0) for figure in await self._postgres.fetchrow(_WORKED) or (0, 0, 0)]


class Untrue(Exception):
    """A figure would not have been about trades that really happened."""


async def compare(target: Target, plan: ComparePlan, console: Console) -> RunResult:
    """Measures, prints, and judges by the bars. Raises SetupFailed, PgbenchFailed, Untrue."""
    run = f"compare-{time.time_ns():x}"
    market = Marketplace(seed=1, users=plan.users, items=plan.items, skew=0.0, base=1_000, run=run)
    dsn = target.environment["SOUK_DATABASE_URL"]
    ground = Ground(dsn, 1_000, plan.items, market.traders[0], len(market.traders), PRICE_NANO)
    sql, hot = Contestant("pgbench"), Contestant("pgbench, hot fee row")
    single, batches = Contestant("Souk, single"), Contestant(f"Souk, batches of {BATCH}")
    warming = Contestant("warming up")
    postgres = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "on"})
    redis = Redis.from_url(target.environment["SOUK_REDIS_URL"])
    try:
        async with open_client(target.url, target.key, plan.concurrency) as client:
            comparison = Comparison(plan, client, market, postgres, redis)
            console.print(f"setting up {plan.users:,} users and {plan.items:,} items at {target.url}", highlight=False)
            await populate(client, market)
            await comparison.put_up_for_sale()
            await comparison.sql_round(warming, ground, hot_fees=False)
            comparison.expect_sql_rate(warming.rate)
            await comparison.put_up_for_sale()
            for number in range(1, plan.rounds + 1):
                await comparison.sql_round(sql, ground, hot_fees=False)
                await comparison.put_up_for_sale()
                await comparison.souk_round(single, batch=1, concurrency=plan.concurrency)
                await comparison.put_up_for_sale()
                await comparison.souk_round(batches, batch=BATCH, concurrency=BATCH_CONNECTIONS)
                await comparison.put_up_for_sale()
                figures = ", ".join(f"{each.rates[-1]:,.0f}" for each in (sql, single, batches))
                console.print(f"round {number} of {plan.rounds}: {figures} trades/s", highlight=False)
            comparison.expect_sql_rate(warming.rate / 4)
            await comparison.sql_round(hot, ground, hot_fees=True)
            await comparison.put_up_for_sale()
            idle = await comparison.idle_latency()
    finally:
        await postgres.close()
        await redis.aclose()
    return await _judged(target, plan, console, (sql, hot, single, batches), idle)


async def _judged(
    target: Target, plan: ComparePlan, console: Console, contestants: tuple[Contestant, ...], idle: Latencies
) -> RunResult:
    sql, _, single, batches = contestants
    bars = {single.name: SINGLE_BAR, batches.name: BATCH_BAR}
    table = Table(title="trades per second, medians", title_justify="left", title_style="bold")
    for column in ("", "trades/s", "of pgbench", "bar", "trades made"):
        table.add_column(column, justify="right" if column else "left")
    good = True
    for each in contestants:
        ratio, bar = each.rate / sql.rate, bars.get(each.name, -inf)
        good = good and ratio >= bar
        table.add_row(
            each.name,
            f"{each.rate:,.0f}",
            f"[{'green' if ratio >= bar else 'bold red'}]{ratio:.2f}[/]",
            f"≥ {bar:.1f}" if bar > 0 else "",
            f"{each.trades:,}",
        )
    console.print(table)
    latency = idle.summary_ms()
    console.print(
        f"idle, submit to result: median {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms", highlight=False
    )
    costs: dict[str, dict[str, float]] = {}
    for each in (single, batches):
        names = dict.fromkeys(name for cost in each.costs for name in cost)
        costs[each.name] = {
            name: round(statistics.median(cost[name] for cost in each.costs if name in cost), 3) for name in names
        }
        said = ", ".join(f"{value:g} {name.replace('_', ' ')}" for name, value in costs[each.name].items())
        console.print(f"{each.name}: {said}", highlight=False)
    verdict = await audit(target.environment)
    print_verdict(console, verdict)
    figures = {
        "plan": asdict(plan),
        "trades_per_second": {each.name: round(each.rate, 1) for each in contestants},
        "rounds": {each.name: [round(rate, 1) for rate in each.rates] for each in contestants},
        "trades": {each.name: each.trades for each in contestants},
        "ratios": {each.name: round(each.rate / sql.rate, 3) for each in (single, batches)},
        "bars": bars,
        "idle_latency_ms": latency,
        "costs": costs,
        "audit": asdict(verdict),
    }
    return RunResult(good and verdict.held is True, figures)
