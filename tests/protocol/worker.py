"""The steps of a worker between its batches: leases, by the lock in Redis or by the sign of life in PostgreSQL, and
what it does for everybody. Its batches are in `batch.py`."""

from collections.abc import Iterator

from tests.protocol.bells import Step, enqueue, ready
from tests.protocol.state import (
    DRAINED,
    NAMES,
    PARTITIONS,
    PLACES,
    TIMER,
    Row,
    State,
    World,
    put,
    row_locked,
    with_worker,
)


def share(alive: tuple[bool, ...], number: int, world: World) -> int:
    """How many partitions a worker should have (`fair_share`)."""
    if not alive[number]:
        return 0
    each, rest = divmod(world.partitions, sum(alive))
    return each + (sum(alive[:number]) < rest)


def living(state: State) -> tuple[bool, ...]:
    """Who is not gone: by the locks in Redis, or while it is away or young by PostgreSQL (`Leases._living`)."""
    return state.redis.signs if state.redis.mood == "well" else state.lives


def free(state: State, number: int, place: int) -> bool:
    """Whether the partition belongs to nobody who lives, or to the worker itself, who may not have heard of it."""
    owner = state.owners[place]
    return owner is None or owner == number or not living(state)[owner]


def renew(state: State, world: World, number: int) -> Iterator[Step]:
    """One script renews the worker's sign of life and its locks, and takes back those that were lost. What bears
    another's token is drained no more, and handed back when no batch has it. While Redis is young nobody goes by its
    locks, so they are not followed: `grow_up` puts them right."""
    worker, redis = state.workers[number], state.redis
    if redis.mood != "well":
        return
    locks, lost = list(redis.locks), []
    for place, view in enumerate(worker.views):
        if "lock" in world.without:  # then `owner` in PostgreSQL tells it
            lost += [place] if view == "passed" and not row_locked(state, place) else []
        elif not view:
            continue
        elif locks[place] is None:
            locks[place] = number
        elif locks[place] != number and (worker.batch is None or place not in worker.batch.partitions):
            lost.append(place)
    after = redis._replace(locks=tuple(locks), signs=put(redis.signs, number, item=True))
    if lost or after != redis:
        renewed = state._replace(redis=after)
        for place in lost:
            renewed = handed_back(renewed, number, place)
        label = f"{NAMES[number]} renews its locks."
        if lost:
            label = f"{NAMES[number]} finds that a partition is another's, and drains it no more."
        elif not any(worker.views):
            label = f"{NAMES[number]} announces itself."
        yield label, renewed


def lock(state: State, world: World, number: int) -> Iterator[Step]:
    """The worker takes the lock of a free partition, while it has less than its share (`Leases._choose`). The fence
    comes next, whoever has been seen alive meanwhile."""
    worker, redis = state.workers[number], state.redis
    if redis.mood != "well" or all(worker.views) or "locked" in worker.views:
        return
    if sum(map(bool, worker.views)) >= share(redis.signs, number, world):
        return
    for place, view in enumerate(worker.views):
        if view or not free(state, number, place):
            continue
        locked = with_worker(state, number, worker._replace(views=put(worker.views, place, "locked")))
        if "lock" in world.without:
            yield f"{NAMES[number]} wants partition {PARTITIONS[place]}, and asks for no lock.", locked
        elif redis.locks[place] is None:
            label = f"{NAMES[number]} takes the lock of partition {PARTITIONS[place]} in Redis."
            yield label, locked._replace(redis=redis._replace(locks=put(redis.locks, place, number)))


def take(state: State, world: World, number: int) -> Iterator[Step]:
    """The partition gets its new owner and its next fence in PostgreSQL (`_TAKE`), unless a batch has its row.

    That goes by the lock in Redis, or while Redis is away or young by the owner's sign of life in PostgreSQL. (A young
    Redis is asked for the lock too, which can only prevent some of what is explored here.)
    """
    worker = state.workers[number]
    for place, view in enumerate(worker.views):
        if view in DRAINED or (row_locked(state, place) and "row-lock" not in world.without):
            continue
        if view == "locked":
            label = f"{NAMES[number]} takes partition {PARTITIONS[place]} in PostgreSQL: its fence grows."
            yield label, taken(state, world, number, place)
        elif state.redis.mood != "well":
            room = sum(map(bool, worker.views)) < share(state.lives, number, world)
            if room and free(state, number, place):
                label = f"{NAMES[number]} takes partition {PARTITIONS[place]} without Redis: its fence grows."
                yield label, taken(state, world, number, place)


def taken(state: State, world: World, number: int, place: int, *, heard: bool = True) -> State:
    """The partition's fence has grown: whoever had it before has an old one. Unless the answer was not `heard`, the
    worker drains it, and looks at once what there is to do (`Leases._adopt`)."""
    for each, worker in enumerate(state.workers):
        views, batch = worker.views, worker.batch
        if views[place] == "ours":
            views = put(views, place, "passed")
        if each == number and heard:
            views = put(views, place, "ours")
        if batch is not None and place in batch.partitions:  # only where no lock of the row prevents it
            batch = batch._replace(passed=True)
        state = with_worker(state, each, worker._replace(views=views, batch=batch))
    orphan = state.orphan
    if orphan is not None and place in orphan.partitions:
        orphan = orphan._replace(passed=True)
    return ready(state._replace(owners=put(state.owners, place, number), orphan=orphan), world, number, (place,))


def let_go(state: State, world: World, number: int) -> Iterator[Step]:
    """What exceeds the worker's share is handed back as soon as no batch has it (`Leases._hand_back`)."""
    worker = state.workers[number]
    if sum(map(bool, worker.views)) > share(living(state), number, world):
        for place in reversed(range(world.partitions)):
            if worker.views[place] in DRAINED and not row_locked(state, place):
                label = f"{NAMES[number]} has more than its share, and hands partition {PARTITIONS[place]} back."
                yield label, handed_back(state, number, place)
                return


def handed_back(state: State, number: int, place: int, *, freed: bool = True) -> State:
    """The partition is given up: its owner in PostgreSQL if that is the worker, then its lock if it is `freed`."""
    worker, redis, owners = state.workers[number], state.redis, state.owners
    if owners[place] == number:
        owners = put(owners, place, None)
    if freed and redis.locks[place] == number:
        redis = redis._replace(locks=put(redis.locks, place, None))
    left = tuple(each for each in worker.ready if each != place)
    worker = worker._replace(views=put(worker.views, place, ""), ready=left)
    return with_worker(state._replace(owners=owners, redis=redis), number, worker)


def sweep(state: State, world: World, number: int) -> Iterator[Step]:
    """The sweeper enqueues what waits in the worker's partitions and has no job (`Sweeper._mend`). That it rings for
    what waits is a part of `begin`."""
    if "journal-claim" in world.without:
        swept = state
        for row in state.journal:
            if row.status == "accepted" and state.workers[number].views[PLACES[row.command]] in DRAINED:
                swept = enqueue(swept, world, row.command)
        if swept is not state:
            yield f"{NAMES[number]} sweeps, and enqueues what has no job.", swept


def accepted_timer(state: State) -> State | None:
    """The state with the scheduled timer accepted, or None when it is not scheduled. It is alone in its partition, so
    that its place in the journal says nothing: it keeps it."""
    if not state.journal or state.journal[0] != Row(TIMER, "scheduled"):
        return None
    return state._replace(journal=put(state.journal, 0, Row(TIMER, "accepted")))


def beat(state: State, world: World, number: int) -> Iterator[Step]:
    """The sign of life in PostgreSQL (`_BEAT`)."""
    if not state.lives[number]:
        lives = put(state.lives, number, item=True)
        yield f"{NAMES[number]} says in PostgreSQL that it lives.", state._replace(lives=lives)


STEPS = (renew, lock, take, let_go, sweep, beat)
