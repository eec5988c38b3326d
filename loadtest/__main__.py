"""`python -m loadtest`: load, replays and comparisons. Exit 0: all held, 1: something did not, 2: wrong usage."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from loadtest.baseline import PgbenchFailed
from loadtest.compare import ComparePlan, Untrue, compare
from loadtest.faults.campaign import Plan as FaultsPlan
from loadtest.faults.campaign import campaign
from loadtest.faults.site import Redises
from loadtest.faults.takeovers import TakeoverPlan, takeover
from loadtest.history import BadHistory
from loadtest.listeners import ListenPlan, listen
from loadtest.locks import compare_locks
from loadtest.mix import Mix
from loadtest.populate import SetupFailed
from loadtest.replay import replay
from loadtest.run import Plan, RunResult, run
from loadtest.scale import ScalePlan, scale
from loadtest.stack import StackFailed, own_stack, target
from loadtest.terms import BRISK
from souk_client import SoukError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Load, replays and comparisons over HTTP, each ending with an audit of the tables.",
)

Url = Annotated[
    str | None,
    typer.Option(envvar="SOUK_URL", help="Where to send; by default the stack on --data-dir, else one of its own."),
]
Key = Annotated[str | None, typer.Option(envvar="SOUK_API_KEY", help="An operator's key.")]
DataDir = Annotated[Path, typer.Option(help="Of the running stack: its address, its servers, its operator key.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the results there.")]


@app.command("run")
def run_command(  # noqa: PLR0913, PLR0917 - one option each
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = Path(".souk"),
    json_file: Json = None,
    mix: Annotated[Mix, typer.Option(help="What people are busy with.")] = Plan.mix,
    seed: Annotated[int, typer.Option(help="The same seed gives the same commands.")] = Plan.seed,
    users: Annotated[int, typer.Option(min=10, max=100_000)] = Plan.users,
    items: Annotated[int, typer.Option(min=1, max=500_000)] = Plan.items,
    commands: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so long; 10 if neither is given.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=4_096, help="Closed loop: bodies under way.")] = 64,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Open loop: commands a second, come what may.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Commands in a body.")] = Plan.batch,
    skew: Annotated[float, typer.Option(min=0.0, max=3.0, help="How hot the hottest items are (zipf).")] = Plan.skew,
) -> None:
    """Trade on a seeded marketplace, and account for every command."""
    if commands is None and seconds is None:
        seconds = 10.0
    plan = Plan(mix, seed, users, items, commands, seconds, concurrency, rate, batch, skew)

    async def on_target(console: Console) -> RunResult:
        async with target(url, key, data_dir, BRISK) as found:
            return await run(found, plan, console)

    _finish(on_target, json_file)


@app.command("replay")
def replay_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="sold_at,nft_id,price_nano,seller,buyer")],
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = Path(".souk"),
    json_file: Json = None,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Commands in a body.")] = 500,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Bodies under way.")] = 2,
) -> None:
    """Replay a sales history in order per item, then compare the tables with the file."""

    async def on_target(console: Console) -> RunResult:
        async with target(url, key, data_dir) as found:
            if "SOUK_DATABASE_URL" not in found.environment:
                raise typer.BadParameter(
                    "a replay reads the tables: give SOUK_DATABASE_URL, or --data-dir of the stack"
                )
            return await replay(found, file, console, batch=batch, concurrency=concurrency)

    _finish(on_target, json_file)


@app.command("compare")
def compare_command(
    json_file: Json = None,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Each of all three, interleaved.")] = ComparePlan.rounds,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Of each in each round.")] = ComparePlan.seconds,
    users: Annotated[int, typer.Option(min=64, max=20_000)] = ComparePlan.users,
    items: Annotated[int, typer.Option(min=1_600, max=200_000)] = ComparePlan.items,
    concurrency: Annotated[int, typer.Option(min=1, max=1_024, help="Of single commands.")] = ComparePlan.concurrency,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Worker processes of the stack.")] = ComparePlan.workers,
) -> None:
    """The same trade as plain SQL by pgbench, by single commands and by batches, on servers of its own."""
    plan = ComparePlan(rounds, seconds, users, items, concurrency, workers)

    async def on_own_stack(console: Console) -> RunResult:
        async with own_stack(workers) as stack:
            return await compare(stack, plan, console)

    _finish(on_own_stack, json_file)


@app.command("scale")
def scale_command(
    json_file: Json = None,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Of every configuration.")] = ScalePlan.rounds,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Of each load in each.")] = ScalePlan.seconds,
    users: Annotated[int, typer.Option(min=64, max=20_000)] = ScalePlan.users,
    items: Annotated[
        int, typer.Option(min=1_000, max=200_000, help="Each is sold once a measurement.")
    ] = ScalePlan.items,
) -> None:
    """1, 2 and 4 workers behind 1 and 2 APIs: throughput, what a command costs each part, and what bounds it."""
    plan = ScalePlan(rounds, seconds, users, items)

    async def on_own_stack(console: Console) -> RunResult:
        async with own_stack(0) as stack:
            return await scale(stack, plan, console)

    _finish(on_own_stack, json_file)


@app.command("locks")
def locks_command(
    json_file: Json = None,
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Of each lock, in turns.")] = 5,
) -> None:
    """Souk's lock beside redis-py's, on a Redis of its own."""

    async def on_own_stack(console: Console) -> RunResult:
        async with own_stack(1) as stack:
            return await compare_locks(stack, rounds, console)

    _finish(on_own_stack, json_file)


@app.command("listen")
def listen_command(
    json_file: Json = None,
    waiters: Annotated[int, typer.Option(min=1, max=20_000, help="Requests that wait.")] = ListenPlan.waiters,
    streams: Annotated[int, typer.Option(min=1, max=2_000, help="Streams of one item each.")] = ListenPlan.streams,
    seconds: Annotated[float, typer.Option(min=4, help="How long they trade.")] = ListenPlan.seconds,
    rate: Annotated[float, typer.Option(min=1, help="Trades a second.")] = ListenPlan.rate,
) -> None:
    """Thousands who wait or listen at one API process while others trade, on a stack of its own."""
    plan = ListenPlan(waiters, streams, seconds, rate)

    async def on_own_stack(console: Console) -> RunResult:
        async with own_stack(settings={"SOUK_STREAMS_MAX": str(streams + 1)}) as stack:
            return await listen(stack, plan, console)

    _finish(on_own_stack, json_file)


@app.command("faults")
def faults_command(
    json_file: Json = None,
    seconds: Annotated[float, typer.Option(min=5, help="How long faults happen.")] = FaultsPlan.seconds,
    seed: Annotated[int, typer.Option(help="The same seed gives the same faults.")] = FaultsPlan.seed,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Worker processes.")] = FaultsPlan.workers,
    lease: Annotated[float, typer.Option(min=1, help="SOUK_LEASE_SECONDS of the run.")] = FaultsPlan.lease_seconds,
    pause: Annotated[float, typer.Option(min=0.1, help="Seconds between faults, about.")] = FaultsPlan.pause_seconds,
    redis: Annotated[Redises, typer.Option(help="One server; or a master, its replica and sentinels.")] = Redises.ONE,
) -> None:
    """Trade while servers and processes are broken in every way, then account for every command."""
    plan = FaultsPlan(
        seconds=seconds, seed=seed, workers=workers, lease_seconds=lease, pause_seconds=pause, redis=redis
    )
    _finish(lambda console: campaign(plan, console), json_file)


@app.command("takeover")
def takeover_command(
    json_file: Json = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Of every case, with Redis and without.")] = 20,
) -> None:
    """Kill, stop, end and add workers under load: how long partitions stand still, held to bars."""
    _finish(lambda console: takeover(TakeoverPlan(rounds=rounds), console), json_file)


def _finish(work: Callable[[Console], Awaitable[RunResult]], json_file: Path | None) -> None:
    console = Console()

    async def finish() -> RunResult:
        return await work(console)

    try:
        result = uvloop.run(finish())
        if json_file is not None:
            json_file.write_text(json.dumps(result.figures, indent=2) + "\n")
    except BadHistory as error:
        raise typer.BadParameter(str(error)) from None
    except (StackFailed, SetupFailed, PgbenchFailed, Untrue, SoukError, OSError) as error:
        console.print(str(error), style="bold red", markup=False)
        raise typer.Exit(1) from None
    if not result.good:
        raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="python -m loadtest")
