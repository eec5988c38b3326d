"""How the command line speaks: tables for people at a terminal, JSON into a pipe, one sentence for what goes wrong."""

import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_DATA_DIR = Path(".souk")

DataDir = Annotated[Path, typer.Option(help="Where the embedded servers keep their data.")]
AsJson = Annotated[
    bool | None,
    typer.Option("--json/--table", help="For programs, or for people; unless told, as stdout is a pipe or a terminal."),
]


def fail(message: str) -> NoReturn:
    sys.stderr.write(f"souk: {message}\n")
    raise SystemExit(1)


def warn(message: str) -> None:
    sys.stderr.write(f"souk: warning: {message}\n")
    sys.stderr.flush()


def tell(line: str) -> None:
    """To whoever reads at the other end, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def interruptible() -> Iterator[None]:
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


def until_interrupted() -> NoReturn:
    """Wait, within `interruptible`, until it ends."""
    while True:
        signal.pause()


def is_for_programs(as_json: bool | None) -> bool:
    return not sys.stdout.isatty() if as_json is None else as_json


def show(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    as_json: bool | None,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """The rows as JSON for programs; for people a table of them, or of what is shown instead."""
    if is_for_programs(as_json):
        print_json(rows)
        return
    from rich.console import Console

    Console().print(table(title, rows if shown is None else shown) if rows else f"{title}: none")


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> "Table":
    from rich.table import Column, Table
    from rich.text import Text

    columns = [Column(name.replace("_", " "), no_wrap=name == "id") for name in (rows[0] if rows else ())]
    table = Table(*columns, title=title)
    for row in rows:
        cells = ("" if value is None else value for value in row.values())
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells))
    return table


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
