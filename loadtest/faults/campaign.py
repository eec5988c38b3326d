"""`loadtest faults`: load, faults by a seeded schedule, and an account of every command.

The run is good when the checker finds nothing, everything accepted is final within RECOVERY_SECONDS of the last fault's
end, the audit holds, no process told a bug, and each ends well when asked to.
"""

import asyncio
import random
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from loadtest.faults.checker import violations
from loadtest.faults.history import facts, items
from loadtest.faults.schedule import FAULTS, Planned, plan
from loadtest.faults.site import Redises, Site, redis_of
from loadtest.faults.traders import Traders
from loadtest.faults.writers import LEASES, WRITES
from loadtest.gifts import gift
from loadtest.run import RunResult
from loadtest.stack import audit
from loadtest.workload import TON
from souk_client import Client, Receipt, Submission

APIS = 2
PARTITIONS = 16
SETTINGS = {"SOUK_PARTITIONS": str(PARTITIONS), "SOUK_BATCH_MAX": "100"}
RECOVERY_SECONDS = 15.0
PATIENCE_SECONDS = 60.0
USERS = range(1, 21)
ITEMS = range(1, 41)
SHOWN_MAX = 10
_AT_WORK = "SELECT count(DISTINCT id) FROM workers WHERE split_part(id, ':', 2)::integer = ANY($1::integer[])"
_WAITING = "SELECT count(*) FROM commands WHERE finished_at IS NULL AND status = 'accepted'"
_UNFINISHED = "SELECT count(*) FROM commands WHERE finished_at IS NULL"


@dataclass(frozen=True)
class Plan:
    seconds: float = 600.0
    seed: int = 1
    traders: int = 24
    workers: int = 3
    lease_seconds: float = 2.0
    pause_seconds: float = 2.0
    redis: Redises = Redises.ONE


@dataclass
class Happened:
    """A fault as it took place, by the clock of the database."""

    name: str
    began_at: datetime
    ended_at: datetime
    still_seconds: float = 0.0
    """The longest time around it in which nothing was executed."""


@dataclass
class Campaign:
    plan: Plan
    site: Site
    console: Console
    happened: list[Happened] = field(default_factory=list)

    async def run(self) -> RunResult:
        site, chosen = self.site, self.plan
        await self._populate()
        async with site.connected() as connection:
            before = await items(connection, ITEMS)
        traders = Traders(site.urls, site.key, USERS, ITEMS, chosen.seed)
        trading = asyncio.create_task(traders.run(chosen.traders))
        watching = asyncio.create_task(site.watch())
        began = monotonic()
        for planned in plan(chosen.seed, chosen.pause_seconds, sentinels=chosen.redis is Redises.SENTINEL):
            if monotonic() - began > chosen.seconds or trading.done():
                break
            await self._bring_about(planned)
        recovered = await self._recover()
        traders.stop()
        await trading
        await self._until_final()
        site.watching = False
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await self._until_started()
        statuses = await asyncio.to_thread(site.stop)
        async with site.connected() as connection:
            seen = await facts(connection, before)
            found = violations(traders.history, seen)
            await self._measure(connection)
        verdict = await audit(site.environment)
        problems = [
            *found,
            *([] if recovered <= RECOVERY_SECONDS else [f"recovery took {recovered:.1f} s"]),
            *([] if verdict.held else ["the audit does not hold:", *verdict.lines]),
            *(f"{log} tells of a bug" for log in site.tracebacks()),
            *(f"{name} ended with status {status}" for name, status in statuses.items() if status),
        ]
        figures = self._figures(traders, recovered, problems) | seen.writing.figures()
        self._report(figures, problems)
        return RunResult(not problems, figures)

    async def _populate(self) -> None:
        """Users with more money than they can spend, each item with an owner."""
        deposits: list[Submission] = [
            {
                "kind": "market.deposit",
                "payload": {
                    "wallet": "faults",
                    "logical_time": user * 100 + number,
                    "hash": f"{user * 100 + number:064x}",
                    "amount_nano": 90_000 * TON,
                    "memo": memo,
                },
            }
            for user, memo in (await self._register()).items()
            for number in range(3)
        ]
        chance = random.Random(self.plan.seed)
        gifts: list[Submission] = [
            {
                "kind": "nft.receive",
                "payload": {
                    "nft_id": item,
                    "gift": gift(chance, item, item),
                    "sender_id": USERS[item % len(USERS)],
                    "message_ref": f"faults {item}",
                },
            }
            for item in ITEMS
        ]
        await self._submit([*deposits, *gifts])

    async def _register(self) -> dict[int, str]:
        receipts = await self._submit([{"kind": "users.register", "payload": {"user_id": user}} for user in USERS])
        results = [receipt.result or {} for receipt in receipts]
        return {result["user_id"]: result["memo"] for result in results}

    async def _submit(self, commands: Sequence[Submission]) -> list[Receipt]:
        async with Client(self.site.urls[0], self.site.key) as client:
            outcomes = await client.submit_many(commands, wait=30)
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt) and outcome.succeeded]
        assert len(receipts) == len(commands), outcomes  # noqa: S101 - a fresh site
        return receipts

    async def _bring_about(self, planned: Planned) -> None:
        await asyncio.sleep(planned.pause)
        self.console.print(f"[dim]{len(self.happened) + 1:4}[/dim] {planned.name}")
        began_at = await self._now()
        await FAULTS[planned.name](self.site, random.Random(planned.seed))
        self.happened.append(Happened(planned.name, began_at, await self._now()))

    async def _now(self) -> datetime:
        """The database's time, once it tells."""
        while True:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                async with self.site.connected() as connection:
                    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
                    return now
            await asyncio.sleep(0.05)

    async def _recover(self) -> float:
        """Seconds until everything accepted by now is final."""
        began = monotonic()
        async with self.site.connected() as connection:
            last = await connection.fetchval("SELECT max(seq) FROM commands")
            waiting = f"{_WAITING} AND seq <= $1"
            while await connection.fetchval(waiting, last) and monotonic() < began + PATIENCE_SECONDS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return monotonic() - began

    async def _until_final(self) -> None:
        deadline = monotonic() + RECOVERY_SECONDS
        async with self.site.connected() as connection:
            while await connection.fetchval(_UNFINISHED) and monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _until_started(self) -> None:
        """What is told to end while it is still starting ends as any program does, and not as ours do."""
        await self.site.until_ready()
        pids = [worker.child.pid for worker in self.site.workers]
        deadline = monotonic() + PATIENCE_SECONDS
        async with self.site.connected() as connection:
            while await connection.fetchval(_AT_WORK, pids) < len(pids) and monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _measure(self, connection: "asyncpg.Connection[Any]") -> None:
        """The longest time in which nothing was executed after each fault began, as far as it began before the next."""
        times = [
            row[0]
            for row in await connection.fetch(
                "SELECT DISTINCT finished_at FROM commands WHERE finished_at IS NOT NULL ORDER BY 1"
            )
        ]
        ends = [*(fault.began_at for fault in self.happened[1:]), times[-1]]
        for fault, end in zip(self.happened, ends, strict=True):
            until = max(end, fault.ended_at)
            around = [time for time in times if fault.began_at <= time <= until]
            after = next((time for time in times if time > until), until)
            marks = [fault.began_at, *around, after]
            gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(marks)]
            fault.still_seconds = max(gaps, default=0.0)

    def _figures(self, traders: Traders, recovered: float, problems: Sequence[str]) -> dict[str, Any]:
        by_name: defaultdict[str, list[float]] = defaultdict(list)
        for fault in self.happened:
            by_name[fault.name].append(fault.still_seconds)
        history = traders.history
        return {
            "seed": self.plan.seed,
            "faults": len(self.happened),
            "commands": len(history),
            "acknowledged": sum(operation.acknowledged_at is not None for operation in history),
            "retries": traders.retries,
            "unavailable": traders.unavailable,
            "recovery_seconds": recovered,
            "still_seconds": {
                name: {"times": len(each), "median": median(each), "worst": max(each)}
                for name, each in sorted(by_name.items())
            },
            "problems": list(problems),
        }

    def _report(self, figures: Mapping[str, Any], problems: Sequence[str]) -> None:
        table = Table(title=f"Faults of seed {self.plan.seed}: seconds without execution")
        for heading, justify in (("fault", "left"), ("times", "right"), ("median", "right"), ("worst", "right")):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for name, still in figures["still_seconds"].items():
            table.add_row(name, str(still["times"]), f"{still['median']:.2f}", f"{still['worst']:.2f}")
        self.console.print(table)
        self.console.print(
            f"{figures['faults']} faults, {figures['commands']:,} commands, {figures['acknowledged']:,} acknowledged, "
            f"{figures['retries']} bodies sent again; all final {figures['recovery_seconds']:.1f} s after the last"
        )
        self.console.print(
            f"{figures['writers']} workers wrote {figures['batches']:,} batches in {PARTITIONS} partitions,"
            f" under {figures['fences']:,} fences"
        )
        for problem in problems[:SHOWN_MAX]:
            self.console.print(problem, style="bold red", markup=False)
        if len(problems) > SHOWN_MAX:
            self.console.print(f"and {len(problems) - SHOWN_MAX} more", style="bold red")
        if not problems:
            self.console.print(
                "Nothing lost, doubled, reordered or told otherwise; one writer for each fence; the audit holds.",
                style="bold green",
            )


async def campaign(chosen: Plan, console: Console) -> RunResult:
    """On servers and processes of its own, in a directory that is gone afterwards."""
    settings = {**SETTINGS, "SOUK_LEASE_SECONDS": str(chosen.lease_seconds)}
    with (
        tempfile.TemporaryDirectory(prefix="souk-faults-", ignore_cleanup_errors=True) as directory,
        redis_of(chosen.redis, Path(directory)) as redis,
    ):
        site = Site(Path(directory), redis, apis=APIS, workers=chosen.workers, settings=settings)
        with site.postgres:
            try:
                await site.start(LEASES + WRITES)
                return await Campaign(chosen, site, console).run()
            finally:
                await asyncio.to_thread(site.kill)
