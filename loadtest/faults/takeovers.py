"""`loadtest takeover`: how long partitions stand still when the worker that drains them is killed, stopped or asked to
end, and how soon a worker that comes has its share; with Redis, and without.

All partitions are under a steady load. What counts is the journal's own times: when the commands of each partition were
executed, by PostgreSQL's clock, which also says when the signal was sent. Of each event the partition that stood still
the longest counts:

| case    | counted from                                  | to                                                       |
|---------|-----------------------------------------------|----------------------------------------------------------|
| killed  | the signal                                    | the first execution by the next owner                    |
| stopped | the signal                                    | the same; it lasts longer than the lease, then goes on   |
| leaving | the signal, less the usual time between two   | the same                                                 |
| added   | the worker's first row in `workers`           | the first execution in the last partition of its share   |

After each event everything must be even again, and all that was acknowledged must have succeeded.
"""

import asyncio
import signal
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from subprocess import TimeoutExpired
from time import monotonic
from typing import Any, NamedTuple

import asyncpg
from rich.console import Console
from rich.table import Table

from loadtest.client import open_client
from loadtest.faults.gaps import Case, Measured, bar_of, first_after, usual_gaps, worst_gap
from loadtest.faults.site import STOP_SECONDS, Process, Redises, Site, redis_of
from loadtest.faults.steady import Refused, Steady
from loadtest.faults.writers import LEASES
from loadtest.measure import Latencies
from loadtest.run import RunResult
from loadtest.stack import audit

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.02
BASELINE_SECONDS = 1.0
"""Before each event: its times between two executions of a partition are the usual ones."""
INTERVAL_SECONDS = 0.05
"""Between two commands of a partition."""
STOPPED_LEASES = 1.5
"""How long a worker is stopped, at least."""
SIGNALS = {Case.KILLED: signal.SIGKILL, Case.STOPPED: signal.SIGSTOP, Case.LEAVING: signal.SIGTERM}

_WORKER = "SELECT clock_timestamp(), (SELECT id FROM workers WHERE split_part(id, ':', 2)::integer = $1)"
_SHARES = "SELECT split_part(owner, ':', 2)::integer, count(*) FROM partitions WHERE owner IS NOT NULL GROUP BY 1"
_WAITING = "SELECT count(*) FROM commands WHERE status = 'accepted'"
_LATEST = "SELECT id FROM commands ORDER BY id DESC LIMIT 1"
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
_OWNED = "SELECT id FROM partitions WHERE owner = $1"
_MARK = "SELECT coalesce(max(number), 0) FROM loadtest.leases"
_TAKEN = """
SELECT partition, extract(epoch FROM min(at))::float8 FROM loadtest.leases
WHERE number > $1 AND partition = ANY($2::smallint[]) AND owner <> $3 GROUP BY 1
"""
_SHARE = """
SELECT partition, extract(epoch FROM max(at))::float8 FROM loadtest.leases AS lease
JOIN partitions ON partitions.id = partition AND partitions.fence = lease.fence AND partitions.owner = lease.owner
WHERE lease.owner = $1 GROUP BY 1
"""
_EXECUTED = """
SELECT DISTINCT partition, extract(epoch FROM finished_at)::float8 FROM commands
WHERE id >= $1 AND partition = ANY($2::smallint[]) AND finished_at IS NOT NULL ORDER BY 2
"""


@dataclass(frozen=True)
class TakeoverPlan:
    rounds: int = 20
    workers: int = 3
    cases: tuple[Case, ...] = (Case.KILLED, Case.STOPPED, Case.LEAVING)
    """In each round; who was killed or has left comes back, and counts as added."""
    redis_away: tuple[bool, ...] = (False, True)


class Before(NamedTuple):
    """What is known as the signal is sent: the victim and its partitions, a command and a lease from before it."""

    worker_id: str
    partitions: list[int]
    command_id: Any
    lease: int
    at: float
    usual: list[float]


class Takeovers:
    """One run on a site that has started."""

    def __init__(
        self, plan: TakeoverPlan, site: Site, postgres: "asyncpg.Connection[Any]", load: Steady, console: Console
    ) -> None:
        self._plan = plan
        self._site = site
        self._postgres = postgres
        self._load = load
        self._console = console
        self._away = False
        self.measured = {
            (case, away): Measured(case, away, bar_of(case, redis_away=away, lease_seconds=site.lease_seconds))
            for away in plan.redis_away
            for case in (*plan.cases, *([Case.ADDED] if {Case.KILLED, Case.LEAVING} & {*plan.cases} else []))
        }
        self.usual: list[float] = []
        self.starts: list[float] = []

    async def run(self) -> None:
        """All rounds, with Redis and then without. Raises Refused, or TimeoutError when something never came."""
        await self._even()
        for away in self._plan.redis_away:
            self._away = away
            if away:
                await asyncio.to_thread(self._site.redis.kill)
            for number in range(self._plan.rounds):
                for case in self._plan.cases:
                    await self._even()
                    seconds = await self._event(case, self._site.workers[number % len(self._site.workers)])
                    self._console.print(
                        f"[dim]{number + 1:3} of {self._plan.rounds}, Redis {'away' if away else 'there'}:[/dim] "
                        f"{case}: {seconds:.2f} s",
                        highlight=False,
                    )
            await self._even()
            if away:
                await asyncio.to_thread(self._site.redis.start)
        await self._even()

    async def _event(self, case: Case, victim: Process) -> float:
        """What happens to the victim, until it is back. The seconds that its worst partition stood still."""
        before = await self._before(victim, SIGNALS[case])
        measured = self.measured[case, self._away]
        until, taken = await self._taken_over(before, lasting=case is Case.STOPPED)
        executed = await self._executed(before.command_id, before.partitions)
        seconds = worst_gap(executed.values(), before.at, until)
        if case is Case.LEAVING:
            seconds = max(0.0, seconds - median(before.usual))
        measured.seconds.append(seconds)
        measured.taken.append(taken - before.at)
        self.usual += before.usual
        if case is Case.STOPPED:
            victim.send(signal.SIGCONT)
        else:
            await self._back(case, victim)
        await self._even()
        await self._load.account(self._postgres)
        return seconds

    async def _before(self, victim: Process, number: signal.Signals) -> Before:
        """Looks on for a while, then sends the signal."""
        [[_, worker_id]] = await self._postgres.fetch(_WORKER, victim.child.pid)
        command_id, begin = await self._postgres.fetchval(_LATEST), await self._postgres.fetchval(_NOW)
        await asyncio.sleep(BASELINE_SECONDS)
        lease = await self._postgres.fetchval(_MARK)
        partitions = [row[0] for row in await self._postgres.fetch(_OWNED, worker_id)]
        executed = await self._executed(command_id, partitions)
        at = await self._postgres.fetchval(_NOW)
        victim.send(number)
        return Before(worker_id, partitions, command_id, lease, at, usual_gaps(executed.values(), begin, at))

    async def _taken_over(self, before: Before, *, lasting: bool) -> tuple[float, float]:
        """When others had executed something in each of the victim's partitions, and when they had the last of them.
        Returns once the lease is well over, if it is to last."""
        taken: dict[int, float] = {}

        async def all_are_taken() -> bool:
            rows = await self._postgres.fetch(_TAKEN, before.lease, before.partitions, before.worker_id)
            taken.update((row[0], row[1]) for row in rows)
            return len(taken) == len(before.partitions)

        await self._until(all_are_taken, f"partitions of {before.worker_id} are not taken over")
        await self._until_executed(before.command_id, taken)
        until: float = await self._postgres.fetchval(_NOW)
        if lasting:
            await asyncio.sleep(before.at + STOPPED_LEASES * self._site.lease_seconds - until)
        return until, max(taken.values())

    async def _back(self, case: Case, victim: Process) -> None:
        """The victim's place is taken by another process, and that is measured too."""
        status = await asyncio.to_thread(victim.child.wait, STOP_SECONDS)
        if case is Case.LEAVING and status:
            message = f"{victim.name} was asked to end, and did so with status {status}"
            raise Refused(message)
        command_id, started = await self._postgres.fetchval(_LATEST), await self._postgres.fetchval(_NOW)
        victim.restart_if_ended()
        worker_id, ready = "", 0.0

        async def is_ready() -> bool:
            nonlocal worker_id, ready
            [[now, found]] = await self._postgres.fetch(_WORKER, victim.child.pid)
            worker_id, ready = found or "", ready if found and ready else now.timestamp()
            return bool(found)

        await self._until(is_ready, f"{victim.name} does not start")
        await self._until(self._is_even, f"{victim.name} does not get its share")
        share = {row[0]: row[1] for row in await self._postgres.fetch(_SHARE, worker_id)}
        executed = await self._until_executed(command_id, share)
        firsts = [first_after(executed[partition], at) or at for partition, at in share.items()]
        added = self.measured[Case.ADDED, self._away]
        added.seconds.append(max(firsts) - ready)
        added.taken.append(max(share.values()) - ready)
        self.starts.append(ready - started)

    async def _until_executed(self, command_id: Any, since: dict[int, float]) -> dict[int, list[float]]:
        """Waits until something was executed in each partition after its time. All times, by partition."""
        executed: dict[int, list[float]] = {}

        async def all_are_executing() -> bool:
            executed.update(await self._executed(command_id, list(since)))
            return all(first_after(executed[partition], at) is not None for partition, at in since.items())

        await self._until(all_are_executing, "nothing is executed in some partitions")
        return executed

    async def _executed(self, command_id: Any, partitions: Sequence[int]) -> dict[int, list[float]]:
        """When batches with commands accepted after that one were executed, by partition."""
        times: dict[int, list[float]] = {partition: [] for partition in partitions}
        for partition, at in await self._postgres.fetch(_EXECUTED, command_id, partitions):
            times[partition].append(at)
        return times

    async def _even(self) -> None:
        """Waits until the living have even shares, and nothing waits for long."""

        async def nothing_waits() -> bool:
            waiting: int = await self._postgres.fetchval(_WAITING)
            return waiting <= 2 * self._site.partitions and await self._is_even()

        await self._until(nothing_waits, "the load is not even again")

    async def _is_even(self) -> bool:
        shares = {row[0]: row[1] for row in await self._postgres.fetch(_SHARES)}
        living = {worker.child.pid for worker in self._site.workers if worker.child.poll() is None}
        counts = shares.values()
        return shares.keys() == living and sum(counts) == self._site.partitions and max(counts) - min(counts) <= 1

    @staticmethod
    async def _until(holds: Callable[[], Awaitable[bool]], claim: str) -> None:
        deadline = monotonic() + PATIENCE_SECONDS
        while not await holds():
            if monotonic() > deadline:
                raise TimeoutError(claim)
            await asyncio.sleep(LOOK_SECONDS)


async def takeover(plan: TakeoverPlan, console: Console) -> RunResult:
    """On servers and processes of its own. Good when every bar is held, nothing was lost, and the audit holds."""
    with (
        tempfile.TemporaryDirectory(prefix="souk-takeover-", ignore_cleanup_errors=True) as directory,
        redis_of(Redises.ONE, Path(directory)) as redis,
    ):
        site = Site(Path(directory), redis, apis=1, workers=plan.workers, settings={})
        with site.postgres:
            try:
                await site.start(LEASES)
                return await _measured(plan, site, console)
            finally:
                await asyncio.to_thread(site.kill)


async def _measured(plan: TakeoverPlan, site: Site, console: Console) -> RunResult:
    problems: list[str] = []
    async with site.connected() as postgres, open_client(site.urls[0], site.key) as client:
        load = Steady(client, INTERVAL_SECONDS)
        takeovers = Takeovers(plan, site, postgres, load, console)
        try:
            async with load.running(site.partitions):
                await takeovers.run()
            await load.account(postgres)
        except (Refused, TimeoutError, TimeoutExpired) as error:
            problems.append(str(error))
    statuses = await asyncio.to_thread(site.stop)
    problems += [f"{name} ended with status {status}" for name, status in statuses.items() if status]
    problems += [f"{log} tells of a bug" for log in site.tracebacks()]
    verdict = await audit(site.environment)
    problems += [] if verdict.held else ["the audit does not hold:", *verdict.lines]
    rows = list(takeovers.measured.values())
    usual, starts = Latencies(), takeovers.starts
    for gap in takeovers.usual:
        usual.add(gap)
    figures = {
        "plan": asdict(plan),
        "lease_seconds": site.lease_seconds,
        "partitions": site.partitions,
        "commands": load.acknowledged,
        "usual_gap_ms": usual.summary_ms(),
        "start_seconds": round(median(starts), 3) if starts else None,
        "cases": [row.as_json() for row in rows],
        "problems": problems,
    }
    console.print(table_of(rows, site.lease_seconds))
    _print_rest(console, figures)
    return RunResult(not problems and all(row.held for row in rows), figures)


def table_of(rows: Sequence[Measured], lease_seconds: float) -> Table:
    """A row for each case, red where its bar is missed."""
    table = Table(
        title=f"Seconds until all is executed again, with a lease of {lease_seconds:g} s",
        caption="taken: the median until the last partition has its new owner; bar: for the median, for the worst",
    )
    for heading in ("a worker is", "Redis is"):
        table.add_column(heading, no_wrap=True)
    for heading in ("times", "taken", "median", "worst", "bar"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = row.as_json()
        spent = (f"{figures[name]:.2f}" if row.seconds else "" for name in ("taken", "median", "worst"))
        bar = ", ".join(f"{seconds:g}" for seconds in row.bar)
        style = None if row.held else "bold red"
        table.add_row(row.case, figures["redis"], str(figures["times"]), *spent, bar, style=style)
    return table


def _print_rest(console: Console, figures: dict[str, Any]) -> None:
    usual, start_seconds = figures["usual_gap_ms"], figures["start_seconds"]
    console.print(f"{figures['commands']:,} commands in {figures['partitions']} partitions", highlight=False)
    if usual:
        console.print(
            f"usually {usual['p50']:.0f} ms between two of one, 99 of 100 within {usual['p99']:.0f} ms", highlight=False
        )
    if start_seconds is not None:
        console.print(f"a worker's process needs {start_seconds:.1f} s to start", highlight=False)
    for problem in figures["problems"]:
        console.print(problem, style="bold red", markup=False)
    if not figures["problems"]:
        console.print("All that was acknowledged has succeeded; the audit holds.", style="bold green")
