"""The steps of clients, of the API and of operators.

Clients send a1 and a2 in turn or at the same time; whoever gets no answer sends the same again, under the same key.
"""

from collections.abc import Iterator

from tests.protocol.bells import Step, enqueue, ring
from tests.protocol.state import (
    FINAL,
    PLACES,
    WAITED_FOR,
    Request,
    Row,
    State,
    World,
    put,
    row_locked,
    status_of,
)


def with_request(state: State, number: int, request: Request) -> State:
    """The state with another request of one client."""
    return state._replace(requests=put(state.requests, number, request))


def submit(state: State, world: World) -> Iterator[Step]:
    """The INSERT commits (`Submit.follow`: `Outcomes.expect`, then `Journal.accept`). Nobody sees anything of it before
    that, so sending, subscribing and storing are one step. What is there already is found by its id or its key."""
    for number, request in enumerate(state.requests):
        if request.phase not in ("unsent", "again") or (number and state.requests[0].phase == "unsent"):
            continue
        command = f"a{number + 1}"
        if "commit-first" in world.without and request.phase == "unsent":
            yield (
                f"The API answers 202 for {command} before its INSERT has committed.",
                with_request(state, number, Request("acknowledged", "listening")),
            )
            continue
        yield stored(sent(state, number), world, number)


def sent(state: State, number: int) -> State:
    """A client who sends a2 after the 202 for a1 counts on their order; when a1 has been executed, it is kept."""
    request, earlier = state.requests[number], state.requests[0]
    after = number == 1 and request.phase == "unsent" and earlier.phase in ("acknowledged", "told")
    if not after or status_of(state, "a1") != "accepted":
        return state
    return with_request(state, number, request._replace(after=True))


def stored(state: State, world: World, number: int) -> Step:
    """One INSERT … ON CONFLICT DO NOTHING, and what the API makes of it (`Journal._insert`)."""
    command, request = f"a{number + 1}", state.requests[number]
    known = status_of(state, command) is not None
    if known and "one-row" not in world.without:
        if request.ear:  # the API itself repeats an INSERT without an answer, under the same id
            label = f"The API repeats the INSERT of {command}, and finds its row."
            return label, with_request(state, number, request._replace(phase="stored"))
        label = f"The client sends {command} again; the API finds its key in the journal and answers 202."
        return label, with_request(state, number, acknowledged(command, request))
    ear = request.ear
    label = f"The client sends {command}; the API stores it."
    if known:
        label = f"{command} is sent again, and the API stores another row of it."
    elif command == WAITED_FOR and "subscribe-first" not in world.without:
        ear, label = "listening", f"The client sends {command}; the API subscribes to its outcome and stores it."
    row = Row(f"{command}'" if known else command, "accepted")
    state = state._replace(journal=(*state.journal, row))
    return label, with_request(state, number, request._replace(phase="stored", ear=ear))


def acknowledged(command: str, request: Request) -> Request:
    """The client has its 202, and so all that it wants unless it waits for the outcome."""
    if command != WAITED_FOR or request.ear == "heard":
        return request._replace(phase="told", ear="")
    return request._replace(phase="acknowledged")


def answer(state: State, world: World) -> Iterator[Step]:
    """The client has its 202 and the workers their hint (`Submit._store`, `Queue.enqueue`). An outcome that was heard
    meanwhile follows at once."""
    for number, request in enumerate(state.requests):
        if request.phase == "stored":
            command = f"a{number + 1}"
            answered = with_request(state, number, acknowledged(command, request))
            then = "the outcome follows" if request.ear == "heard" else "the bell rings"
            after = ring(enqueue(answered, world, command), world, PLACES[command])
            yield f"The API answers 202 for {command}; {then}.", after


def listen(state: State, world: World) -> Iterator[Step]:
    """Who waits without a subscription subscribes, and then reads (`Submit.wait`): of the two only the order matters,
    so they are one step."""
    for number, request in enumerate(state.requests):
        if request.phase == "acknowledged" and not request.ear:
            command = f"a{number + 1}"
            if "subscribe-first" in world.without:
                label = f"The API subscribes to the outcome of {command}, which it has stored before."
                yield label, with_request(state, number, request._replace(ear="listening"))
            elif status_of(state, command) in FINAL:
                label = f"The API subscribes to the outcome of {command}, reads it and tells the client."
                yield label, with_request(state, number, Request("told"))
            else:
                label = f"The API subscribes to the outcome of {command}, and reads that there is none yet."
                yield label, with_request(state, number, request._replace(ear="listening"))


def look_again(state: State, world: World) -> Iterator[Step]:
    """What is waited for is read from time to time (`Outcomes.run`). While the notice is still to come, reading does
    what the notice will do: that is left out."""
    if "look-again" in world.without:
        return
    for number, request in enumerate(state.requests):
        if request.phase == "acknowledged" and request.ear == "listening":
            command = f"a{number + 1}"
            coming = any(command in worker.telling for worker in state.workers)
            if not coming and status_of(state, command) in FINAL:
                label = f"The API reads again what is waited for, and tells the client the outcome of {command}."
                yield label, with_request(state, number, Request("told"))


def cancel(state: State, world: World) -> Iterator[Step]:
    """A client cancels a command that has not run, under its partition's row lock (`storage/journal/cancel.py`)."""
    if not state.faults or "cancel" not in world.sorts:
        return
    for number, request in enumerate(state.requests):
        command = f"a{number + 1}"
        if request.phase != "acknowledged" or status_of(state, command) != "accepted":
            continue
        if row_locked(state, PLACES[command]) and "row-lock" not in world.without:
            continue
        place = state.journal.index(Row(command, "accepted"))
        journal = put(state.journal, place, Row(command, "cancelled"))
        cancelled = state._replace(journal=journal, faults=state.faults - 1)
        yield f"The client cancels {command}, and is told so.", with_request(cancelled, number, Request("told"))


def redrive(state: State, world: World) -> Iterator[Step]:
    """An operator has a command accepted again that a bug set aside. It keeps its place in the journal, and overtakes
    no older failed command of its asset (`storage/journal/redrive.py`)."""
    failed: set[int] = set()
    for place, row in enumerate(state.journal):
        if row.status == "failed" and PLACES[row.command] not in failed:
            failed.add(PLACES[row.command])
            journal = put(state.journal, place, Row(row.command, "accepted"))
            yield f"An operator redrives {row.command}.", state._replace(journal=journal)


STEPS = (submit, answer, listen, look_again)
CHOICES = (cancel, redrive)
"""What somebody may do and need not."""
