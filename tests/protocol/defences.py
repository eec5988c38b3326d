"""The defences of the protocol, each of which can be taken out, and the worlds that are explored with and without."""

from typing import Final, NamedTuple

from tests.protocol.state import World

FAULTS: Final = frozenset({"crash", "sleep", "flush", "failover", "cut"})
EVERYTHING: Final = FAULTS | {"stop", "cancel", "bug"}

SCOPES: Final = {
    "small": (World(2, 2, 1, FAULTS), World(1, 2, 1, EVERYTHING)),
    "large": (
        World(2, 2, 1, EVERYTHING),
        World(1, 2, 2, EVERYTHING),
        World(1, 2, 3, FAULTS),
        World(2, 1, 2, FAULTS),
        World(2, 2, 2, frozenset({"crash", "cut"})),
    ),
}

ENOUGH: Final = World(1, 2, 1, FAULTS)
"""One partition, in which every defence shows what it is there for."""
CUT: Final = World(1, 1, 1, frozenset({"cut"}))


class Defence(NamedTuple):
    """What is taken out, which invariant falls with it (None: none, another defence stands behind it), and in which
    world the shortest way there is looked for."""

    what: str
    breaks: str | None
    world: World = ENOUGH


DEFENCES: Final = {
    "fence": Defence("a batch compares the fences of its partitions", "one writer"),
    "row-lock": Defence("a batch compares the fences under a lock of the partitions' rows", "one writer"),
    "unique-outcome": Defence(
        "only what has no outcome is claimed, and written", "one effect", ENOUGH._replace(faults=0)
    ),
    "journal-claim": Defence("what there is to do is read in the journal, not in the queue", "order per asset"),
    "sweep": Defence("work is looked for where no bell rang", "everything accepted ends", CUT),
    "subscribe-first": Defence(
        "the API subscribes to an outcome before it stores the command", "told at once", ENOUGH._replace(faults=0)
    ),
    "look-again": Defence("what is waited for is read again from time to time", "everything accepted ends", CUT),
    "one-row": Defence("what is sent again is found by its id or its key", "one effect"),
    "commit-first": Defence("a 202 is sent after the COMMIT", "nothing acknowledged is lost"),
    "guard": Defence("an outcome is written only where there is none", None),
    "new-claim": Defence("after a COMMIT without an answer the journal is read anew", None),
    "lock": Defence("a partition is taken under its lock in Redis", None),
    "youth": Defence("a young Redis is not believed", None),
}

LAYERS: Final = {
    frozenset({"row-lock", "guard"}): "one effect",
    frozenset({"new-claim", "guard"}): "one effect",
    frozenset({"lock", "youth"}): None,
}
"""What falls when two are taken out at once."""
