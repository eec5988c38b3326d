"""The commands that speak HTTP: submit, get, cancel and watch, and what helps with the names they take."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from api.cli.terminal import DEFAULT_DATA_DIR, AsJson, DataDir, fail, interruptible, is_for_programs, print_json, tell

if TYPE_CHECKING:
    from souk_client import Problem, SyncClient

app = typer.Typer()

PATIENCE_SECONDS = 3.0
"""For how long a request is sent again while a person waits for one answer."""
UNAUTHENTICATED = 401
TOPICS = ("market", "nft:", "gift:", "channel:", "collection:", "trade:", "auctions:", "user:", "commands", "ops")


def _complete_kind(incomplete: str) -> list[str]:
    from commands.command import KINDS

    return [kind for kind in sorted(KINDS) if kind.startswith(incomplete)]


def _complete_field(context: typer.Context, incomplete: str) -> list[str]:
    fields = (f"{name.removesuffix('?')}=" for name in _fields_of(context.params.get("kind") or ""))
    return [field for field in fields if field.startswith(incomplete)]


def _complete_topic(incomplete: str) -> list[str]:
    return [topic for topic in TOPICS if topic.startswith(incomplete)]


CommandId = Annotated[str, typer.Argument(metavar="ID")]


@app.command()
def submit(  # noqa: PLR0913, PLR0917 - one option each
    kind: Annotated[
        str | None, typer.Argument(help="The command's kind, like nft.buy.", autocompletion=_complete_kind)
    ] = None,
    fields: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="Its payload.", autocompletion=_complete_field)
    ] = None,
    file: Annotated[
        typer.FileBinaryRead | None, typer.Option(help="Many commands instead, a line of JSON each; - is stdin.")
    ] = None,
    actor: Annotated[int | None, typer.Option(help="The user in whose name it is sent.")] = None,
    key: Annotated[
        str | None, typer.Option(help="An idempotency key: sent twice, it happens once. Of a file, KEY:1, KEY:2 …")
    ] = None,
    wait: Annotated[int, typer.Option(min=0, max=30, help="Seconds to wait for the outcome.")] = 10,
    run_at: Annotated[str | None, typer.Option(metavar="TIME", help="Not before, like 2030-01-01T00:00:00Z.")] = None,
    not_after: Annotated[str | None, typer.Option(metavar="TIME", help="Not started by then, it expires.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Submit one command and print its receipt as JSON. A value is JSON where it reads as such, else text."""
    if (kind is None) == (file is None) or (file is not None and (run_at or not_after)):
        raise typer.BadParameter("name a KIND with its fields, or a --file whose lines say all")
    if file is not None:
        _submit_file(file, actor, key, wait, data_dir)
        return
    payload = dict(_field(field, kind or "") for field in fields or [])
    if key == "":
        fail("invalid: idempotency_key: it is empty")
    with _client(data_dir, kind=kind or "") as souk:
        receipt = souk.submit(
            kind or "",
            payload,
            actor=actor,
            idempotency_key=key,
            wait=wait,
            run_at=run_at,
            not_after=not_after,
        )
    print_json(receipt.raw)
    raise SystemExit(int(receipt.is_final and not receipt.succeeded))


def _submit_file(file: typer.FileBinaryRead, actor: int | None, key: str | None, wait: int, data_dir: Path) -> None:
    """Receipts go to stdout, a line each, in their order; what went wrong is told on stderr too."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from api.cli.lines import submit_lines
    from souk_client import Problem, Unreachable

    total = None
    if file.seekable():
        total = sum(1 for line in file if line.strip())
        file.seek(0)
    console = Console(stderr=True)
    columns = (TextColumn("submitting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    good = True
    with (
        _client(data_dir, patience=None) as souk,
        Progress(
            *columns, console=console, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()
        ) as progress,
    ):
        bar = progress.add_task("", total=total)
        for lines in submit_lines(souk, iter(file.readline, b""), actor=actor, idempotency_key=key, wait=wait):
            for line in lines:
                good = good and not line.is_bad
                if isinstance(line.outcome, Problem) and line.outcome.status != UNAUTHENTICATED:
                    progress.console.print(f"souk: line {line.number}: {line.outcome}", markup=False, soft_wrap=True)
                sys.stdout.write(json.dumps(line.raw, ensure_ascii=False) + "\n")
            sys.stdout.flush()
            progress.advance(bar, len(lines))
            last = lines[-1].outcome
            if isinstance(last, Unreachable) or (isinstance(last, Problem) and last.status == UNAUTHENTICATED):
                raise last  # those to come would fare no better
    raise SystemExit(int(not good))


@app.command()
def get(command_id: CommandId, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print the receipt of a command as JSON."""
    with _client(data_dir) as souk:
        print_json(souk.get(command_id).raw)


@app.command()
def cancel(command_id: CommandId, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Cancel a command that was not executed yet, and print its receipt as JSON."""
    with _client(data_dir) as souk:
        receipt = souk.cancel(command_id)
    print_json(receipt.raw)
    if receipt.status != "cancelled":
        fail(f"too late: it has {receipt.status}" if receipt.succeeded else f"too late: it is {receipt.status}")


@app.command()
def watch(
    what: Annotated[
        list[str], typer.Argument(metavar="(ID | TOPIC…)", help="nft:17, market …", autocompletion=_complete_topic)
    ],
    after: Annotated[str | None, typer.Option(metavar="EVENT", help="Go on after the event of this id.")] = None,
    as_json: AsJson = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a command until it is final, or events as they happen, until Ctrl-C: a line each."""
    with interruptible(), _client(data_dir, patience=None) as souk:
        if len(what) > 1 or not _is_id(what[0]):
            for event in souk.events(*what, after=after):
                said = " ".join(f"{name}={value}" for name, value in event.fields.items())
                people = f"{event.at.astimezone():%H:%M:%S}  {event.name:<24} {said}"
                tell(json.dumps(event.raw, ensure_ascii=False) if is_for_programs(as_json) else people)
            return
        for receipt in souk.stream(what[0]):
            at = (receipt.finished_at or receipt.accepted_at or datetime.now(UTC)).astimezone()
            why = receipt.rejection.code if receipt.rejection else ""
            people = f"{at:%H:%M:%S}  {receipt.kind:<24} {receipt.status} {why}"
            tell(json.dumps(receipt.raw, ensure_ascii=False) if is_for_programs(as_json) else people)
            if receipt.is_final:
                raise SystemExit(int(not receipt.succeeded))


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _field(text: str, kind: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        near = get_close_matches(name, [field.removesuffix("?") for field in _fields_of(kind)], 1)
        hint = f": did you mean {near[0]}=…?" if near else ""
        message = f"{text!r} is not FIELD=VALUE{hint}"
        raise typer.BadParameter(message)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _fields_of(kind: str) -> list[str]:
    """The fields of a kind's payload, with ? where they may be left out."""
    from commands.command import KINDS

    fields = KINDS[kind].model_fields if kind in KINDS else {}
    return [name if field.is_required() else f"{name}?" for name, field in fields.items()]


@contextmanager
def _client(data_dir: Path, *, patience: float | None = PATIENCE_SECONDS, kind: str = "") -> "Iterator[SyncClient]":
    """Of the API that SOUK_URL and SOUK_API_KEY name, or of the stack running in the data directory. What the API
    refuses ends the program with a sentence."""
    from souk_client import NoConnection, Problem, SyncClient, Unreachable
    from storage.embedded import stack

    url = os.environ.get("SOUK_URL") or stack.running(data_dir).get("SOUK_URL") or "http://127.0.0.1:8000"
    key_file = stack.operator_key_file(data_dir)
    key = os.environ.get("SOUK_API_KEY") or (key_file.read_text().strip() if key_file.exists() else "")
    if not key:
        fail(f"no key: set SOUK_API_KEY, or name the --data-dir of a running stack ({key_file} does not exist)")
    try:
        with SyncClient(url, key, patience=patience) as souk:
            yield souk
    except NoConnection as error:
        fail(f"{error}: is `souk up` running?")
    except Unreachable as error:
        fail(f"no whole answer came from {url} ({error}): is it Souk?")
    except ValueError as error:
        fail(str(error))
    except Problem as problem:
        source = "SOUK_API_KEY" if os.environ.get("SOUK_API_KEY") else key_file
        fail(f"{problem}{_hint(problem, kind, source)}")


def _hint(problem: "Problem", kind: str, source: object) -> str:
    """What to do about it, if that can be told."""
    from commands.command import KINDS

    if problem.code == "unauthenticated":
        return f" The key is that of {source}; `souk keys create` makes another."
    if problem.code == "forbidden":
        return f" The key is that of {source}; `souk keys list` tells the roles."
    paths = [error["path"] for error in problem.errors]
    if "kind" in paths and (near := get_close_matches(kind, list(KINDS))):
        return f". Did you mean {' or '.join(near)}?"
    if any(path.startswith("payload") for path in paths):
        return f". {kind} takes {', '.join(_fields_of(kind)) or 'nothing'}."
    return ". Name the user with --actor." if "actor" in paths else ""
