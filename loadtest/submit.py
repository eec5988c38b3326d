"""Submits commands until each has its last answer: a final receipt or a definite problem.

Every command carries an idempotency key, so whatever remains unanswered is simply sent again: after 429 and 503 when
`Retry-After` is over, after a broken connection with a growing pause.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from loadtest.measure import Tally
from loadtest.pace import Command, Sending
from souk_client import FINAL, Client, Problem, Unreachable

WAIT_SECONDS, TIMEOUT_SECONDS = 30, 40.0
PATIENCE_SECONDS = 60.0
"""A command without a last answer for so long counts as unfinished."""
PAUSE_MIN_SECONDS, PAUSE_MAX_SECONDS = 0.05, 1.0

TRANSIENT = frozenset({"too_many_requests", "overloaded", "unavailable"})
SERVER_ERROR = 500
PREFER = {"Prefer": f"wait={WAIT_SECONDS}"}

Receipt = dict[str, Any]
"""A receipt, or a problem (told apart by its `code`)."""


class Submitter:
    """Callable with the commands of one body. `batched` picks the route. Of every `sample` bodies one is sent without
    waiting, to measure the time to acceptance; 0 samples none. `on_answer` sees each command with its last answer."""

    def __init__(
        self,
        client: Client,
        tally: Tally,
        *,
        batched: bool,
        sample: int = 0,
        on_answer: Callable[[Command, Receipt], None] | None = None,
    ) -> None:
        self._client = client
        self._tally = tally
        self._path = "/v1/commands/batch" if batched else "/v1/commands"
        self._batched = batched
        self._sample = sample
        self._on_answer = on_answer
        self._bodies = 0

    async def __call__(self, body: Sequence[Sending]) -> None:
        self._tally.submitted += len(body)
        self._bodies += 1
        sampled = self._sample > 0 and self._bodies % self._sample == 0
        headers = {} if sampled else PREFER
        deadline = monotonic() + PATIENCE_SECONDS
        attempts, left = 0, body
        while left:
            answers, pause = await self._send(left, headers)
            left = await self._take_in(left, answers, sampled, deadline)
            if left and monotonic() > deadline:
                for sending in left:
                    self._settle(sending, None, sampled)
                return
            if left:
                attempts += 1
                await asyncio.sleep(pause or _backoff(attempts))

    async def _take_in(
        self, body: Sequence[Sending], answers: Sequence[Receipt | None], sampled: bool, deadline: float
    ) -> list[Sending]:
        """Settles what is final, waits for what is only accepted, and returns what is to be sent again."""
        now = monotonic()
        again: list[Sending] = []
        accepted: list[tuple[Sending, str]] = []
        for sending, answer in zip(body, answers, strict=True):
            if answer is None or answer.get("code") in TRANSIENT:
                again.append(sending)
                continue
            if "code" in answer:
                self._settle(sending, answer, sampled)
                continue
            self._tally.accepted += 1
            self._tally.last_accepted = now
            if sampled:
                self._tally.to_acceptance.add(now - sending.due)
            if answer["status"] in FINAL:
                self._settle(sending, answer, sampled)
            else:
                accepted.append((sending, answer["id"]))
        self._tally.broken_up += 0 < len(again) < len(body)
        for sending, command_id in accepted:
            self._settle(sending, await self._result(command_id, deadline), sampled)
        return again

    def _settle(self, sending: Sending, answer: Receipt | None, sampled: bool) -> None:
        command = sending.command
        self._tally.settled(answer, command.foreseen, None if sampled else sending.due)
        if self._on_answer is not None and answer is not None:
            self._on_answer(command, answer)

    async def _send(
        self, body: Sequence[Sending], headers: Mapping[str, str]
    ) -> tuple[Sequence[Receipt | None], float]:
        """The answer to each command, None for those to be sent again, and the pause that the server asks for."""
        commands = [sending.command.body for sending in body]
        content = b'{"commands":[' + b",".join(commands) + b"]}" if self._batched else commands[0]
        try:
            answer = await self._client.request("POST", self._path, content, headers, TIMEOUT_SECONDS)
            decoded = answer.json()
        except Unreachable:
            self._tally.repeats["unreachable"] += 1
            return [None] * len(body), 0.0
        except Problem as problem:
            if problem.passes or problem.status == SERVER_ERROR:
                self._tally.repeats[problem.code] += 1
                return [None] * len(body), problem.retry_after
            return [{**problem.raw, "code": problem.code}] * len(body), 0.0
        receipts: list[Receipt] = decoded["receipts"] if self._batched else [decoded]
        if len(receipts) != len(body):
            message = f"{len(receipts)} receipts for {len(body)} commands"
            raise ValueError(message)
        if self._batched:
            for receipt in receipts:
                if receipt.get("code") in TRANSIENT:
                    self._tally.repeats[receipt["code"]] += 1
        return receipts, answer.retry_after

    async def _result(self, command_id: str, deadline: float) -> Receipt | None:
        """The final receipt of an accepted command, None when patience runs out or nobody knows it any more."""
        try:
            receipt = await self._client.wait(command_id, deadline - monotonic())
        except Unreachable:
            return None
        except Problem as problem:
            self._tally.repeats[f"accepted, then {problem.code}"] += 1
            return None
        return dict(receipt.raw) if receipt.is_final else None


def _backoff(attempts: int) -> float:
    return min(PAUSE_MAX_SECONDS, PAUSE_MIN_SECONDS * float(2**attempts)) * (0.5 + random.random() / 2)
