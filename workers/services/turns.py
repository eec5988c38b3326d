"""Turns: which call to the outside is made next, decided in PostgreSQL for accounts whose locks are held.

| a request that is due | what is done |
|-----------------------|--------------|
| pending               | an attempt, when it is its turn |
| sent                  | a lookup: whoever attempted it did not live to hear the answer |
| unknown               | a lookup |
| never_seen            | an attempt under the same reference while some are left, else a lookup |

It is the turn of the oldest that was never attempted. A sign-out also waits for all that its account was asked before:
until it has ended, or its last attempt is too old to be performed. Nothing else is attempted again for an account that
is closed, so no session begins behind a sign-out.

Before each call its lease (`due_at` in the future), its number and its line in the log are committed, so no call is
made that nobody knows of; and a request that was cancelled is not attempted, one that was attempted not cancelled. The
line's fencing token is drawn in the same statement.
"""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from storage.journal.erase import erase_secrets
from storage.postgres.connection import Line
from storage.postgres.group_commit import Gather
from storage.settings import Settings

STATEMENT_SECONDS = 10.0
_LEASE_MARGIN_SECONDS = 2.0
_LOOK_MAX = 256
_CLAIMS_MAX = 16
"""Of one statement."""

_LOOK = f"""
SELECT account, channel FROM gateway_requests
WHERE closed_at IS NULL AND due_at <= statement_timestamp()
    AND account <> ALL($1::text[]) AND coalesce(channel <> ALL($1::text[]), true)
    AND (account, coalesce(channel, '')) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))
ORDER BY due_at LIMIT {_LOOK_MAX}
"""  # noqa: S608 - our own texts

# For each pair of accounts the request that is due longest, among those whose turn it is: why that is safe although
# others write meanwhile is told in docs/decisions/0013.
_CLAIM = """
WITH due AS (
    SELECT next.* FROM unnest($1::text[], $2::text[]) AS locked(account, channel), LATERAL (
        SELECT reference, state = 'pending' OR (state = 'never_seen' AND left_over) AS attempt, NOT left_over AS spent
        FROM gateway_requests AS request, LATERAL (
            SELECT attempts < $3 AND opened_at > statement_timestamp() - make_interval(secs => $4) AND (
                op = 'account.sign_out' OR NOT EXISTS (
                    SELECT FROM telegram_accounts WHERE telegram_accounts.closed_at IS NOT NULL
                        AND id = CASE WHEN account LIKE 'account:%' THEN split_part(account, ':', 2)::uuid END
                )
            ) AS left_over
        ) AS budget
        WHERE request.account = locked.account AND request.channel IS NOT DISTINCT FROM locked.channel
            AND closed_at IS NULL AND due_at <= statement_timestamp()
            AND NOT (state = 'pending' AND EXISTS (
                SELECT FROM gateway_requests AS older
                WHERE older.account = request.account AND older.state = 'pending' AND older.seq < request.seq
            ))
            AND NOT (state = 'pending' AND EXISTS (
                SELECT FROM gateway_requests AS older
                WHERE older.channel = request.channel AND older.state = 'pending' AND older.seq < request.seq
            ))
            AND NOT (state = 'pending' AND op = 'account.sign_out' AND EXISTS (
                SELECT FROM gateway_requests AS older
                WHERE older.account = request.account AND older.closed_at IS NULL AND older.seq < request.seq AND (
                    older.state = 'never_seen'
                    OR older.attempted_at > statement_timestamp() - make_interval(secs => $5)
                )
            ))
        ORDER BY due_at, seq LIMIT 1 FOR UPDATE OF request SKIP LOCKED
    ) AS next
), claimed AS (
    UPDATE gateway_requests AS request SET
        state = CASE WHEN attempt THEN 'sent' ELSE state END,
        attempts = attempts + attempt::integer,
        lookups = lookups + (NOT attempt)::integer,
        attempted_at = CASE WHEN attempt THEN clock_timestamp() ELSE attempted_at END,
        due_at = clock_timestamp() + make_interval(secs => $6)
    FROM due WHERE request.reference = due.reference
    RETURNING request.reference, op, account, channel, body, answers, names, attempt, spent, attempts, lookups,
        attempted_at, clock_timestamp() - attempted_at AS age
), logged AS (
    INSERT INTO gateway_log (reference, number, op, call, at)
    SELECT reference, attempts + lookups, op, CASE WHEN attempt THEN 'perform' ELSE 'lookup' END, clock_timestamp()
    FROM claimed
    RETURNING reference, fencing_token
)
SELECT claimed.*, fencing_token, secrets
FROM claimed JOIN logged USING (reference) LEFT JOIN commands ON commands.id = claimed.reference
"""


class Pair(NamedTuple):
    """The outside accounts of a request: who acts, and the channel that is acted on."""

    account: str
    channel: str | None

    @property
    def accounts(self) -> tuple[str, ...]:
        return (self.account,) if self.channel is None else (self.account, self.channel)


class Claim(NamedTuple):
    """A call to make: a row of _CLAIM. `spent`: no attempts are left; `age`: of the last attempt."""

    reference: UUID
    op: str
    account: str
    channel: str | None
    body: str
    answers: str | None
    names: str
    attempt: bool
    spent: bool
    attempts: int
    lookups: int
    attempted_at: datetime
    age: timedelta
    fencing_token: int
    secrets: bytes | None

    @property
    def pair(self) -> Pair:
        return Pair(self.account, self.channel)


class Turns:
    """Those of one worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._line = Line(settings, "couriers", timeout_seconds=STATEMENT_SECONDS, pinned_plans=True)
        self._turn = asyncio.Lock()
        self._claims: Gather[Pair, Claim | None] = Gather(self._claim, _CLAIMS_MAX)

    async def look(self, busy: Collection[str], in_vain: Collection[Pair]) -> list[Pair]:
        """Accounts that something is due for, those first for which it is longest; none of the `busy` accounts, and
        not the pairs `in_vain`."""
        left_alone = [pair.account for pair in in_vain], [pair.channel or "" for pair in in_vain]
        async with self._turn:
            rows = await (await self._line.connected()).fetch(_LOOK, list(busy), *left_alone)
        return list(dict.fromkeys(Pair(*row) for row in rows))

    async def claim(self, pair: Pair) -> Claim | None:
        """The next call to make for accounts whose locks are held: it is written down. None when none is due."""
        return (await self._claims.add([pair]))[0]

    async def erase(self) -> None:
        """Erase secrets that nothing waits for any more, whoever ended it."""
        async with self._turn:
            await erase_secrets(await self._line.connected())

    def doubt(self, error: Exception) -> None:
        """Let go of the connection after this error, unless it is of the statement alone."""
        self._line.doubt(error)

    async def close(self) -> None:
        await self._claims.close()
        await self._line.close()

    async def _claim(self, pairs: list[Pair]) -> list[Claim | None]:
        terms = self._settings
        async with self._turn:
            rows = await (await self._line.connected()).fetch(
                _CLAIM,
                [pair.account for pair in pairs],
                [pair.channel for pair in pairs],
                terms.gateway_attempts_max,
                terms.saga_give_up_seconds,
                2 * terms.gateway_valid_seconds,
                terms.gateway_timeout_seconds + _LEASE_MARGIN_SECONDS,
            )
        claims = {claim.pair: claim for claim in (Claim(*row) for row in rows)}
        return [claims.get(pair) for pair in pairs]
