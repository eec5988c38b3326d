"""The steps of time and of the servers: locks that end, signs of life that lapse, transactions without a client.

Time is a step that may be taken only when it may have passed: the lock of a worker that renews it does not end.
"""

from collections.abc import Iterator

from tests.protocol.batch import written
from tests.protocol.bells import Step, enqueue, ring
from tests.protocol.state import NAMES, PARTITIONS, PLACES, TIMER, WORKERS, Redis, State, World, lives_matter, put
from tests.protocol.worker import accepted_timer


def expire(state: State, world: World) -> Iterator[Step]:
    """The locks of a worker that is gone end, and so does a lock of which its holder knows nothing (`PX`)."""
    redis = state.redis
    for number in WORKERS:
        worker = state.workers[number]
        if not worker.up:
            if redis.signs[number] or number in redis.locks:
                ended = state._replace(redis=without_locks(redis, number))
                yield f"The locks of {NAMES[number]} end, for nobody renews them.", ended
            continue
        for place, view in enumerate(worker.views):
            if not view and redis.locks[place] == number:
                after = redis._replace(locks=put(redis.locks, place, None))
                label = f"The lock of partition {PARTITIONS[place]} ends, of which {NAMES[number]} knows nothing."
                yield label, state._replace(redis=after)


def without_locks(redis: Redis, number: int) -> Redis:
    """Redis when the locks of one worker have ended, its sign of life among them."""
    locks = tuple(None if holder == number else holder for holder in redis.locks)
    return redis._replace(locks=locks, signs=put(redis.signs, number, item=False))


def lapse(state: State, world: World) -> Iterator[Step]:
    """The sign of life in PostgreSQL of a worker that is gone ends (`alive_until`)."""
    for number in WORKERS:
        if not state.workers[number].up and state.lives[number] and lives_matter(state, world):
            lives = put(state.lives, number, item=False)
            yield f"The sign of life of {NAMES[number]} in PostgreSQL ends.", state._replace(lives=lives)


def come_back(state: State, world: World) -> Iterator[Step]:
    """Redis answers again, and is empty."""
    if state.redis.mood == "away":
        yield "Redis is back, and empty.", state._replace(redis=emptied(state, world))


def grow_up(state: State, world: World) -> Iterator[Step]:
    """Redis is young no more (`since`). In a lock's life every worker has renewed several times and taken back the
    locks of what it drains; where two think that they drain a partition, either may have been the first."""
    if state.redis.mood != "young":
        return
    living = [number for number in WORKERS if state.workers[number].up]
    signs = tuple(worker.up for worker in state.workers)
    for order in (living, living[::-1]):
        locks = list(state.redis.locks)
        for number in order:
            for place, view in enumerate(state.workers[number].views):
                if view and locks[place] is None:
                    locks[place] = number
        label = f"Redis is young no more; {NAMES[order[0]]} and the other have their locks back."
        yield label, state._replace(redis=state.redis._replace(locks=tuple(locks), signs=signs, mood="well"))


def emptied(state: State, world: World) -> Redis:
    """Redis without a key: young, as the absence of `since` tells."""
    mood = "well" if "youth" in world.without else "young"
    signs = (False,) * len(WORKERS)
    return state.redis._replace(locks=(None,) * world.partitions, signs=signs, mood=mood, jobs=())


def commit_orphan(state: State, world: World) -> Iterator[Step]:
    """The server executes the COMMIT whose client is gone."""
    orphan = state.orphan
    if orphan is not None:
        names = " and ".join(row.command for row in orphan.outcomes)
        label = f"PostgreSQL executes the COMMIT that was under way, of the outcome of {names}."
        yield label, written(state._replace(orphan=None), orphan)


def end_orphan(state: State, world: World) -> Iterator[Step]:
    """The server ends a transaction whose client is gone (`client_connection_check_interval`)."""
    if state.orphan is not None:
        yield "PostgreSQL ends the transaction whose connection was cut.", state._replace(orphan=None)


def promote(state: State, world: World) -> Iterator[Step]:
    """The database's clock says that the timer is due: whichever worker looks first has it accepted, and it takes its
    place in the journal now (`storage/journal/promote.py`)."""
    promoted = accepted_timer(state)
    if promoted is not None:
        label = f"The timer {TIMER} is due: a worker has it accepted, and the bell rings."
        yield label, ring(enqueue(promoted, world, TIMER), world, PLACES[TIMER])


STEPS = (expire, lapse, come_back, grow_up, commit_orphan, end_orphan, promote)
