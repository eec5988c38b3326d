"""Histories at times of our choosing: made in memory, beside the model, and lived through again on a real database.

A batch here is the lanes' own, but that its moment is given; so what came of a command can be compared to the last
microsecond.
"""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast
from uuid import UUID

from pydantic_core import from_json, to_json

from commands.book import Account
from commands.decide import decide_all
from commands.document import STORED, Row
from commands.nft.items import GiftLock
from commands.outcome import Outcome
from storage.journal.entry import fingerprint_of, partition_of
from storage.journal.promote import promotion
from storage.journal.unit_of_work import UnitOfWork
from storage.postgres.connection import Connection
from storage.settings import Settings
from tests.commands import acts
from tests.commands.side_by_side import OPENED_SECONDS, SideBySide, command_of
from tests.commands.world import START
from workers.services.timers import _DUE_MAX

SECONDS = (0, 0, 1, 130, 400, 3_600, 90_000)
JOURNAL = (
    *("id", "kind", "asset", "partition", "actor", "payload", "fingerprint", "not_after"),
    *("status", "accepted_at", "run_at", "finished_at", "result", "rejection", "error"),
)
TICK = timedelta(microseconds=1)


class Step(NamedTuple):
    """Time passes, a courier takes requests outside, then commands come, all at one moment: (id, command, what came of
    it in memory)."""

    seconds: float
    attempted: list[UUID]
    sent: list[tuple[UUID, acts.Command, Outcome]]


def imagine(chance: random.Random, commands: int, batch_max: int) -> tuple[SideBySide, list[Step]]:
    """A history of all mechanisms, after its opening, and the marketplace that it leaves in memory."""
    both = SideBySide(batch_seconds=0)
    steps: list[Step] = []
    while commands > 0:
        drawn = acts.random_acts(chance, chance.randint(1, batch_max))
        seconds = _pass(both, chance)
        before = set(both.model.attempted)
        both.attempt(chance.randrange(3))
        sent = []
        for act in drawn:
            id_ = UUID(int=both.world.last_number + 1)
            sent.append((id_, *both.act(act)))
        steps.append(Step(seconds, list(both.model.attempted - before), sent))
        commands -= len(sent)
    return both, steps


def _pass(both: SideBySide, chance: random.Random) -> float:
    before = both.world.now
    if chance.randrange(4):
        both.pass_time(chance.choice(SECONDS))
    else:
        both.pass_to_deadline(chance.randrange(4), chance.choice((-1, 0, 1, 2)))
    return (both.world.now - before).total_seconds()


class Chronicle:
    """A database that is led through a history: commands come at its moment, and batches run at `now`, which is a tick
    later after each of them."""

    def __init__(self, lane: Connection, settings: Settings, tick: timedelta = timedelta()) -> None:
        self._lane = lane
        self._settings = settings
        self._tick = tick
        self._every = dict.fromkeys(range(settings.partitions), 0)
        self._moment = self.now = START
        self.attempted_at: dict[UUID, datetime] = {}

    async def live(self, steps: Sequence[Step], *, singly: bool = False) -> None:
        for number, command in enumerate(acts.opening(), 1):
            await self.accept(UUID(int=number), command)
        await self.execute_all()
        await self.pass_time(OPENED_SECONDS, singly=singly)
        for step in steps:
            await self.pass_time(step.seconds, singly=singly)
            for reference in step.attempted:
                await self.attempt(reference)
            for id_, command, _ in step.sent:
                await self.accept(id_, command)
                if singly:
                    await self.execute_all()
            await self.execute_all()

    async def accept(self, id_: UUID, sent: acts.Command) -> None:
        command = command_of(sent)
        payload, asset = command.model_dump_json(), command.asset(id_, sent.actor)
        await self._lane.execute(
            "INSERT INTO commands (id, kind, asset, partition, actor, payload, status, fingerprint, accepted_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, 'accepted', $7, $8)",
            id_, sent.kind, asset, partition_of(asset, self._settings.partitions), sent.actor, payload,
            fingerprint_of(sent.kind, payload), self._moment,
        )  # fmt: skip

    async def copy(self, row: dict[str, Any]) -> None:
        """Accept a command of another journal, unless it is in this one already."""
        accepted = {name: row[name] for name in JOURNAL[:8]} | {"status": "accepted", "accepted_at": row["accepted_at"]}
        marks = ", ".join(f"${number}" for number in range(1, len(accepted) + 1))
        await self._lane.execute(
            f"INSERT INTO commands ({', '.join(accepted)}) VALUES ({marks}) ON CONFLICT DO NOTHING", *accepted.values()
        )

    async def pass_time(self, seconds: float, *, singly: bool = False) -> None:
        """The timers that are due are accepted as the workers' own statement does it, and executed."""
        self._moment += timedelta(seconds=seconds)
        self.now = max(self.now, self._moment)
        moment = f"'{self._moment.isoformat()}'::timestamptz"
        while await self._lane.fetch(promotion(moment, moment), 1 if singly else _DUE_MAX):
            if singly:
                await self.execute_all()
        await self.execute_all()

    async def promote(self, id_: UUID, accepted_at: datetime) -> None:
        await self._lane.execute(
            "UPDATE commands SET status = 'accepted', accepted_at = $2,"
            " seq = nextval(pg_get_serial_sequence('commands', 'seq')) WHERE id = $1 AND status = 'scheduled'",
            id_, accepted_at,
        )  # fmt: skip

    async def attempt(self, reference: UUID) -> None:
        """What the courier writes down before it calls the gateway."""
        self.attempted_at[reference] = self.now
        await self._lane.execute(
            "UPDATE gateway_requests SET state = 'sent', attempts = 1 WHERE reference = $1 AND state = 'pending'",
            reference,
        )

    async def execute_all(self) -> None:
        while await self.execute():
            self.now += self._tick

    async def execute(self) -> list[UUID]:
        """One batch of all that waits, at this moment: the commands that it finished."""
        async with UnitOfWork(self._lane, self._settings) as work:
            await work.begin(self._every)
            envelopes, book = await work.claim(list(self._every), 1_000)
            if not envelopes:
                return []
            book.now = self.now
            await work.load(book, envelopes)
            outcomes, _ = decide_all(book, envelopes)
            await work.write(book, outcomes)
            await work.commit()
        return list(outcomes)

    async def documents(self) -> dict[tuple[type[Row], Any], Row]:
        """Every document there is, as a world in memory keeps them."""
        rows: dict[tuple[type[Row], Any], Row] = {}
        for kind, stored in STORED.items():
            if stored.key and kind is not GiftLock:
                found = await self._lane.fetch(f"SELECT {', '.join(stored.fields)} FROM {stored.table}")
                made = [cast("Any", kind)._make(row) for row in found]
                rows |= {(kind, stored.key_of(row)): row for row in made}
        return {place: row for place, row in rows.items() if place[0] is not Account or place[1] > 0}

    async def records(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that only grows, in its order, but for the journal; and the platform's accounts."""
        rows = {"platform": await self._lane.fetch("SELECT * FROM accounts WHERE id < 0 ORDER BY id")}
        for stored in STORED.values():
            if not stored.key:
                fields = (*stored.fields, *([stored.moment] if stored.moment else []))
                order = "id" if stored.table in ("postings", "events") else ", ".join(fields)
                statement = f"SELECT {', '.join(fields)} FROM {stored.table} ORDER BY {order}"
                rows[stored.table] = await self._lane.fetch(statement)
        return {table: [tuple(row) for row in found] for table, found in rows.items()}

    async def journal(self) -> list[dict[str, Any]]:
        """The journal in the order of execution; what was never executed comes last."""
        return [
            dict(row)
            for row in await self._lane.fetch(f"SELECT {', '.join(JOURNAL)} FROM commands ORDER BY finished_at, seq")
        ]


def verdict(row: dict[str, Any]) -> tuple[Any, ...]:
    """What came of a command, from the journal; as `verdict_of` tells it of an outcome."""
    return row["status"], *(None if row[name] is None else from_json(row[name]) for name in ("result", "rejection"))


def verdict_of(outcome: Outcome) -> tuple[Any, ...]:
    return outcome.status, *(
        None if it is None else from_json(to_json(it)) for it in (outcome.result, outcome.rejection)
    )
