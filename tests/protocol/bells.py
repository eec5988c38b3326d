"""Hints and bells: what Redis passes on at once, to whoever listens just then."""

from tests.protocol.state import DRAINED, WORKERS, State, World, waiting, with_worker

Step = tuple[str, State]
"""A sentence that tells of the step, and the state that it leads to."""


def enqueue(state: State, world: World, command: str) -> State:
    """A job for the command (`Queue.enqueue`). The queue is followed only where somebody claims by it."""
    if "journal-claim" not in world.without or state.redis.mood == "away" or command in state.redis.jobs:
        return state
    return state._replace(redis=state.redis._replace(jobs=(*state.redis.jobs, command)))


def ring(state: State, world: World, place: int) -> State:
    """Every worker hears the bell; one that does not drain the partition passes it over (`SoukWorker._heard`)."""
    if state.redis.mood != "away":
        for number in WORKERS:
            state = ready(state, world, number, (place,))
    return state


def ready(state: State, world: World, number: int, places: tuple[int, ...]) -> State:
    """There may be work in partitions of the worker (`Lanes.ring`). Where there is none, the batch finds nothing and
    changes nothing: that is left out."""
    if "sweep" not in world.without:
        return state
    worker = state.workers[number]
    more = (place for place in places if worker.views[place] in DRAINED and waiting(state, place))
    return with_worker(state, number, worker._replace(ready=tuple(sorted({*worker.ready, *more}))))
