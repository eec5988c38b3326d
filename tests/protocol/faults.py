"""Faults: each costs one of those that may happen in a history, and may strike between any two steps.

| sort     | what happens |
|----------|--------------|
| crash    | a worker is killed, or the API is and another takes its place; one worker always stays |
| sleep    | a worker sleeps past its lease, or is cut off from Redis for as long |
| flush    | Redis is emptied |
| stop     | Redis is away, and comes back empty |
| failover | a replica is promoted that missed the last write: a lock given, a lock freed, or a job |
| cut      | a connection is cut: an answer or a notice is lost |
"""

from collections.abc import Iterator

from tests.protocol.api import acknowledged, sent, with_request
from tests.protocol.batch import forgotten, rolled_back
from tests.protocol.bells import Step, enqueue, ready
from tests.protocol.servers import emptied, without_locks
from tests.protocol.state import (
    DRAINED,
    NAMES,
    PARTITIONS,
    PLACES,
    TIMER,
    WAITED_FOR,
    WORKERS,
    Row,
    State,
    Worker,
    World,
    lives_matter,
    put,
    row_locked,
    with_worker,
)
from tests.protocol.worker import accepted_timer, handed_back, taken


def crash_worker(state: State, world: World) -> Iterator[Step]:
    """A worker is killed. Its transaction is rolled back; its locks and its sign of life stay until they end."""
    if all(worker.up for worker in state.workers):
        gone = Worker(("",) * world.partitions, up=False)
        for number in WORKERS:
            yield f"{NAMES[number]} is killed.", with_worker(state, number, gone)
            for place, view in enumerate(state.workers[number].views):
                if view == "ours" and not row_locked(state, place):
                    label = f"{NAMES[number]} is killed while it hands partition {PARTITIONS[place]} back."
                    yield label, with_worker(handed_back(state, number, place, freed=False), number, gone)


def crash_api(state: State, world: World) -> Iterator[Step]:
    """The API is killed, and another answers: whoever had no 202 sends again, whoever had one asks for the outcome."""
    requests = tuple(
        request._replace(phase="again", ear="")
        if request.phase in ("stored", "again")
        else request._replace(ear="")
        if request.phase == "acknowledged"
        else request
        for request in state.requests
    )
    if requests != state.requests:
        yield "The API is killed, and another takes its place.", state._replace(requests=requests)


def sleep(state: State, world: World) -> Iterator[Step]:
    """A worker is not scheduled, or does not reach Redis, for longer than its locks last, and perhaps than its sign of
    life in PostgreSQL; the server may have ended its transaction meanwhile (`idle_in_transaction_session_timeout`).
    What it does when it wakes is what it would have done next; what others do before is any of their steps."""
    for number in WORKERS:
        worker = state.workers[number]
        if not worker.up or not (state.redis.signs[number] or any(worker.views)):
            continue
        asleep = state._replace(redis=without_locks(state.redis, number))
        slept = {f"{NAMES[number]} sleeps, and its locks end": asleep}
        if lives_matter(state._replace(faults=state.faults - 1), world):
            lives = put(state.lives, number, item=False)
            slept[f"{NAMES[number]} sleeps, and its locks and its sign of life end"] = asleep._replace(lives=lives)
        for label, after in slept.items():
            yield f"{label}.", after
            if worker.batch is not None:
                yield f"{label}, as does its transaction.", rolled_back(after, world, number)


def flush(state: State, world: World) -> Iterator[Step]:
    """FLUSHALL, or a restart without a file."""
    if state.redis.mood != "away":
        yield "Redis is emptied.", state._replace(redis=emptied(state, world))


def stop(state: State, world: World) -> Iterator[Step]:
    """Nobody reaches Redis."""
    if state.redis.mood != "away":
        yield "Redis is away.", state._replace(redis=emptied(state, world)._replace(mood="away"))


def fail_over(state: State, world: World) -> Iterator[Step]:
    """The promoted replica lacks the last write. Nobody notices that it is young: a lock may be given twice."""
    redis = state.redis
    if redis.mood == "away":
        return
    for place, holder in enumerate(redis.locks):
        if holder is not None:
            lost = redis._replace(locks=put(redis.locks, place, None))
            label = f"Redis fails over, and has lost the lock of partition {PARTITIONS[place]}."
            yield label, state._replace(redis=lost)
        for number in WORKERS:
            if holder != number:
                old = redis._replace(locks=put(redis.locks, place, number))
                label = f"Redis fails over, and gives the lock of partition {PARTITIONS[place]} to {NAMES[number]}."
                yield label, state._replace(redis=old)
    for job in redis.jobs:
        yield f"Redis fails over, and the job of {job} is lost.", forgotten(state, (job,))


def cut_insert(state: State, world: World) -> Iterator[Step]:
    """The API's connection is cut after its INSERT was committed: it repeats it under the same id (`_fetch`)."""
    if "commit-first" in world.without:
        return
    for number, request in enumerate(state.requests):
        if request.phase == "unsent" and not (number and state.requests[0].phase == "unsent"):
            command = f"a{number + 1}"
            cut = sent(state, number)
            cut = cut._replace(journal=(*cut.journal, Row(command, "accepted")))
            label = f"The client sends {command}; the API stores it, but hears no answer."
            ear = "listening" if command == WAITED_FOR and "subscribe-first" not in world.without else ""
            yield label, with_request(cut, number, cut.requests[number]._replace(phase="again", ear=ear))


def cut_hint(state: State, world: World) -> Iterator[Step]:
    """The hint of a command does not reach Redis, or its bell not the workers."""
    for number, request in enumerate(state.requests):
        if request.phase == "stored" and request.ear != "heard":
            command = f"a{number + 1}"
            answered = with_request(state, number, acknowledged(command, request))
            yield f"The API answers 202 for {command}; its hint is lost.", answered
            if "journal-claim" in world.without:
                label = f"The API answers 202 for {command}; its bell is lost."
                yield label, enqueue(answered, world, command)
    promoted = accepted_timer(state)
    if promoted is not None:
        for number in WORKERS:
            if state.workers[number].up:
                label = f"{NAMES[number]} accepts the timer {TIMER}, and its hint is lost."
                yield label, ready(promoted, world, number, (PLACES[TIMER],))


def cut_notice(state: State, world: World) -> Iterator[Step]:
    """The notice of an outcome is lost on its way to Redis or from there."""
    for number in WORKERS:
        worker = state.workers[number]
        if worker.telling:
            names = " and ".join(worker.telling)
            label = f"{NAMES[number]} tells that the outcome of {names} is there, and the notice is lost."
            lost = with_worker(state, number, worker._replace(telling=()))
            yield label, forgotten(lost, worker.telling)


def cut_take(state: State, world: World) -> Iterator[Step]:
    """The fence has grown, and the worker does not hear of it."""
    for number in WORKERS:
        for place, view in enumerate(state.workers[number].views):
            if view == "locked" and not row_locked(state, place):
                label = f"{NAMES[number]} takes partition {PARTITIONS[place]}: its fence grows, but no answer comes."
                yield label, taken(state, world, number, place, heard=False)


def cut_hand_back(state: State, world: World) -> Iterator[Step]:
    """A partition is handed back in PostgreSQL, and Redis does not hear that its lock is free."""
    for number in WORKERS:
        for place, view in enumerate(state.workers[number].views):
            if view in DRAINED and state.redis.locks[place] == number and not row_locked(state, place):
                label = f"{NAMES[number]} hands partition {PARTITIONS[place]} back, but cannot free its lock."
                yield label, handed_back(state, number, place, freed=False)


def cut_batch(state: State, world: World) -> Iterator[Step]:
    """A connection is cut in the middle of a batch: before the COMMIT, or with it under way."""
    for number in WORKERS:
        worker = state.workers[number]
        if worker.batch is not None:
            yield f"{NAMES[number]} loses its connection in the middle of a batch.", rolled_back(state, world, number)
        if worker.batch is not None and state.orphan is None:
            orphaned = rolled_back(state._replace(orphan=worker.batch), world, number)
            if "new-claim" in world.without:
                over = orphaned.workers[number]._replace(again=worker.batch)
                orphaned = with_worker(orphaned, number, over)
            yield f"{NAMES[number]} sends COMMIT, and its connection is cut.", orphaned


SORTS = {
    "crash": (crash_worker, crash_api),
    "sleep": (sleep,),
    "flush": (flush,),
    "stop": (stop,),
    "failover": (fail_over,),
    "cut": (cut_insert, cut_hint, cut_notice, cut_take, cut_hand_back, cut_batch),
}
