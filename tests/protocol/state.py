"""What the model knows of the world at one moment: tuples of small words, so that a state can be compared and kept.

Two workers, w1 and w2, drain two partitions, a and b. Clients send a1 and a2, both about one asset of partition a. The
timer b1, of another asset in partition b, was written by a command that has run before, so nobody waits for it.
"""

from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

WORKERS: Final = (0, 1)
NAMES: Final = ("w1", "w2")
PARTITIONS: Final = ("a", "b")
TIMER: Final = "b1"
COMMANDS: Final = ("a1", "a2", TIMER)
"""The first two have clients, who are numbered alike. The first waits for its outcome, the second for its 202 only:
what one wait can meet, the other would too."""
WAITED_FOR: Final = "a1"
PLACES: Final = {"a1": 0, "a2": 0, "a1'": 0, "a2'": 0, TIMER: 1}
"""The partition of each row of the journal. A row with a mark is a second one of the same command, which only a
protocol without "one-row" lets in."""

FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})

DRAINED: Final = frozenset({"ours", "passed"})
"""How a worker sees a partition that it drains. That it has `passed` to another is known to the model alone: the worker
learns it from a lane that is fenced, or from another's token in the lock."""


class World(NamedTuple):
    """What is explored: how many partitions and clients there are, how many faults may happen in one history and of
    which sort, and which defences are taken out."""

    partitions: int
    clients: int
    faults: int
    sorts: frozenset[str]
    without: frozenset[str] = frozenset()


class Request(NamedTuple):
    """A client's request, and what the API's memory knows of it.

    phase  `unsent`, `again` (no answer came, so it is sent once more), `stored`, `acknowledged`, `told` its outcome
    ear    the subscription to the outcome: `` none, `listening`, `heard`
    after  whether it was sent after the other command had been acknowledged and before that was executed
    """

    phase: str = "unsent"
    ear: str = ""
    after: bool = False


class Row(NamedTuple):
    """A row of the journal: `scheduled`, `accepted`, or one of FINAL."""

    command: str
    status: str


class Batch(NamedTuple):
    """A transaction under way: the partitions whose rows it has locked, the rows that it will write, and whether a
    fence has passed since, or had passed already, which no batch of the whole protocol lives to see."""

    partitions: tuple[int, ...]
    outcomes: tuple[Row, ...]
    passed: bool = False


class Worker(NamedTuple):
    """A worker's memory.

    views    how it sees each partition: `` not its own; `locked`, its Redis lock is taken and its fence not yet;
             `ours`; `passed`, which looks like `ours` to the worker
    batch    the transaction under way
    telling  the commands whose outcome is committed and whose notice has not gone yet
    again    the batch that is written again without a look, by a protocol without "new-claim"
    ready    the partitions in which there may be work. One that sweeps may find at any moment what waits in its
             partitions, so bells add nothing to what it can do, and this is followed only without "sweep"
    """

    views: tuple[str, ...]
    up: bool = True
    batch: Batch | None = None
    telling: tuple[str, ...] = ()
    again: Batch | None = None
    ready: tuple[int, ...] = ()


class Redis(NamedTuple):
    """What Redis knows. `mood` is `well`, `young` (emptied less than a lock's life ago) or `away`; `locks` are the
    holders of the partitions' locks, `signs` the workers' own locks. `jobs` stays empty unless somebody claims by it:
    what nobody decides by need not be followed."""

    locks: tuple[int | None, ...]
    signs: tuple[bool, ...] = (True, False)
    mood: str = "well"
    jobs: tuple[str, ...] = ()


class State(NamedTuple):
    """The world at one moment.

    A fence is a number that only grows, so all that matters of a worker's fence is whether it is still the
    partition's: `ours` or `passed`. A partition's row is locked while a batch or the orphan has it.

    journal  the rows, those of each partition in the order of `seq`: the place among others' says nothing
    owners   `partitions.owner`
    lives    `workers.alive_until` has not passed
    orphan   a transaction whose connection was cut with its COMMIT under way: the server may yet commit it
    effects  how often the effect of a1, a2 and b1 is in the tables
    faults   how many may still happen
    """

    requests: tuple[Request, ...]
    journal: tuple[Row, ...]
    owners: tuple[int | None, ...]
    lives: tuple[bool, ...]
    redis: Redis
    workers: tuple[Worker, ...]
    orphan: Batch | None
    effects: tuple[int, ...]
    faults: int


def first(world: World) -> State:
    """The beginning: w1 has announced itself, w2 is about to, and nothing has been sent."""
    worker = Worker(("",) * world.partitions)
    return State(
        requests=(Request(),) * world.clients,
        journal=(Row(TIMER, "scheduled"),) * (world.partitions - 1),
        owners=(None,) * world.partitions,
        lives=(True, True),
        redis=Redis((None,) * world.partitions),
        workers=(worker, worker),
        orphan=None,
        effects=(0,) * len(COMMANDS),
        faults=world.faults,
    )


def put(items: tuple[T, ...], place: int, item: T) -> tuple[T, ...]:
    """The tuple with another item in one place."""
    return (*items[:place], item, *items[place + 1 :])


def with_worker(state: State, number: int, worker: Worker) -> State:
    """The state with another memory of one worker."""
    return state._replace(workers=put(state.workers, number, worker))


def status_of(state: State, command: str) -> str | None:
    """The status in the journal, or None when the command is not there."""
    for row in state.journal:
        if row.command == command:
            return row.status
    return None


def waiting(state: State, partition: int) -> bool:
    """Whether the journal has accepted commands of the partition."""
    return any(row.status == "accepted" and PLACES[row.command] == partition for row in state.journal)


def row_locked(state: State, partition: int) -> bool:
    """Whether a transaction has the partition's row."""
    if state.orphan is not None and partition in state.orphan.partitions:
        return True
    return any(worker.batch is not None and partition in worker.batch.partitions for worker in state.workers)


def lives_matter(state: State, world: World) -> bool:
    """Whether anybody may yet ask PostgreSQL who lives: only then are the signs of life there followed."""
    return state.redis.mood != "well" or (state.faults > 0 and not world.sorts.isdisjoint(("flush", "stop")))
