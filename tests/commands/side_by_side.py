"""A world and its model, side by side: every command is predicted, sent and compared."""

from datetime import timedelta
from uuid import UUID

from pydantic_core import to_json

from commands.command import Command, decode
from commands.outcome import Outcome, Status
from commands.requests import GatewayRequest, RequestState
from commands.terms import Terms
from tests.commands import acts, sightings
from tests.commands.acts import LIMITS, Act
from tests.commands.binding import bind
from tests.commands.model.market import TIMER_GRACE, Market, Refused, Sent
from tests.commands.world import World

TERMS = Terms(
    offers_per_item_max=LIMITS.offers_per_item,
    proposals_per_trade_max=LIMITS.proposals_per_trade,
    trades_per_item_max=LIMITS.trades_per_item,
    withdraw_daily_max_nano=LIMITS.withdrawn_daily_nano,
    wallet=LIMITS.wallet,
)
OPENED_SECONDS = 90_000
"""What passes after the opening, so that the channel may be priced."""


class SideBySide:
    """After the opening."""

    def __init__(self, batch_seconds: int = 1) -> None:
        self.world = World(TERMS)
        self.world.batch_seconds = batch_seconds
        self.model = Market(LIMITS)
        self.seen: list[tuple[str, str]] = []
        """The kind and what came of it, of every command."""
        for command in acts.opening():
            self.send(command)
        self.pass_time(OPENED_SECONDS)

    def act(self, act: Act) -> tuple[acts.Command, Outcome]:
        sent = bind(act, self.model, self.world.now)
        return sent, self.send(sent)

    def send(self, sent: acts.Command) -> Outcome:
        command = command_of(sent)
        expected = self._predict(sent)
        outcome = self.world.one(command, sent.actor)
        self._compare(sent.kind, expected, outcome)
        return outcome

    def pass_time(self, seconds: float) -> None:
        """The timers that are due run, one after another."""
        due = self.model.due(self.world.now + timedelta(seconds=seconds))
        timers = [acts.Command(kind, names, None) for _, kind, names in due]
        expected = [self._predict(timer, number, seconds) for number, timer in enumerate(timers)]
        outcomes = self.world.advance(seconds)
        for timer, refused, outcome in zip(timers, expected, outcomes, strict=True):
            self._compare(timer.kind, refused, outcome)

    def pass_to_deadline(self, place: int, seconds: float) -> None:
        """To some seconds after, or before, one of the next deadlines; its timer runs a grace after it."""
        for timer_at in sorted({at for at, _, _ in self.model.timers})[place : place + 1]:
            self.pass_time(max(0, (timer_at - TIMER_GRACE - self.world.now).total_seconds() + seconds))

    def attempt(self, place: int) -> None:
        """The courier takes one of the last requests to the gateway, whose answer does not come yet."""
        for reference in list(self.model.requests)[::-1][place : place + 1]:
            asked = self.world.get(GatewayRequest, reference)
            if asked.state == RequestState.PENDING:
                self.world.rows[GatewayRequest, reference] = asked._replace(state=RequestState.SENT, attempts=1)
            self.model.attempted.add(reference)

    def look(self) -> None:
        """They look the same."""
        world, model = sightings.of_world(self.world, self.model), sightings.of_model(self.model)
        for name, seen in model.items():
            assert world[name] == seen, name

    def _predict(self, sent: acts.Command, number: int = 0, seconds: float = 0) -> Refused | None:
        """Of a command that comes so much later, and after so many others; a batch takes its time."""
        batch = timedelta(seconds=self.world.batch_seconds)
        accepted_at = self.world.now + timedelta(seconds=seconds) + number * batch
        id_ = UUID(int=self.world.last_number + 1 + number)
        return self.model.decide(Sent(id_, sent.kind, sent.fields, sent.actor, accepted_at, accepted_at + batch))

    def _compare(self, kind: str, refused: Refused | None, outcome: Outcome) -> None:
        self.seen.append((kind, "succeeded" if refused is None else refused.code))
        compare(refused, outcome)


def command_of(sent: acts.Command) -> Command:
    """As it would come over the wire, within the bounds of the terms."""
    command = decode(sent.kind, to_json(sent.fields))
    command.check(TERMS)
    return command


def compare(refused: Refused | None, outcome: Outcome) -> None:
    """The rejection has the details that the model has, at least."""
    if refused is None:
        assert outcome.status is Status.SUCCEEDED, outcome
    else:
        assert outcome.rejection is not None, (refused, outcome)
        assert outcome.rejection["code"] == refused.code
        assert refused.facts.items() <= outcome.rejection.items()
