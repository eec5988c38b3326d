"""The front door: the command line. Exit status 0 fine, 1 refused or failed, 2 wrong usage.

People at a terminal see tables, pipes get JSON. Programs in Python use the package `souk_client` instead.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from api.cli import commands as command_line
from api.cli.terminal import (
    DEFAULT_DATA_DIR,
    AsJson,
    DataDir,
    fail,
    interruptible,
    is_for_programs,
    print_json,
    show,
    table,
    tell,
    until_interrupted,
    warn,
)

if TYPE_CHECKING:
    from storage.settings import Settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True, help=__doc__)
keys_app = typer.Typer(no_args_is_help=True, help="API keys: created, listed, revoked.")
app.add_typer(command_line.app)
app.add_typer(keys_app, name="keys")


Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Workers = Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")]
Partitions = Annotated[int, typer.Option(min=1, max=999, help="Groups of assets drained side by side.")]


def main() -> None:
    """The console script. What is the user's to mend is one sentence on stderr."""
    try:
        app()
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        fail(sentence)


def _warn_of_unknown_variables() -> None:
    """A misspelt setting does nothing; so that this is seen, each process says so at its start."""
    from storage.settings import told_of_unknown_variables

    if sentence := told_of_unknown_variables():
        warn(sentence)


def _sentence(error: Exception) -> str | None:
    """What to tell the user; None when it is a bug of ours."""
    from sqlalchemy.exc import SQLAlchemyError

    from storage.embedded.servers import EmbeddedError
    from storage.embedded.stack import StackError
    from storage.postgres.schema import SchemaError
    from storage.settings import SettingsError

    if isinstance(error, SettingsError | SchemaError | StackError | EmbeddedError):
        return str(error)
    first_line = (str(getattr(error, "orig", None) or error) or repr(error)).splitlines()[0]
    if isinstance(error, SQLAlchemyError | ConnectionError | TimeoutError):
        return f"the servers cannot be reached: {first_line}"
    return first_line if isinstance(error, OSError) else None


# -- the processes


@app.command()
def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Workers = 2,
    partitions: Partitions = 64,
) -> None:
    """Run the whole stack in the foreground: PostgreSQL, Redis, migrations, API, workers; Ctrl-C stops it."""
    from storage.embedded.installation import brought_up

    _warn_of_unknown_variables()
    with brought_up(data_dir, host, port, workers, partitions) as processes, interruptible():
        tell(f"ready: {processes.url}")
        until_interrupted()


@app.command()
def demo(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Workers = 2,
    partitions: Partitions = 64,
    once: Annotated[bool, typer.Option("--once", help="End when the demo ends.")] = False,
    seconds: Annotated[float, typer.Option(min=1, help="How long to trade.")] = 10.0,
    seed: Annotated[int, typer.Option(help="The marketplace and its trades depend on nothing else.")] = 1,
) -> None:
    """Run the stack, fill a small marketplace, and trade on it over HTTP."""
    from loadtest.demo import demo as trade
    from loadtest.terms import BRISK
    from storage.embedded import stack
    from storage.embedded.installation import brought_up

    _warn_of_unknown_variables()
    for name, value in BRISK.items():
        os.environ.setdefault(name, value)
    with brought_up(data_dir, host, port, workers, partitions) as processes, interruptible():
        tell(f"ready: {processes.url}")
        key = stack.operator_key_file(data_dir).read_text().strip()
        held = asyncio.run(trade(processes.url, key, stack.running(data_dir), seed=seed, seconds=seconds))
        if once:
            raise SystemExit(0 if held else 1)
        tell(
            f"\nThe stack is up until Ctrl-C. Try:\n\n"
            f'  curl -H "Authorization: Bearer $(cat {stack.operator_key_file(data_dir)})" '
            f"{processes.url}/v1/listings\n"
        )
        until_interrupted()


@app.command()
def api(host: Host = "127.0.0.1", port: Port = 8000) -> None:
    """Run one API process."""
    settings = _checked_settings("api")
    from api.app import make_app
    from api.server import serve

    serve(make_app(settings), host, port)


@app.command()
def worker(
    burst: Annotated[bool, typer.Option("--burst", help="End when nothing is left to do.")] = False,
) -> None:
    """Run one worker process."""
    settings = _checked_settings("worker")
    import uvloop

    from workers.worker import END_SIGNALS, SoukWorker

    # A signal before the loop turns would be lost: it waits until the worker's `main` can hear it.
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        asyncio.set_event_loop(runner.get_loop())
        SoukWorker(settings, burst=burst).run()


@app.command()
def migrate() -> None:
    """Bring the database to the newest version."""
    from storage.postgres.schema import migrate as bring_up_to_date
    from storage.settings import load_settings

    _warn_of_unknown_variables()
    settings = load_settings()
    _run(lambda engine: bring_up_to_date(engine, settings), settings)


def _checked_settings(name: str) -> "Settings":
    # Until it can drain there is nothing to lose; an exception might be raised where nobody lets it pass, in the
    # collector of garbage say. And uvicorn raises the signal again when it has drained.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    # Most objects die young and in no cycle: collecting seldom saves a tenth of the time.
    gc.set_threshold(50_000, 20, 50)
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {name} %(levelname)s %(message)s")
    from storage.postgres.schema import check
    from storage.settings import load_settings

    _warn_of_unknown_variables()
    settings = load_settings()
    _run(lambda engine: check(engine, settings), settings)
    return settings


def _run(work: Any, settings: "Settings") -> Any:
    """Run `work(engine)` with a pool of its own."""
    from storage.postgres.connection import engine as make_engine

    async def with_engine() -> Any:
        engine = make_engine(settings)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(with_engine())


# -- the operator's


@app.command()
def queues(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
) -> None:
    """Show each partition: commands waiting, age of the oldest, owner, fence."""
    from storage.journal.backlog import backlog

    settings = _settings_of(data_dir)
    if not watch:
        rows = _run(backlog, settings)
        show("Queues", rows, as_json)
        return
    with interruptible():
        if is_for_programs(as_json):
            while True:
                tell(json.dumps(_run(backlog, settings)))
                time.sleep(1)
        from rich.live import Live

        with Live(table("Queues", _run(backlog, settings)), auto_refresh=False) as live:
            while True:
                time.sleep(1)
                live.update(table("Queues", _run(backlog, settings)), refresh=True)


@app.command()
def failed(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = None) -> None:
    """Show the commands that were set aside because of a bug, and what it said."""
    from storage.journal.redrive import failed as find_failed

    rows = _run(find_failed, _settings_of(data_dir))
    shown = [
        {name: row[name] for name in ("id", "kind", "asset", "accepted_at")}
        | {"error": ((row["error"] or "").strip().splitlines() or [""])[-1]}
        for row in rows
    ]
    show("Failed", rows, as_json, shown)


@app.command()
def redrive(
    ids: Annotated[list[UUID] | None, typer.Argument(metavar="ID…")] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="Every failed command.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run failed commands again, once their bug is mended.

    Each keeps its place: those of one asset run in the order in which they were accepted, and before what still waits
    there. Nothing is run again when one is not failed, or when an older failed command of its asset, which it would
    overtake, is not named too.
    """
    if bool(ids) == all_of_them:
        raise typer.BadParameter("name the failed commands, or say --all")
    from storage.journal.redrive import Refused
    from storage.journal.redrive import redrive as accept_again

    settings = _settings_of(data_dir)
    try:
        again = _run(lambda engine: accept_again(engine, ids or [], all_of_them=all_of_them), settings)
    except Refused as refusal:
        fail(str(refusal))
    print_json({"redriven": again})


@app.command()
def repartition(
    number: Annotated[int, typer.Argument(min=1, max=999, metavar="N")], data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Change the number of partitions, while no API and no worker runs. It is safe to cut off at any point."""
    from storage.embedded import stack
    from storage.journal.repartition import AtWork
    from storage.journal.repartition import repartition as change_partitions

    with ExitStack() as servers:
        given = stack.running(data_dir)
        if not given and "SOUK_DATABASE_URL" not in os.environ and data_dir.exists():
            given = servers.enter_context(stack.servers(data_dir.resolve())).as_environment()
        os.environ.update(given | {"SOUK_PARTITIONS": str(number)})
        settings = _settings_of(data_dir)
        try:
            before, moved = _run(lambda engine: change_partitions(engine, settings, number), settings)
        except AtWork:
            fail("an API or a worker is at work: stop them all first")
    print_json({"partitions": number, "before": before, "commands_moved": moved})


@app.command()
def audit(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = None) -> None:
    """Prove from the tables that money and items are conserved; exit status 1 when an invariant is broken."""
    from rich.text import Text

    from storage.audit import audit as find_broken

    settings = _settings_of(data_dir)
    findings = _run(lambda engine: find_broken(engine, settings), settings)
    shown = [
        {
            "": finding.name,
            "invariant": finding.statement,
            "figure": f"{finding.figure:,}",
            "verdict": Text(f"broken: {', '.join(finding.broken)}", "red")
            if finding.broken
            else Text("holds", "green"),
        }
        for finding in findings
    ]
    show("Audit", [finding._asdict() for finding in findings], as_json, shown)
    raise SystemExit(int(any(finding.broken for finding in findings)))


@app.command()
def config(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = None) -> None:
    """Show every setting, its value and where it came from; secrets are masked."""
    from storage.embedded import stack

    _warn_of_unknown_variables()
    settings = _settings_of(data_dir)
    rows = []
    for name in type(settings).model_fields:
        variable = f"SOUK_{name.upper()}"
        source = "environment" if variable in os.environ else "set" if name in settings.model_fields_set else "default"
        if source == "set":
            source = "running stack" if variable in stack.running(data_dir) else ".env"
        rows.append({"setting": variable, "value": str(getattr(settings, name)), "from": source})
    show("Settings", rows, as_json)


@keys_app.command("create")
def keys_create(
    role: Annotated[Literal["operator", "feed", "service", "user"], typer.Option(help="What the key may do.")],
    user: Annotated[int | None, typer.Option(min=1, help="The user that a user's key is bound to.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Create a key and print it, this once."""
    if (role == "user") != (user is not None):
        message = "goes with --role user, and only with it"
        raise typer.BadParameter(message, param_hint="--user")
    from storage.keys import Role, create_key

    key_id, key = _run(lambda engine: create_key(engine, Role(role), user), _settings_of(data_dir))
    print_json({"id": key_id, "role": role, "user_id": user, "key": key})


@keys_app.command("list")
def keys_list(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = None) -> None:
    """List all keys, without their secrets."""
    from storage.keys import list_keys

    show("Keys", _run(list_keys, _settings_of(data_dir)), as_json)


@keys_app.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Revoke a key; it stops working within a second."""
    from storage.keys import revoke_key

    if not _run(lambda engine: revoke_key(engine, key_id), _settings_of(data_dir)):
        fail(f"there is no key {key_id} in force")


def _settings_of(data_dir: Path) -> "Settings":
    from storage.embedded.installation import settings_of

    return settings_of(data_dir)


if __name__ == "__main__":
    main()
