"""The front door: the command line. Exit status 0 fine, 1 refused or failed, 2 wrong usage."""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import UUID

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy.exc import SQLAlchemyError

from storage import schema, stack
from storage.audit import audit as find_broken
from storage.backlog import backlog
from storage.database import engine as make_engine
from storage.embedded import EmbeddedError
from storage.failed import failed as find_failed
from storage.failed import redrive as accept_again
from storage.keys import Role, create_key, list_keys, revoke_key
from storage.repartition import AtWork
from storage.repartition import repartition as change_partitions
from storage.settings import Settings, SettingsError, load_settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True, help=__doc__)
keys_app = typer.Typer(no_args_is_help=True, help="API keys: created, listed, revoked.")
app.add_typer(keys_app, name="keys")

DataDir = Annotated[Path, typer.Option(help="Where the embedded servers keep their data.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Workers = Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")]
Partitions = Annotated[int, typer.Option(min=1, max=999, help="Groups of assets drained side by side.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of a table for people.")]

DEFAULT_DATA_DIR = Path(".souk")
CLIENT_SECONDS = 60


def main() -> None:
    """The console script. What is the user's to mend is one sentence on stderr."""
    try:
        app()
    except (SettingsError, schema.SchemaError, stack.StackError, EmbeddedError) as error:
        _fail(str(error))
    except (SQLAlchemyError, ConnectionError, TimeoutError) as error:
        _fail(f"the servers cannot be reached: {_first_line(error)}")
    except OSError as error:
        _fail(_first_line(error))


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"souk: {message}\n")
    raise SystemExit(1)


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "orig", None) or error) or repr(error)).splitlines()[0]


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
    with _stack(data_dir, host, port, workers, partitions) as processes, _interruptible():
        processes.watch()


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

    for name, value in BRISK.items():
        os.environ.setdefault(name, value)
    with _stack(data_dir, host, port, workers, partitions) as processes, _interruptible():
        key = stack.operator_key_file(data_dir).read_text().strip()
        held = asyncio.run(trade(processes.url, key, stack.running(data_dir), seed=seed, seconds=seconds))
        if once:
            raise SystemExit(0 if held else 1)
        sys.stdout.write(
            f"\nThe stack is up until Ctrl-C. Try:\n\n"
            f'  curl -H "Authorization: Bearer $(cat {stack.operator_key_file(data_dir)})" '
            f"{processes.url}/v1/listings\n\n"
        )
        sys.stdout.flush()
        processes.watch()


@contextmanager
def _stack(data_dir: Path, host: str, port: int, workers: int, partitions: int) -> Iterator[stack.Processes]:
    """The stack, ready: servers, schema, the operator's key, processes."""
    port = stack.free_port(host, port)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("SOUK_PARTITIONS", str(partitions))
    with stack.servers(data_dir.resolve()) as found:
        asyncio.run(_prepare(found, data_dir))
        with stack.Processes(data_dir, found, host, port, workers) as processes:
            sys.stdout.write(f"ready: {processes.url}\n")
            sys.stdout.flush()
            yield processes


async def _prepare(found: stack.Servers, data_dir: Path) -> None:
    settings = load_settings(database_url=SecretStr(found.database_url), redis_url=SecretStr(found.redis_url))
    engine = make_engine(settings)
    try:
        await schema.migrate(engine, settings)
        key_file = stack.operator_key_file(data_dir)
        if not key_file.exists():
            _, key = await create_key(engine, Role.OPERATOR)
            stack.write_private(key_file, key + "\n")
    finally:
        await engine.dispose()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block, quietly."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # both: a shell that starts us in its background ignores SIGINT
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        # From here on we drain, and being asked once more changes nothing.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


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

    from workers.worker import SoukWorker

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        asyncio.set_event_loop(runner.get_loop())
        SoukWorker(settings, burst=burst).run()


@app.command()
def migrate() -> None:
    """Bring the database to the newest version."""
    settings = load_settings()
    _run(lambda engine: schema.migrate(engine, settings), settings)


def _checked_settings(name: str) -> Settings:
    for number in (signal.SIGINT, signal.SIGTERM):  # until it drains; and uvicorn raises the signal again after that
        signal.signal(number, lambda *_: sys.exit())
    # Most objects die young and in no cycle: collecting seldom saves a tenth of the time.
    gc.set_threshold(50_000, 20, 50)
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {name} %(levelname)s %(message)s")
    settings = load_settings()
    _run(lambda engine: schema.check(engine, settings), settings)
    return settings


def _run(work: Any, settings: Settings) -> Any:
    """Run `work(engine)` with a pool of its own."""

    async def with_engine() -> Any:
        engine = make_engine(settings)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(with_engine())


# -- the clients


@app.command()
def submit(
    kind: Annotated[str, typer.Argument(help="The command's kind, like nft.buy.")],
    fields: Annotated[list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="Its payload.")] = None,
    actor: Annotated[int | None, typer.Option(help="The user in whose name it is sent.")] = None,
    key: Annotated[str | None, typer.Option(help="An idempotency key: sent twice, it happens once.")] = None,
    wait: Annotated[int, typer.Option(min=0, max=30, help="Seconds to wait for the outcome.")] = 10,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Submit one command and print its receipt as JSON. A value is JSON where it reads as such, else text."""
    body: dict[str, Any] = {"kind": kind, "payload": dict(_field(field) for field in fields or [])}
    if actor is not None:
        body["actor"] = actor
    if key is not None:
        body["idempotency_key"] = key
    receipt = _call(data_dir, "POST", "/v1/commands", body, {"Prefer": f"wait={wait}"} if wait else {})
    _print_json(receipt)
    if receipt["status"] in ("rejected", "failed", "cancelled", "expired"):
        raise SystemExit(1)


@app.command()
def get(command_id: Annotated[str, typer.Argument(metavar="ID")], data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print the receipt of a command as JSON."""
    _print_json(_call(data_dir, "GET", f"/v1/commands/{command_id}"))


def _field(text_: str) -> tuple[str, Any]:
    name, equals, value = text_.partition("=")
    if not equals or not name:
        message = f"{text_!r} is not FIELD=VALUE"
        raise typer.BadParameter(message)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _call(
    data_dir: Path, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Ask the API: the one that SOUK_URL and SOUK_API_KEY name, or the stack running in the data directory."""
    url = os.environ.get("SOUK_URL") or stack.running(data_dir).get("SOUK_URL") or "http://127.0.0.1:8000"
    key_file = stack.operator_key_file(data_dir)
    key = os.environ.get("SOUK_API_KEY") or (key_file.read_text().strip() if key_file.exists() else "")
    if not key:
        _fail(f"no key: set SOUK_API_KEY, or name the --data-dir of a running stack ({key_file} does not exist)")
    request = Request(  # noqa: S310 - the user's own address
        url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json", **(headers or {})},
    )
    try:
        with urlopen(request, timeout=CLIENT_SECONDS) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
            return answer
    except HTTPError as error:
        problem = json.load(error)
        sentences = [problem["detail"], *(f"{item['path']}: {item['message']}" for item in problem.get("errors", []))]
        _fail(f"{problem['code']}: " + " ".join(sentences))
    except URLError as error:
        _fail(f"nothing answers at {url} ({error.reason}): is `souk up` running?")


# -- the operator's


@app.command()
def queues(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
) -> None:
    """Show each partition: commands waiting, age of the oldest, owner, fence."""
    settings = _settings_of(data_dir)
    console = Console()
    with _interruptible():
        while True:
            rows = _run(backlog, settings)
            if as_json:
                _print_json(rows)
            else:
                if watch:
                    console.clear()
                console.print(_queue_table(rows))
            if not watch:
                return
            time.sleep(1)


def _queue_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("partition", "depth", "oldest s", "owner", "fence", title="Queues")
    for row in rows:
        table.add_row(*(str("" if value is None else value) for value in row.values()))
    return table


@app.command()
def failed(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Show the commands that were set aside because of a bug, and what it said."""
    rows = _run(find_failed, _settings_of(data_dir))
    if as_json:
        _print_json(rows)
        return
    table = Table(Column("id", no_wrap=True), "kind", "asset", "accepted at", "error", title=f"{len(rows)} failed")
    for row in rows:
        error = (row["error"] or "").strip().splitlines() or [""]
        table.add_row(*(str(row[name]) for name in ("id", "kind", "asset", "accepted_at")), error[-1])
    Console().print(table)


@app.command()
def redrive(
    ids: Annotated[list[UUID] | None, typer.Argument(metavar="ID…")] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="Every failed command.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run failed commands again, once their bug is mended."""
    if bool(ids) == all_of_them:
        raise typer.BadParameter("name the failed commands, or say --all")
    again = _run(lambda engine: accept_again(engine, ids or [], all_of_them=all_of_them), _settings_of(data_dir))
    _print_json({"redriven": again})
    missing = set(ids or []) - set(again)
    if missing:
        _fail(f"not failed, or unknown: {', '.join(sorted(map(str, missing)))}")


@app.command()
def repartition(
    number: Annotated[int, typer.Argument(min=1, max=999, metavar="N")], data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Change the number of partitions, while no API and no worker runs. It is safe to cut off at any point."""
    with ExitStack() as servers:
        given = stack.running(data_dir)
        if not given and "SOUK_DATABASE_URL" not in os.environ and data_dir.exists():
            given = servers.enter_context(stack.servers(data_dir.resolve())).as_environment()
        os.environ.update(given | {"SOUK_PARTITIONS": str(number)})
        settings = _settings_of(data_dir)
        try:
            before, moved = _run(lambda engine: change_partitions(engine, settings, number), settings)
        except AtWork:
            _fail("an API or a worker is at work: stop them all first")
    _print_json({"partitions": number, "before": before, "commands_moved": moved})


@app.command()
def audit(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Prove from the tables that money and items are conserved; exit status 1 when an invariant is broken."""
    settings = _settings_of(data_dir)
    findings = _run(lambda engine: find_broken(engine, settings), settings)
    if as_json:
        _print_json([finding._asdict() for finding in findings])
    else:
        table = Table("", "invariant", "figure", "verdict", title="Audit")
        for finding in findings:
            verdict = f"[red]broken: {', '.join(finding.broken)}" if finding.broken else "[green]holds"
            table.add_row(finding.name, finding.statement, f"{finding.figure:,}", verdict)
        Console().print(table)
    raise SystemExit(int(any(finding.broken for finding in findings)))


@app.command()
def config(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show every setting, its value and where it came from; secrets are masked."""
    settings = _settings_of(data_dir)
    table = Table("setting", "value", "from", title="Settings")
    for name in type(settings).model_fields:
        variable = f"SOUK_{name.upper()}"
        source = "environment" if variable in os.environ else "set" if name in settings.model_fields_set else "default"
        if source == "set":
            source = "running stack" if variable in stack.running(data_dir) else ".env"
        table.add_row(variable, str(getattr(settings, name)), source)
    Console().print(table)


@keys_app.command("create")
def keys_create(
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    user: Annotated[int | None, typer.Option(min=1, help="The user that a user's key is bound to.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Create a key and print it, this once."""
    if (role is Role.USER) != (user is not None):
        message = "goes with --role user, and only with it"
        raise typer.BadParameter(message, param_hint="--user")
    key_id, key = _run(lambda engine: create_key(engine, role, user), _settings_of(data_dir))
    _print_json({"id": key_id, "role": role, "user_id": user, "key": key})


@keys_app.command("list")
def keys_list(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List all keys, without their secrets."""
    _print_json(_run(list_keys, _settings_of(data_dir)))


@keys_app.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Revoke a key; it stops working within a second."""
    if not _run(lambda engine: revoke_key(engine, key_id), _settings_of(data_dir)):
        _fail(f"there is no key {key_id} in force")


def _settings_of(data_dir: Path) -> Settings:
    """The settings of the environment, else of the stack running in the data directory."""
    known = {name.removeprefix("SOUK_").lower(): value for name, value in stack.running(data_dir).items()}
    missing = {
        name: known[name]
        for name in ("database_url", "redis_url", "partitions")
        if name in known and f"SOUK_{name.upper()}" not in os.environ
    }
    if not missing and "SOUK_DATABASE_URL" not in os.environ and not Path(".env").exists():
        _fail(f"set SOUK_DATABASE_URL, or name the --data-dir of a running stack (none runs in {data_dir})")
    return load_settings(**missing)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
