"""The sandbox: a gateway that does nothing, plausibly, and goes wrong when told to.

For the embedded stack and the tests. What it did is in `sandbox_effects`, one row for each reference, committed at
once: so the effects of a killed process are found by the others, as those of the world outside would be. What is to go
wrong is in `sandbox_faults`, where any process can put it.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

import asyncpg
from pydantic_core import from_json, to_json

from storage.gateway.bridge import Answer, Call, Outcome, command_of
from storage.journal.accept import Journal
from storage.journal.entry import Entry, Facts, new_id
from storage.journal.receipts import Receipt
from storage.postgres.connection import Connection, Line
from storage.settings import Settings

_STATEMENT_SECONDS = 5.0
_SECRETS = frozenset({"code", "password"})
_GIFT_IDS = 8_000_000_000_000_000
"""The sandbox's gifts begin here, out of the way of those that the feeds report."""


class Fault(StrEnum):
    """What may go wrong with a call. Only SLOW, LOSE_ANSWER and DOWN strike lookups too."""

    SLOW = "slow"
    """The answer takes `seconds`; the effect is there at once."""
    REFUSE = "refuse"
    """A definite no, with the `reason`."""
    LOSE_REQUEST = "lose_request"
    """No answer, and no effect."""
    LOSE_ANSWER = "lose_answer"
    """No answer, but the effect is there."""
    DUPLICATE = "duplicate"
    """The answer comes, and once more as a command of the feed."""
    DOWN = "down"
    """There is no connection."""


_STRIKE = """
WITH fault AS (
    SELECT id, fault, reason, seconds FROM sandbox_faults
    WHERE op IN ($1, '*') AND remaining IS DISTINCT FROM 0 AND fault = ANY($2::text[])
    ORDER BY id LIMIT 1 FOR UPDATE
), counted AS (
    UPDATE sandbox_faults SET remaining = remaining - 1 FROM fault WHERE sandbox_faults.id = fault.id
)
SELECT fault, reason, seconds FROM fault
"""
# The token's row is locked until the effect is committed, so calls for one account have their effects one by one.
_SEE = """
INSERT INTO sandbox_tokens AS seen (account, fencing_token) SELECT account, $2 FROM unnest($1::text[]) AS account
ON CONFLICT (account) DO UPDATE SET fencing_token = greatest(seen.fencing_token, excluded.fencing_token)
RETURNING fencing_token
"""
_PERFORM = f"""
WITH seen AS ({_SEE}), allowed AS (
    SELECT max(fencing_token) <= $2 AS fresh FROM seen
), effect AS (
    INSERT INTO sandbox_effects (reference, op, body, outcome, reason, answer, fencing_token)
    SELECT $3, $4, $5, $6, $7, $8, $2 FROM allowed
    WHERE (fresh AND clock_timestamp() < $9) OR EXISTS (SELECT FROM sandbox_effects WHERE reference = $3)
    ON CONFLICT (reference) DO UPDATE SET calls = sandbox_effects.calls + 1
    RETURNING outcome, reason, answer
)
SELECT fresh, outcome, reason, answer FROM allowed LEFT JOIN effect ON true
"""  # noqa: S608 - our own texts
_LOOKUP = "SELECT outcome, reason, answer FROM sandbox_effects WHERE reference = $1"
_WAITING = "SELECT answers, names FROM gateway_requests WHERE reference = $1"

_SIGNED_IN = """
SELECT account_id FROM (
    SELECT DISTINCT ON (account_id) account_id, op
    FROM (SELECT *, body ->> 'account_id' AS account_id FROM sandbox_effects) AS effects
    WHERE op IN ('account.sign_in', 'account.sign_out') AND outcome = 'done' ORDER BY account_id, fencing_token DESC
) AS last WHERE op = 'account.sign_in'
"""

_LOST = Answer(Outcome.UNKNOWN, "timeout")


async def set_fault(
    connection: Connection,
    fault: Fault,
    op: str = "*",
    *,
    times: int | None = 1,
    reason: str | None = None,
    seconds: float | None = None,
) -> None:
    """Strike the next calls of an operation, '*' for any; None times: all of them."""
    await connection.execute(
        "INSERT INTO sandbox_faults (op, fault, remaining, reason, seconds) VALUES ($1, $2, $3, $4, $5)",
        *(op, fault, times, reason, seconds),
    )


async def clear_faults(connection: Connection) -> None:
    await connection.execute("DELETE FROM sandbox_faults")


async def signed_in(connection: Connection) -> set[UUID]:
    """The ids of the Telegram accounts that have a session there."""
    return {UUID(row["account_id"]) for row in await connection.fetch(_SIGNED_IN)}


class Sandbox:
    """The gateway without an outside."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._line = Line(settings, "sandbox", timeout_seconds=_STATEMENT_SECONDS, pinned_plans=True)
        self._turn = asyncio.Lock()

    async def perform(self, call: Call, body: Mapping[str, Any], not_after: datetime) -> Answer:
        fault = await self._strike(call.op, *Fault)
        if fault is not None and fault["fault"] == Fault.DOWN:
            return Answer(Outcome.NEVER_SEEN, "not_connected")
        if fault is not None and fault["fault"] == Fault.LOSE_REQUEST:
            return _LOST
        if fault is not None and fault["fault"] == Fault.REFUSE:
            first = Answer(Outcome.REFUSED, fault["reason"] or "refused")
        else:
            first = Answer(Outcome.DONE, None, plausible(call.op, call.reference, body))
        kept = {name: value for name, value in body.items() if name not in _SECRETS}
        stored = to_json(kept).decode(), first.outcome, first.reason, to_json(first.fields).decode(), not_after
        [row] = await self._fetch(_PERFORM, *_token(call), call.reference, call.op, *stored)
        if row["outcome"] is None:
            return Answer(Outcome.UNKNOWN, "too_late" if row["fresh"] else "overtaken")
        return await self._deliver(call.reference, _answer_in(row), fault)

    async def lookup(self, call: Call) -> Answer:
        fault = await self._strike(call.op, Fault.SLOW, Fault.LOSE_ANSWER, Fault.DOWN)
        if fault is not None and fault["fault"] == Fault.DOWN:
            return Answer(Outcome.UNKNOWN, "not_connected")
        await self._fetch(_SEE, *_token(call))  # committed before it is looked: what it did not stop is found
        rows = await self._fetch(_LOOKUP, call.reference)
        return await self._deliver(call.reference, _answer_in(rows[0]) if rows else Answer(Outcome.NEVER_SEEN), fault)

    async def close(self) -> None:
        await self._line.close()

    async def _strike(self, op: str, *faults: Fault) -> asyncpg.Record | None:
        rows = await self._fetch(_STRIKE, op, faults)
        return rows[0] if rows else None

    async def _deliver(self, reference: UUID, answer: Answer, fault: asyncpg.Record | None) -> Answer:
        if fault is None:
            return answer
        if fault["fault"] == Fault.SLOW:
            await asyncio.sleep(fault["seconds"] or 1)
        if fault["fault"] == Fault.DUPLICATE:
            await self._report(reference, answer)
        return _LOST if fault["fault"] == Fault.LOSE_ANSWER else answer

    async def _report(self, reference: UUID, answer: Answer) -> None:
        """Send the answer as the feed would: the same command, under an id of its own."""
        [(answers, names)] = await self._fetch(_WAITING, reference)
        if answers is None:
            return
        command = command_of(answers, from_json(names), answer)
        journal = Journal(self._settings)
        try:
            [receipt] = await journal.accept([Entry.of(command, Facts(new_id()), self._settings.partitions)])
        finally:
            await journal.close()
        if not isinstance(receipt, Receipt):
            raise receipt

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._turn:
            try:
                return await (await self._line.connected()).fetch(statement, *arguments)
            except Exception as error:
                self._line.doubt(error)
                raise


def _token(call: Call) -> tuple[list[str], int]:
    """The accounts, in the order in which all lock them, and the token."""
    return sorted(call.accounts), call.fencing_token


def _answer_in(row: asyncpg.Record) -> Answer:
    return Answer(Outcome(row["outcome"]), row["reason"], from_json(row["answer"]))


# -- what is answered: always the same to the same question


def plausible(op: str, reference: UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the answer when the operation is done."""
    answer = _ANSWERS.get(op)
    return answer(reference, body) if answer else {}


def _paid(reference: UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tx_hash": sha256(reference.bytes).hexdigest(),
        "logical_time": reference.int >> 80,  # grows: the reference begins with the time
        "network_fee_nano": 2_000_000 + _number(1_000_000, reference),
    }


def _signed_in(reference: UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    telegram_id = 1_000_000_000 + _number(10**9, body["phone"])
    return {"telegram_id": telegram_id, **_standing(body)}


def _snapshot(reference: UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    gifts = [{"gift": gift, "message_ref": f"sandbox-{gift['id']}"} for gift in _gifts("account", body["account_id"])]
    first = 1_000_000_000 + _number(10**9, "channel", body["account_id"])
    channels = [{"channel_id": str(first + n), "title": f"Gifts {first + n}", "username": None} for n in range(2)]
    return {**_standing(body), "gifts": gifts, "channels": channels}


def _inspected(reference: UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    channel_id = body["channel_id"]
    gifts = [
        {"gift": gift, "quantity": 1 + _number(3, "quantity", gift["id"])} for gift in _gifts("channel", channel_id)
    ]
    return {
        "title": f"Gifts {channel_id}",
        "username": f"gifts_{channel_id}",
        "is_creator": True,
        "gifts": gifts,
        "gifts_hash": sha256(to_json(gifts)).hexdigest(),
    }


_ANSWERS: dict[str, Callable[[UUID, Mapping[str, Any]], dict[str, Any]]] = {
    "ton.pay": _paid,
    "channel.inspect": _inspected,
    "account.sign_in": _signed_in,
    "account.snapshot": _snapshot,
}


def _standing(body: Mapping[str, Any]) -> dict[str, Any]:
    account_id = body["account_id"]
    return {"stars": _number(10_000, "stars", account_id), "premium": _number(2, "premium", account_id) == 1}


_MODELS = ("Cozy", "Raphael", "Neon", "Amber")
_PATTERNS = ("Stars", "Skulls", "Clover")
_BACKDROPS = (("Onyx", 0x4D5254), ("Ruby", 0xA0334A), ("Azure", 0x4A90B8))


def _gifts(*of: object) -> Iterator[dict[str, Any]]:
    """Two or three gifts."""
    for place in range(2 + _number(2, "gifts", *of)):
        number = _number(10**12, place, *of)
        backdrop, color = _BACKDROPS[number % 3]
        yield {
            "id": str(_GIFT_IDS + number),
            "collection": "Plush Pepe",
            "num": 1 + number % 100_000,
            "model": _MODELS[number % 4],
            "pattern": _PATTERNS[number // 3 % 3],
            "backdrop": backdrop,
            "model_permille": 5 + number % 20,
            "pattern_permille": 3 + number % 10,
            "backdrop_permille": 10 + number % 15,
            "center_color": color,
            "edge_color": color & 0x7F7F7F,
            "pattern_color": 0x111111,
            "text_color": 0xFFFFFF,
            "slug": f"PlushPepe-{1 + number % 100_000}",
            "availability_total": 100_000,
        }


def _number(below: int, *of: object) -> int:
    """A number that looks like any, and is the same for the same."""
    return int.from_bytes(sha256(repr(of).encode()).digest()[:8]) % below
