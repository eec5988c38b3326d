"""What must hold in every state, and of every step."""

from tests.protocol.state import COMMANDS, DRAINED, FINAL, State, World, status_of

ENDS = "everything accepted ends"
BREAKS = {
    "one outcome": "A command that had its outcome has another one.",
    "one effect": "A command has its effect more than once, or without having succeeded.",
    "order per asset": "a2 is executed before a1, for which its client had a 202 when it sent a2.",
    "one writer": "A batch is committed under a fence that has passed to another worker.",
    "nothing acknowledged is lost": "A client has a 202, and the journal knows nothing of its command.",
    "told at once": "A client waits for an outcome whose notice has gone, and no fault was to blame.",
    "nobody contends": "Two workers drain one partition at once, and no fault was to blame.",
    ENDS: "From here on a command stays without its outcome, or its client is never told, though no fault follows.",
}
"""The invariants, each with what it means that it breaks."""

EXECUTED = frozenset({"succeeded", "failed"})


def broken_step(before: State, after: State) -> str | None:
    """The invariant that a step breaks, or None. Only what writes into the journal can."""
    if after.journal is before.journal:
        return None
    if not one_outcome(before, after):
        return "one outcome"
    if not in_order(before, after):
        return "order per asset"
    if not one_writer(before, after):
        return "one writer"
    return None


def broken_state(state: State, world: World) -> str | None:
    """The invariant that does not hold in a state, or None."""
    if not one_effect(state):
        return "one effect"
    if not kept(state):
        return "nothing acknowledged is lost"
    if state.faults == world.faults and not told_at_once(state):
        return "told at once"
    return None


def one_outcome(before: State, after: State) -> bool:
    """An outcome is written once; only a failed command, which has no effect, may be accepted again."""
    for row in before.journal:
        if row.status in FINAL and row not in after.journal:
            return row.status == "failed" and status_of(after, row.command) == "accepted"
    return True


def one_effect(state: State) -> bool:
    """A command that succeeded has its effect once, any other none."""
    return all(
        count == (status_of(state, command) == "succeeded")
        for command, count in zip(COMMANDS, state.effects, strict=True)
    )


def in_order(before: State, after: State) -> bool:
    """A command that was acknowledged before another of its asset was sent is executed before it, unless it was set
    aside as failed."""
    if not before.requests[-1].after or status_of(after, "a2") not in EXECUTED:
        return True
    return status_of(after, "a1") in FINAL


def one_writer(before: State, after: State) -> bool:
    """Nobody commits under a fence that has passed."""
    if before.orphan is not None and after.orphan is None and before.orphan.passed:
        return False
    return not any(
        was.batch is not None and was.batch.passed and now.batch is None
        for was, now in zip(before.workers, after.workers, strict=True)
    )


def kept(state: State) -> bool:
    """Whoever was told 202 finds the command in the journal."""
    return all(
        request.phase not in ("acknowledged", "told") or status_of(state, f"a{number + 1}") is not None
        for number, request in enumerate(state.requests)
    )


def told_at_once(state: State) -> bool:
    """While no fault has happened, a notice reaches whoever waits: nobody depends on looking again."""
    for number, request in enumerate(state.requests):
        if request.phase == "acknowledged" and request.ear == "listening":
            command = f"a{number + 1}"
            told = any(command in worker.telling for worker in state.workers)
            if status_of(state, command) in FINAL and not told:
                return False
    return True


def contention(state: State, world: World) -> str | None:
    """No promise, but what the lock in Redis is for: without a fault no two workers drain one partition."""
    both = zip(*(worker.views for worker in state.workers), strict=True)
    return (
        "nobody contends" if state.faults == world.faults and any(DRAINED.issuperset(views) for views in both) else None
    )


def done(state: State) -> bool:
    """Everything was sent, has its outcome, and whoever waits for one was told."""
    return all(request.phase == "told" for request in state.requests) and all(
        row.status in FINAL for row in state.journal
    )
