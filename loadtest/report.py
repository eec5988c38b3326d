"""What a person sees: live progress on a terminal (plain lines elsewhere), and the table at the end."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from loadtest.measure import Tally
from loadtest.stack import Verdict
from loadtest.tables import MODULES, Tables
from loadtest.workload import TON

REFRESH_SECONDS = 0.25
PLAIN_LINE_SECONDS = 2.0
RECENT = 2_000
"""Latencies shown while it runs are of so many latest results."""
OFF_SCRIPT_SHOWN = 5
CODES_LISTED = 10
"""More than so many rejection codes are told in a sentence."""
BARS = " ▁▂▃▄▅▆▇█"
HISTORY = 60


class Progress:
    """The state of a run over time, drawn anew each time it is asked."""

    def __init__(self, title: str, tally: Tally, *, total: int | None, seconds: float | None) -> None:
        self._title = title
        self._tally = tally
        self._total = total
        self._seconds = seconds
        self._rates: list[float] = []
        self._last = (monotonic(), tally.settled_count)

    def sample(self) -> None:
        now, count = monotonic(), self._tally.settled_count
        then, before = self._last
        if now > then:
            self._rates.append((count - before) / (now - then))
        self._last = now, count

    def line(self) -> str:
        tally = self._tally
        latency = tally.to_result.tail(RECENT).summary_ms()
        rate = self._rates[-1] if self._rates else 0.0
        quick = f", p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms" if latency else ""
        return f"{self._title}: {tally.settled_count:,} done, {rate:,.0f}/s{quick}"

    def __rich__(self) -> Panel:
        tally, elapsed = self._tally, monotonic() - self._tally.started
        done = tally.settled_count / self._total if self._total else elapsed / self._seconds if self._seconds else 0.0
        width = 44
        filled = min(width, int(done * width))
        bar = Text("█" * filled, style="green") + Text("░" * (width - filled), style="bright_black")
        latency = tally.to_result.tail(RECENT).summary_ms()
        rate = self._rates[-1] if self._rates else 0.0
        figures = Table.grid(padding=(0, 3))
        figures.add_row(
            f"[bold]{tally.settled_count:,}[/] done",
            f"[bold]{rate:,.0f}[/]/s",
            f"p50 [bold]{latency['p50']:.1f}[/] ms" if latency else "",
            f"p99 [bold]{latency['p99']:.1f}[/] ms" if latency else "",
            f"[bold]{elapsed:.0f}[/] s",
        )
        outcomes = Text("  ").join(
            Text(f"{name} {count:,}", style=_style(name)) for name, count in _outcomes(tally) if count
        )
        return Panel(
            Group(bar, figures, Text(_sparkline(self._rates[-HISTORY:]), style="cyan"), outcomes),
            title=f"[bold]{self._title}[/]",
            title_align="left",
            width=92,
        )


@asynccontextmanager
async def watching(
    console: Console, title: str, tally: Tally, *, total: int | None = None, seconds: float | None = None
) -> AsyncIterator[None]:
    """Shows the progress of the body."""
    progress = Progress(title, tally, total=total, seconds=seconds)

    async def plain() -> None:
        while True:
            await asyncio.sleep(PLAIN_LINE_SECONDS)
            progress.sample()
            console.print(progress.line(), highlight=False)

    async def drawn(live: Live) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            progress.sample()
            live.refresh()

    if not console.is_terminal:
        task = asyncio.create_task(plain())
        try:
            yield
        finally:
            task.cancel()
        return
    with Live(progress, console=console, auto_refresh=False, transient=True) as live:
        task = asyncio.create_task(drawn(live))
        try:
            yield
        finally:
            task.cancel()


def print_tally(console: Console, title: str, tally: Tally) -> None:
    """The tables at the end: every outcome by its code with rates, then latencies."""
    figures = tally.as_json()
    outcomes = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    outcomes.add_column(min_width=36)
    outcomes.add_column(justify="right", min_width=10)
    outcomes.add_column(justify="right", min_width=10)
    outcomes.add_row("submitted", f"{tally.submitted:,}", "")
    outcomes.add_row("accepted", f"{tally.accepted:,}", f"{figures['accepted_per_second']:,.0f}/s")
    outcomes.add_row(
        "final", f"{tally.final:,}", f"{figures['final_per_second']:,.0f}/s", style="bold", end_section=True
    )
    apart = len(tally.rejections) > CODES_LISTED
    for name, count in _outcomes(tally):
        if not (apart and name.startswith("rejected")):
            outcomes.add_row(Text(name, style=_style(name)), f"{count:,}", f"{count / max(tally.submitted, 1):.1%}")
    if apart:
        refused = tally.rejections.total()
        outcomes.add_row(Text("rejected", style="yellow"), f"{refused:,}", f"{refused / max(tally.submitted, 1):.1%}")
    for name, counter in (("sent again", tally.repeats), ("not foreseen", tally.unforeseen)):
        for what, count in counter.most_common():
            outcomes.add_row(Text(f"{name}: {what}", style="yellow"), f"{count:,}", "")
    if tally.unfinished:
        outcomes.add_row("without an outcome", f"{tally.unfinished:,}", "", style="bold red")
    console.print(outcomes)
    if apart:
        codes = ", ".join(f"{code} {count:,}" for code, count in tally.rejections.most_common())
        console.print(Padding(Text(f"rejected as {codes}", style="yellow"), (0, 0, 1, 1)))
    latencies = Table()
    for column in ("milliseconds from submission", *next(filter(None, figures["latency_ms"].values()), ())):
        latencies.add_column(column, justify="right" if latencies.columns else "left", min_width=7)
    for name, latency in figures["latency_ms"].items():
        if latency:
            latencies.add_row(f"to {name}", *(f"{value:,.1f}" for value in latency.values()))
    console.print(latencies)


def print_kinds(console: Console, tally: Tally) -> None:
    """Outcomes by kind of command."""
    table = Table(title="by kind", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("succeeded", justify="right")
    table.add_column("refused as")
    for kind, outcomes in tally.by_kind().items():
        refused = [f"{code} {count:,}" for code, count in outcomes.items() if code != "succeeded"]
        table.add_row(kind, f"{outcomes.get('succeeded', 0):,}", Text(", ".join(refused), style="yellow"))
    console.print(table)


def print_stories(console: Console, stories: Mapping[str, Any]) -> None:
    """`stories` is Stage.as_json()."""
    told, under_way = sum(stories["told"].values()), stories["under_way"]
    console.print(f"{told:,} stories of {len(stories['told'])} kinds told, {under_way:,} under way", highlight=False)
    for what in stories["off_script"][:OFF_SCRIPT_SHOWN]:
        console.print(f"not foreseen: {what}", style="yellow", markup=False, highlight=False)


def print_tables(console: Console, tables: Tables) -> None:
    """What came of each module, and our own proof."""
    table = Table(title="what came of it", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("", justify="right", style="green")
    table.add_column("TON", justify="right")
    table.add_column("others")
    for module, aim in MODULES.items():
        states = dict(tables.came.get(module, {}))
        count, nano = states.pop(aim, (0, None))
        others = ", ".join(f"{count:,} {state}" for state, (count, _) in states.items())
        if count or others:
            table.add_row(module, f"{count:,} {aim}", "" if nano is None else f"{nano // TON:,}", others)
    console.print(table)
    print_checks(console, "proof from the tables", [(*check, check[1] == check[2]) for check in tables.checks])


def print_verdict(console: Console, verdict: Verdict) -> None:
    if verdict.held is None:
        console.print(f"audit: {' '.join(verdict.lines)}", style="yellow")
    elif verdict.held:
        console.print(f"audit: every invariant holds ({len(verdict.lines)} lines)", style="green", highlight=False)
    else:
        console.print("\n".join(verdict.lines), highlight=False, markup=False)
        console.print("audit: BROKEN", style="bold red")


def print_checks(console: Console, title: str, checks: Iterable[tuple[str, object, object, bool]]) -> bool:
    """(what, expected, found, right) each; whether all are right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("", "expected", "found"):
        table.add_column(column, justify="right" if column else "left")
    table.add_column("")
    all_right = True
    for what, expected, found, right in checks:
        table.add_row(what, _figure(expected), _figure(found), "[green]ok[/]" if right else "[bold red]WRONG[/]")
        all_right = all_right and right
    console.print(table)
    return all_right


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _outcomes(tally: Tally) -> list[tuple[str, int]]:
    """Succeeded first, then the refusals by frequency, then what should not occur."""
    counts = [(status, count) for status, count in tally.statuses.most_common() if status == "succeeded"]
    counts += [(f"rejected {code}", count) for code, count in tally.rejections.most_common()]
    counts += [(status, n) for status, n in tally.statuses.most_common() if status not in {"succeeded", "rejected"}]
    return counts + [(f"problem {code}", count) for code, count in tally.problems.most_common()]


def _style(outcome: str) -> str:
    if outcome == "succeeded":
        return "green"
    return "yellow" if outcome.startswith("rejected") else "red"


def _sparkline(values: list[float]) -> str:
    top = max(values, default=0.0)
    return "".join(BARS[min(8, round(value / top * 8))] for value in values) if top else ""
