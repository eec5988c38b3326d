"""`python -m tests.protocol`: explores a scope, or shows what comes of a protocol without some of its defences."""

import argparse
import sys
import time

from tests.protocol.defences import DEFENCES, SCOPES
from tests.protocol.search import explore, story
from tests.protocol.state import World


def main() -> int:
    """Returns 1 when an invariant breaks in a protocol that has all its defences, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.protocol", description=__doc__)
    parser.add_argument("--scope", choices=SCOPES, default="small")
    without = "take this defence out and print the shortest counterexample; may be given several times"
    parser.add_argument("--without", choices=DEFENCES, action="append", default=[], help=without)
    options = parser.parse_args()
    worlds: tuple[World, ...] = SCOPES[options.scope]
    if options.without:
        worlds = (DEFENCES[options.without[0]].world._replace(without=frozenset(options.without)),)
    holds = True
    for world in worlds:
        began = time.perf_counter()
        found = explore(world)
        holds = holds and found.broken is None
        print(f"{story(world, found)}\n({time.perf_counter() - began:.1f} s)\n", flush=True)  # noqa: T201 - a command
    return not (holds or options.without)


if __name__ == "__main__":
    sys.exit(main())
