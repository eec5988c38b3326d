"""The steps of a worker's batch: begin, COMMIT, tell.

What a transaction does is seen by nobody before its COMMIT, so that BEGIN, the lock of the partitions' rows under their
fences, the claim, the rules and the write are one step, and the COMMIT is the next.
"""

from collections.abc import Iterator

from tests.protocol.api import with_request
from tests.protocol.bells import Step, ready
from tests.protocol.state import (
    COMMANDS,
    DRAINED,
    FINAL,
    NAMES,
    PLACES,
    WAITED_FOR,
    Batch,
    Request,
    Row,
    State,
    Worker,
    World,
    put,
    row_locked,
    status_of,
    waiting,
    with_worker,
)
from tests.protocol.worker import handed_back


def begin(state: State, world: World, number: int) -> Iterator[Step]:
    """A lane takes what is ready into one batch: one partition for which a bell rang, or all in which the sweeper found
    work (`Lanes._take`, `Sweeper._look`)."""
    worker = state.workers[number]
    if worker.batch is not None or worker.again is not None:
        return
    if "sweep" in world.without:
        groups = [worker.ready] if worker.ready else []
    else:
        drained = [place for place, view in enumerate(worker.views) if view in DRAINED and waiting(state, place)]
        groups = [(place,) for place in drained]
        if len(drained) > 1:
            groups.append(tuple(drained))
    for partitions in groups:
        yield from begun(state, world, number, partitions)


def begun(state: State, world: World, number: int, partitions: tuple[int, ...]) -> Iterator[Step]:
    """The partitions' rows are locked where their fence is still the worker's (`UnitOfWork.begin`); commands are
    claimed, decided and written. Under an old fence nothing is done, and the partition is handed back (`Fenced`)."""
    worker = state.workers[number]
    old = [place for place in partitions if worker.views[place] == "passed"]
    calm = with_worker(state, number, worker._replace(ready=()))
    if old and "fence" not in world.without:
        for place in old:
            calm = handed_back(calm, number, place)
        yield f"{NAMES[number]} begins a batch, meets another fence, and writes nothing.", calm
        return
    if "row-lock" not in world.without and any(row_locked(state, place) for place in partitions):
        return
    rows = claim(state, world, partitions)
    if not rows:
        return
    names = " and ".join(row.command for row in rows)
    did = f"{NAMES[number]} begins a batch under {'an old' if old else 'its'} fence and claims {names}"
    batch = Batch(partitions, rows, passed=bool(old))
    calmed = calm.workers[number]
    yield f"{did}.", with_worker(calm, number, calmed._replace(batch=batch))
    if state.faults and "bug" in world.sorts:
        for place, row in enumerate(rows):
            failing = batch._replace(outcomes=put(rows, place, row._replace(status="failed")))
            failed = with_worker(calm, number, calmed._replace(batch=failing))
            yield f"{did}; a bug makes {row.command} fail.", failed._replace(faults=state.faults - 1)


def claim(state: State, world: World, partitions: tuple[int, ...]) -> tuple[Row, ...]:
    """What the rules make of the accepted commands of the partitions, in the order of the journal (CLAIM)."""
    if "journal-claim" in world.without:
        commands = [command for command in state.redis.jobs if PLACES[command] in partitions]
        commands = [command for command in commands if status_of(state, command) == "accepted"]
    else:
        claimed = {"accepted"} if "unique-outcome" not in world.without else {"accepted", *FINAL}
        commands = [row.command for row in state.journal if row.status in claimed and PLACES[row.command] in partitions]
    return tuple(Row(command, "succeeded") for command in commands)


def commit(state: State, world: World, number: int) -> Iterator[Step]:
    """The write (`_OUTCOMES`) and the COMMIT. A row that the orphan has written is waited for; one that has its outcome
    (`finished_at IS NULL`) makes the write count too few, and the batch is rolled back and repeated."""
    worker = state.workers[number]
    batch = worker.batch
    if batch is None:
        return
    commands = {row.command for row in batch.outcomes}
    if state.orphan is not None and any(row.command in commands for row in state.orphan.outcomes):
        return
    guarded = world.without.isdisjoint(("unique-outcome", "guard"))
    if guarded and any(status_of(state, row.command) in FINAL for row in batch.outcomes):
        label = f"{NAMES[number]} finds that a command has its outcome already, and rolls back."
        yield label, rolled_back(state, world, number)
        return
    telling = (WAITED_FOR,) if WAITED_FOR in commands else worker.telling
    over = with_worker(state, number, worker._replace(batch=None, telling=telling))
    names = " and ".join(row.command for row in batch.outcomes)
    yield f"{NAMES[number]} commits the outcome of {names}.", written(over, batch)


def written(state: State, batch: Batch) -> State:
    """Outcomes and effects become visible together. What was ready is so no more where nothing is left to do."""
    outcomes = {row.command: row for row in batch.outcomes}
    journal = tuple(outcomes.get(row.command, row) for row in state.journal)
    done = [row.command.rstrip("'") for row in batch.outcomes if row.status == "succeeded"]
    effects = tuple(count + done.count(command) for command, count in zip(COMMANDS, state.effects, strict=True))
    state = state._replace(journal=journal, effects=effects)
    for number, request in enumerate(state.requests):
        if request.after and status_of(state, "a1") in FINAL:
            state = with_request(state, number, request._replace(after=False))
    for number, worker in enumerate(state.workers):
        if worker.ready:
            left = tuple(place for place in worker.ready if waiting(state, place))
            state = with_worker(state, number, worker._replace(ready=left))
    return state


def rolled_back(state: State, world: World, number: int) -> State:
    """The worker's transaction is gone, and it has its partitions ready again (`Lanes.run_lane`)."""
    worker = state.workers[number]
    partitions = worker.batch.partitions if worker.batch else ()
    return ready(with_worker(state, number, worker._replace(batch=None)), world, number, partitions)


def repeat(state: State, world: World, number: int) -> Iterator[Step]:
    """A worker without "new-claim" writes the batch again, without a look into the journal."""
    worker = state.workers[number]
    again = worker.again
    if again is None or any(row_locked(state, place) for place in again.partitions):
        return
    over: Worker = worker._replace(again=None)
    if any(worker.views[place] != "ours" for place in again.partitions):
        yield f"{NAMES[number]} meets another fence, and writes nothing.", with_worker(state, number, over)
        return
    label = f"{NAMES[number]} begins again, and writes the same once more without a look into the journal."
    yield label, with_worker(state, number, over._replace(batch=again))


def tell(state: State, world: World, number: int) -> Iterator[Step]:
    """The jobs are removed and the notice goes to whoever listens (`Queue.finish`); a Redis that is away passes nothing
    on."""
    worker = state.workers[number]
    if worker.telling:
        names = " and ".join(worker.telling)
        told = with_worker(state, number, worker._replace(telling=()))
        if state.redis.mood == "away":
            yield f"{NAMES[number]} cannot tell of the outcome of {names}: Redis is away.", told
        else:
            told = noticed(forgotten(told, worker.telling), worker.telling)
            yield f"{NAMES[number]} tells by a notice that the outcome of {names} is there.", told


def forgotten(state: State, commands: tuple[str, ...]) -> State:
    """The state without the jobs of the commands."""
    if not state.redis.jobs:
        return state
    jobs = tuple(command for command in state.redis.jobs if command not in commands)
    return state._replace(redis=state.redis._replace(jobs=jobs))


def noticed(state: State, commands: tuple[str, ...]) -> State:
    """Who listens reads the outcome and tells the client, or keeps it until the 202 has gone (`Outcomes.heard`)."""
    for number, request in enumerate(state.requests):
        if request.ear == "listening" and f"a{number + 1}" in commands:
            told = Request("told") if request.phase == "acknowledged" else request._replace(ear="heard")
            state = with_request(state, number, told)
    return state


STEPS = (begin, commit, repeat, tell)
