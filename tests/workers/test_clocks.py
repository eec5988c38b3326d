"""Time is the database's: no process decides anything by its own clock. What a wrong one does is tried in
tests.system.test_clocks."""

import ast
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FLOORS = ("commands", "storage", "workers", "api")
WALL_CLOCKS = {
    *(f"time.{name}" for name in ("time", "time_ns", "ctime", "localtime", "gmtime")),
    *(f"{owner}.{name}" for owner in ("datetime", "date") for name in ("now", "utcnow", "today")),
}
HARMLESS = {
    (
        "storage/journal/entry.py",
        "time.time_ns",
    ): "what an id begins with, so that new ones lie together; nothing asks it",
    (
        "storage/redis/queue.py",
        "time.time",
    ): "what an arq job says of its enqueueing; the journal says what is done when",
    ("workers/health.py", "datetime.now"): "what a person reads at the head of a worker's line of health",
    ("storage/gateway/bridge.py", "time.time"): "what a signature for the bridge says, which bounds its age",
    ("api/cli/commands.py", "datetime.now"): "what a person reads beside a line of `souk watch` that bears no time",
}


def wall_clocks(path: Path) -> Iterator[str]:
    """What asks the time of day, by its name with its owner."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if f"{owner}.{node.attr}" in WALL_CLOCKS:
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{name.name}" for name in node.names if f"time.{name.name}" in WALL_CLOCKS)


def test_the_time_of_day_is_asked_of_the_database_alone() -> None:
    found = {
        (str(path.relative_to(PROJECT)), name)
        for floor in FLOORS
        for path in (PROJECT / floor).rglob("*.py")
        for name in wall_clocks(path)
    }
    assert found == HARMLESS.keys()
