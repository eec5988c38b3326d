"""Webhooks: deliveries reach their endpoints, whichever worker looks first.

The oldest deliveries of an endpoint that wait are its window, as many as its concurrency. Those of them that are due
are claimed: the number of the attempt grows and `due_at` becomes the end of a lease, committed before anything is sent.
What came of an attempt is written only if nobody has claimed the delivery since. So any number of workers may look at
one endpoint without a lock for it; one that dies leaves a lease that runs out, and the delivery is sent again under the
same id. With a concurrency of 1 a delivery that fails keeps the later ones waiting.

A delivery that was asked for by hand, a test or a resend, is tried once, beside the order.
"""

import asyncio
import logging
import random
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import NamedTuple
from uuid import UUID

from storage.gateway.bridge import signed
from storage.postgres.connection import Line, is_weather
from storage.sealing import NoSecretKey, Sealer
from storage.settings import Settings
from storage.webhooks.endpoints import IN_FORCE, LEASE_MARGIN_SECONDS, WAITING, lease_seconds
from storage.webhooks.safe_http import Outbound, Unanswered
from workers.services.fan_out import FanOut

logger = logging.getLogger(__name__)

SENDS_MAX = 100
"""Deliveries that one worker has under way at once."""
OWNER_SENDS_MAX = 10
"""Those of one owner among them: receivers may be as slow as they like."""

_TURN_SECONDS = 0.25
_STATEMENT_SECONDS = 10.0
_LAST_SECONDS = 2.0
"""How long deliveries under way are waited for at the end: an answer heard saves a repeat."""
_USER_AGENT = "Souk-Webhooks"

# A row that somebody else claims or finishes meanwhile is looked at again when its lock is had, and left out.
_CLAIM = f"""
WITH RECURSIVE {WAITING}, front AS (
    SELECT oldest.id, due_at, user_id, key_id FROM waiting JOIN webhooks ON webhooks.id = webhook_id, LATERAL (
        SELECT id, due_at FROM deliveries
        WHERE webhook_id = webhooks.id AND state = 'pending' AND NOT by_hand ORDER BY seq LIMIT concurrency
    ) AS oldest
    WHERE {IN_FORCE}
    UNION ALL
    SELECT deliveries.id, due_at, user_id, key_id FROM deliveries JOIN webhooks ON webhooks.id = webhook_id
    WHERE state = 'pending' AND by_hand AND due_at <= statement_timestamp()
), ranked AS (
    SELECT id, due_at,
        row_number() OVER (PARTITION BY user_id, key_id ORDER BY due_at) + coalesce(under_way, 0) AS rank
    FROM front LEFT JOIN unnest($3::text[], $4::integer[]) AS busy(owner, under_way)
        ON owner = coalesce(user_id::text, key_id)
    WHERE due_at <= statement_timestamp()
), due AS (
    SELECT id FROM deliveries
    WHERE id IN (SELECT id FROM ranked WHERE rank <= $5 ORDER BY due_at LIMIT $1)
        AND state = 'pending' AND due_at <= statement_timestamp()
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE deliveries SET attempts = attempts + 1, attempted_at = clock_timestamp(),
    due_at = clock_timestamp() + make_interval(secs => $2)
FROM due, webhooks
WHERE deliveries.id = due.id AND webhooks.id = webhook_id
RETURNING deliveries.id, coalesce(user_id::text, key_id) AS owner, url, body, secret,
    CASE WHEN old_secret_until > clock_timestamp() THEN old_secret END AS old_secret, attempts, failures, attempted_at
"""  # noqa: S608 - constant

# An endpoint that is gone keeps its deliveries waiting, for the case that it is enabled again; one that is given up is
# out of the way of the others.
_HEAR = """
WITH heard AS (
    SELECT v.*, webhook_id, by_hand, NOT (delivered OR by_hand)
        AND coalesce(attempted_at >= failing_since + make_interval(secs => $8), false) AS given_up
    FROM unnest($1::uuid[], $2::integer[], $3::boolean[], $4::boolean[], $5::smallint[], $6::text[], $7::float8[])
            AS v(id, attempt, delivered, gone, status, error, pause)
        JOIN deliveries ON deliveries.id = v.id
    WHERE state = 'pending' AND attempts = attempt
    FOR NO KEY UPDATE OF deliveries
), moved AS (
    UPDATE deliveries SET status = heard.status, error = heard.error,
        state = CASE WHEN delivered THEN 'delivered' WHEN heard.by_hand OR given_up THEN 'failed' ELSE 'pending' END,
        finished_at = CASE WHEN delivered OR heard.by_hand OR given_up THEN clock_timestamp() END,
        failures = failures + 1 - delivered::integer,
        failing_since = coalesce(failing_since, attempted_at),
        due_at = least(
            clock_timestamp() + make_interval(secs => pause),
            coalesce(failing_since, attempted_at) + make_interval(secs => $8)
        )
    FROM heard WHERE deliveries.id = heard.id
), ended AS (
    UPDATE webhooks SET disabled_at = clock_timestamp(),
        disabled_reason = CASE WHEN any_gone THEN 'gone' ELSE 'failing' END
    FROM (
        SELECT webhook_id, bool_or(gone) AS any_gone FROM heard WHERE gone OR given_up GROUP BY webhook_id
    ) AS last
    WHERE webhooks.id = webhook_id AND disabled_at IS NULL
    RETURNING id, user_id, disabled_reason
)
INSERT INTO events (name, topics, fields, at)
SELECT 'webhook.disabled', ARRAY[coalesce('user:' || user_id, 'ops')],
    json_build_object('webhook_id', id, 'reason', disabled_reason), clock_timestamp()
FROM ended
"""


class Claim(NamedTuple):
    """A delivery to be tried: a row of _CLAIM, and the time (monotonic seconds) when it was claimed at the earliest."""

    id: UUID
    owner: str
    url: str
    body: str
    secret: bytes
    old_secret: bytes | None
    attempt: int
    failures: int
    attempted_at: datetime
    since: float


class Heard(NamedTuple):
    """What came of an attempt; `pause` is before the next, in seconds."""

    id: UUID
    attempt: int
    delivered: bool
    gone: bool
    status: int | None
    error: str | None
    pause: float


class Webhooks:
    """Those of one worker."""

    def __init__(self, settings: Settings, outbound: Outbound | None = None) -> None:
        self._settings = settings
        self._sealer = Sealer(settings.secret_key)
        self._outbound = outbound or Outbound(
            private=settings.webhook_private, timeout_seconds=settings.webhook_timeout_seconds
        )
        self._line = Line(settings, "webhooks", timeout_seconds=_STATEMENT_SECONDS, pinned_plans=True)
        self._bell = asyncio.Event()
        self._fan_out = FanOut(settings, self._bell.set)
        self._sends: dict[asyncio.Task[None], str] = {}
        self._heard: list[Heard] = []
        self.ring = self._fan_out.ring

    async def run(self) -> None:
        """Fan out and deliver until cancelled. Without a key for secrets nothing can be signed: others deliver."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fan_out.run())
            if self._settings.secret_key is not None:
                group.create_task(self._run())

    async def _run(self) -> None:
        try:
            while True:
                self._bell.clear()
                try:
                    await self._hear()
                    claims = await self._claim()
                except Exception as error:
                    if not is_weather(error):
                        raise
                    logger.warning("webhooks are not delivered: %r", error)
                    self._line.doubt(error)
                    await asyncio.sleep(_TURN_SECONDS)
                    continue
                for claim in claims:
                    send = asyncio.create_task(self._send(claim))
                    self._sends[send] = claim.owner
                    send.add_done_callback(self._sent)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TURN_SECONDS):
                        await self._bell.wait()
        finally:
            farewell = asyncio.create_task(self._farewell())
            while not farewell.done():  # who ends us cancels more than once
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(farewell)

    async def _farewell(self) -> None:
        if self._sends:
            await asyncio.wait(self._sends, timeout=_LAST_SECONDS)
        for send in self._sends:
            send.cancel()
        try:
            await self._hear()
        except Exception as error:
            if not is_weather(error):
                raise
            logger.warning("what came of deliveries is not written: %r", error)
        await self._line.close()
        await self._outbound.close()

    async def _claim(self) -> list[Claim]:
        free = SENDS_MAX - len(self._sends)
        if not free:
            return []
        busy = Counter(self._sends.values())
        since = time.monotonic()
        connection = await self._line.connected()
        rows = await connection.fetch(
            _CLAIM, free, lease_seconds(self._settings), list(busy), list(busy.values()), OWNER_SENDS_MAX
        )
        return [Claim._make((*row, since)) for row in rows]

    async def _send(self, claim: Claim) -> None:
        if time.monotonic() > claim.since + LEASE_MARGIN_SECONDS:
            return  # asleep for so long, we may be late: the lease runs out and somebody claims it anew
        status, error = None, None
        try:
            status = await self._outbound.post(claim.url, self._headers(claim), claim.body.encode())
        except Unanswered as unanswered:
            error = str(unanswered)
        except NoSecretKey as no_key:
            logger.error("a webhook cannot be signed: %s", no_key)  # noqa: TRY400 - an operator's fault
            error = "no_secret_key"
        except Exception as bug:  # noqa: BLE001 - one endpoint's trouble is not another's
            frames = "".join(traceback.format_tb(bug.__traceback__))  # without the message: it might quote the URL
            logger.error("a webhook cannot be sent: %s\n%s", type(bug).__name__, frames)  # noqa: TRY400
            error = "internal"
        delivered = status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
        gone = status == HTTPStatus.GONE
        self._heard.append(Heard(claim.id, claim.attempt, delivered, gone, status, error, self._pause(claim.failures)))

    def _sent(self, send: asyncio.Task[None]) -> None:
        del self._sends[send]
        self._bell.set()

    def _headers(self, claim: Claim) -> dict[str, str]:
        """Raises NoSecretKey."""
        content, timestamp = claim.body.encode(), int(claim.attempted_at.timestamp())
        headers = {"content-type": "application/json", "user-agent": _USER_AGENT}
        signatures = []
        for sealed in filter(None, (claim.secret, claim.old_secret)):
            headers |= signed(self._sealer.open_text(sealed), str(claim.id), timestamp, content)
            signatures.append(headers["webhook-signature"])
        return headers | {"webhook-signature": " ".join(signatures)}

    def _pause(self, failures: int) -> float:
        steps: Sequence[float] = self._settings.webhook_backoff_seconds
        return steps[min(failures, len(steps) - 1)] * random.uniform(0.9, 1.1)  # noqa: S311 - jitter

    async def _hear(self) -> None:
        """Write what came of attempts, in one transaction with the end of an endpoint that this may be."""
        heard = self._heard[:]
        if heard:
            columns = [list(column) for column in zip(*heard, strict=True)]
            connection = await self._line.connected()
            await connection.execute(_HEAR, *columns, self._settings.webhook_give_up_seconds)
            del self._heard[: len(heard)]
