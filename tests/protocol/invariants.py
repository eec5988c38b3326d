"""What must hold in every state, and of every step."""

from tests.protocol.state import COMMANDS, FINAL, PLACES, State, World, status_of

EXECUTED = frozenset({"succeeded", "failed"})


def broken(before: State, after: State, world: World) -> str | None:
    """The invariant that the step from one state to the other breaks, or None."""
    journal = after.journal is not before.journal
    if journal:
        for name, holds in (
            ("one outcome", one_outcome(before, after)),
            ("one effect", one_effect(after)),
            ("order per asset", in_order(after)),
            ("one writer", one_writer(before, after)),
        ):
            if not holds:
                return name
    if (journal or after.requests is not before.requests) and not kept(after):
        return "nothing acknowledged is lost"
    if after.faults == world.faults and not told_at_once(after):
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


def in_order(state: State) -> bool:
    """Commands of one asset are executed in the order of the journal. A command that was acknowledged before another
    was sent is in the journal before it."""
    passed: set[int] = set()
    for row in state.journal:
        if row.status == "accepted":
            passed.add(PLACES[row.command])
        elif row.status in EXECUTED and PLACES[row.command] in passed:
            return False
    return True


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


def done(state: State) -> bool:
    """Everything was sent, has its outcome, and whoever waits for one was told."""
    return all(request.phase == "told" for request in state.requests) and all(
        row.status in FINAL for row in state.journal
    )
