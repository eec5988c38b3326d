"""The stories told without servers: to the rules themselves, in memory, with the sandbox for an outside world."""

import json
from dataclasses import fields
from datetime import timedelta
from itertools import islice
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic_core import from_json, to_json

from commands.accounts.telegram import AccountChannel, AccountGift, Channel, TelegramAccount
from commands.channels.purchases import ChannelPurchase
from commands.command import decode
from commands.nft.returns import Return
from commands.outcome import Outcome
from commands.requests import GatewayRequest, RequestState
from commands.terms import Terms
from loadtest.mix import Mix, weights
from loadtest.pace import Command
from loadtest.stories.stage import Scene, Stage
from loadtest.terms import Terms as KnownTerms
from loadtest.workload import Marketplace
from storage.gateway import bridge as gateway
from storage.gateway.sandbox import plausible
from tests.commands.world import START, World

BRISK = Terms(
    auction_duration_min_seconds=20,
    auction_window_seconds=5,
    auction_extension_max_seconds=10,
    presale_grace_seconds=5,
    channel_account_age_seconds=0,
)
WINDOW = 12
"""Commands of different stories that are executed as one batch."""


class Rehearsal:
    """One mix on a small marketplace."""

    def __init__(self, mix: Mix, seed: int, terms: Terms = BRISK) -> None:
        self.world = World(terms)
        self.market = Marketplace(seed=seed, users=20, items=40, skew=0.5, base=1_000_000, run="test")
        known = KnownTerms(**{field.name: getattr(terms, field.name) for field in fields(KnownTerms)})
        self.stage = Stage(self.market, weights(mix), known, START, self.clock)
        self.sent: list[Command] = []
        self.memos: dict[int, str] = {}
        self._answered: set[UUID] = set()
        self.execute(list(self.market.registrations()))
        self.execute(list(self.market.deposits(self.memos)))
        self.execute(list(self.market.intakes()))

    def clock(self) -> float:
        return (self.world.now - START).total_seconds()

    def play(self, count: int) -> None:
        """So many commands, a window of them at a time."""
        stream = self.stage.commands()
        for _ in range(count // WINDOW):
            self.execute(list(islice(stream, WINDOW)))
            self._answer_requests()
            self.world.advance(0)
            self._look()

    def execute(self, commands: list[Command]) -> None:
        bodies = [json.loads(command.body) for command in commands]
        sent = [(decode(body["kind"], to_json(body["payload"])), body.get("actor")) for body in bodies]
        for rule, _ in sent:
            rule.check(self.world.terms)
        outcomes = self.world.run(*sent)
        self.sent += commands
        for command, body, outcome in zip(commands, bodies, outcomes, strict=True):
            receipt = self._receipt(body["kind"], outcome)
            if isinstance(command.tag, int):
                self.memos[command.tag] = receipt["result"]["memo"]
            if isinstance(command.tag, Scene):
                self.stage.note(command, receipt)

    def _receipt(self, kind: str, outcome: Outcome) -> dict[str, Any]:
        receipt: dict[str, Any] = from_json(
            to_json(
                {
                    "kind": kind,
                    "status": outcome.status,
                    "result": outcome.result,
                    "rejection": outcome.rejection,
                    "error": outcome.error,
                    "finished_at": self.world.now,
                }
            )
        )
        return receipt

    def _answer_requests(self) -> None:
        """The courier's part: every request is performed, and its answer sent."""
        for request in self._rows(GatewayRequest):
            if request.state != RequestState.PENDING or request.reference in self._answered:
                continue
            self._answered.add(request.reference)
            # The world's ids are small numbers; the sandbox takes a payment's time from the id.
            reference = UUID(int=request.reference.int + (1 << 100))
            done = plausible(request.op, reference, json.loads(request.body))
            if request.answers is not None:
                answer = gateway.Answer(gateway.Outcome.DONE, None, done)
                outcome = self.world.one(gateway.command_of(request.answers, json.loads(request.names), answer))
                assert outcome.error is None, outcome.error

    def _look(self) -> None:
        """The API's part: what stories look for."""
        looking, self.stage._looking = self.stage._looking, []
        for waiting in looking:
            assert waiting.look is not None
            self.stage.shown(waiting, waiting.look.shows(self._read(waiting.look.path)))
        self.world.now += timedelta(seconds=1)

    def _read(self, path: str) -> dict[str, Any]:
        """As far as stories know the reads; they find their own among everybody's."""
        match urlsplit(path).path.split("/")[2:]:
            case ["users", "me", "returns"]:
                items = [{"return_id": str(row.id), "state": row.state} for row in self._rows(Return)]
            case ["accounts", "gifts"]:
                snapshots = self._rows(AccountGift)
                items = [{"account_id": str(row.account_id), "gift": {"id": str(row.gift_id)}} for row in snapshots]
            case ["accounts", account_id, "channels"]:
                items = [
                    {"channel_id": str(row.channel_id)}
                    for row in self._rows(AccountChannel)
                    if str(row.account_id) == account_id
                ]
            case ["accounts", account_id]:
                return {"state": self.world.get(TelegramAccount, UUID(account_id)).state}
            case ["channels", "mine"]:
                items = [{"channel_id": str(row.id), "state": row.state} for row in self._rows(Channel)]
            case ["channels", "purchases"]:
                items = [{"purchase_id": str(row.id), "state": row.state} for row in self._rows(ChannelPurchase)]
            case _:
                raise AssertionError(path)
        return {"items": items, "next": None}

    def _rows(self, kind: type[Any]) -> list[Any]:
        return [row for (type_, _), row in self.world.rows.items() if type_ is kind]
