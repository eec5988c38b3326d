"""Webhooks: the endpoints of an owner, and the log of their deliveries, as the API asks for them.

Who fans events out to endpoints and delivers is in workers/services/deliveries.py.
"""

import base64
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Select,
    and_,
    delete,
    func,
    insert,
    literal,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.journal.entry import new_id
from storage.keys import Credential, Role
from storage.settings import Settings
from storage.tables import deliveries, webhooks

WEBHOOKS_MAX = 20
"""Endpoints of one owner."""
TOPICS_MAX = 100
CONCURRENCY_MAX = 10
BY_HAND_MAX = 10
"""Tests and resends of one endpoint that may wait."""
OLD_SECRET_SECONDS = 86_400
BODY_MAX_BYTES = 20_000
LEASE_MARGIN_SECONDS = 5.0
IN_FORCE = """disabled_at IS NULL AND (
    key_id IS NULL OR EXISTS (SELECT FROM api_keys WHERE api_keys.id = key_id AND revoked_at IS NULL)
)"""
"""Which endpoints are delivered to: a key's only while it is not revoked."""
WAITING = """waiting AS (
    (SELECT webhook_id FROM deliveries WHERE state = 'pending' AND NOT by_hand ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT webhook_id FROM deliveries
        WHERE state = 'pending' AND NOT by_hand AND webhook_id > waiting.webhook_id ORDER BY webhook_id LIMIT 1
    ) FROM waiting WHERE webhook_id IS NOT NULL
)"""
"""The endpoints with deliveries that wait, and a null: found by jumping from one to the next in the index, past all but
the first of each."""

_SECRET_BYTES = 32

_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks ' || :owner, 0))")
_END = text("""
    SELECT txid::text::bigint, id FROM events WHERE txid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY txid DESC, id DESC LIMIT 1
""")


Shown = dict[str, Any]
"""The columns of an endpoint or a delivery that its owner may see."""


class TooMany(Exception):
    """There are as many of them as may be; the argument is the limit."""


class Owner(NamedTuple):
    """A user, or else a key: of either role, what belongs to the one is nobody else's."""

    user_id: int | None
    key_id: str | None

    @classmethod
    def of(cls, credential: Credential) -> "Owner":
        if credential.role is Role.USER:
            return cls(credential.user_id, None)
        return cls(None, credential.id)

    def owns(self) -> ColumnElement[bool]:
        if self.user_id is not None:
            return webhooks.c.user_id == self.user_id
        return webhooks.c.key_id == self.key_id

    def __str__(self) -> str:
        return f"user:{self.user_id}" if self.user_id is not None else f"key:{self.key_id}"


class NewWebhook(NamedTuple):
    """What is to be registered; `topics` as events are stored under, `secret` sealed."""

    url: str
    topics: Sequence[str]
    description: str | None
    concurrency: int
    secret: bytes


def new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"


def lease_seconds(settings: Settings) -> float:
    """How long a delivery is left to whoever tries it."""
    return settings.webhook_timeout_seconds + LEASE_MARGIN_SECONDS


SHOWN = [
    webhooks.c[name]
    for name in (
        *("id", "url", "description", "topics", "concurrency", "old_secret_until", "created_at"),
        *("disabled_at", "disabled_reason"),
    )
]
LOGGED = [
    deliveries.c[name]
    for name in (
        *("id", "name", "state", "attempts", "status", "error", "created_at", "attempted_at", "due_at"),
        "finished_at",
    )
]


ANY, LOG = select(*SHOWN), select(*LOGGED)


def of_owner(owner: Owner) -> Select[Any]:
    return ANY.where(owner.owns())


def log_of(webhook_id: UUID) -> Select[Any]:
    return LOG.where(deliveries.c.webhook_id == webhook_id)


async def find(connection: AsyncConnection, owner: Owner, webhook_id: UUID) -> Shown | None:
    return _first(await connection.execute(of_owner(owner).where(webhooks.c.id == webhook_id)))


async def register(engine: AsyncEngine, owner: Owner, new: NewWebhook) -> Shown:
    """A new endpoint, which is told what happens from now on. Raises TooMany."""
    async with engine.begin() as connection:
        await connection.execute(_LOCK_OWNER, {"owner": str(owner)})
        count = await connection.scalar(select(func.count()).select_from(webhooks).where(owner.owns())) or 0
        if count >= WEBHOOKS_MAX:
            raise TooMany(WEBHOOKS_MAX)
        after_txid, after_id = (await connection.execute(_END)).first() or (0, 0)
        values = {**owner._asdict(), **new._asdict(), "topics": list(new.topics)}
        made = insert(webhooks).values(id=new_id(), after_txid=after_txid, after_id=after_id, **values)
        return dict((await connection.execute(made.returning(*SHOWN))).mappings().one())


async def remove(engine: AsyncEngine, owner: Owner, webhook_id: UUID) -> bool:
    """False when there is none of this owner's."""
    async with engine.begin() as connection:
        gone = delete(webhooks).where(webhooks.c.id == webhook_id, owner.owns()).returning(webhooks.c.id)
        return (await connection.execute(gone)).first() is not None


async def rotate(engine: AsyncEngine, owner: Owner, webhook_id: UUID, secret: bytes) -> Shown | None:
    """Put a new secret in place of the present one, which signs too for a day; None when there is no such endpoint."""
    until = func.clock_timestamp() + timedelta(seconds=OLD_SECRET_SECONDS)
    changed = update(webhooks).values(old_secret=webhooks.c.secret, old_secret_until=until, secret=secret)
    async with engine.begin() as connection:
        mine = changed.where(webhooks.c.id == webhook_id, owner.owns())
        return _first(await connection.execute(mine.returning(*SHOWN)))


async def enable(engine: AsyncEngine, settings: Settings, owner: Owner, webhook_id: UUID) -> Shown | None:
    """Deliver to the endpoint again, from where it stopped; None when there is no such endpoint."""
    async with engine.begin() as connection:
        disabled = and_(webhooks.c.id == webhook_id, owner.owns(), webhooks.c.disabled_at.is_not(None))
        changed = update(webhooks).values(disabled_at=None, disabled_reason=None).where(disabled)
        if (await connection.execute(changed.returning(webhooks.c.id))).first() is not None:
            await connection.execute(
                update(deliveries)
                .values(failures=0, failing_since=None, due_at=_soon(settings))
                .where(deliveries.c.webhook_id == webhook_id, deliveries.c.state == "pending", ~deliveries.c.by_hand)
            )
        return await find(connection, owner, webhook_id)


async def test(engine: AsyncEngine, owner: Owner, webhook_id: UUID) -> Shown | None:
    """A delivery that tells of nothing; None when there is no such endpoint. Raises TooMany."""
    async with engine.begin() as connection:
        if not await _may_wait(connection, owner, webhook_id):
            return None
        now = await connection.scalar(select(func.clock_timestamp()))
        event: dict[str, Any] = {
            "id": None,
            "name": "webhook.test",
            "command_id": None,
            "topics": [],
            "at": now,
            "fields": {"webhook_id": str(webhook_id)},
        }
        made = insert(deliveries).values(
            id=new_id(), webhook_id=webhook_id, name="webhook.test", body=body_of(event), by_hand=True
        )
        return dict((await connection.execute(made.returning(*LOGGED))).mappings().one())


async def resend(
    engine: AsyncEngine, settings: Settings, owner: Owner, webhook_id: UUID, delivery_id: UUID
) -> Shown | None:
    """A delivery that has ended is made once more, beside the order; one that waits is due now, in its turn. None when
    there is no such delivery. Raises TooMany."""
    async with engine.begin() as connection:
        if not await _may_wait(connection, owner, webhook_id):
            return None
        this = and_(deliveries.c.id == delivery_id, deliveries.c.webhook_id == webhook_id)
        ended = this & (deliveries.c.state != "pending")
        again = update(deliveries).values(
            state="pending", by_hand=True, finished_at=null(), due_at=func.clock_timestamp(), failing_since=null()
        )
        row = _first(await connection.execute(again.where(ended).returning(*LOGGED)))
        if row is not None:
            return row
        sooner = update(deliveries).values(due_at=_soon(settings)).where(this & (deliveries.c.state == "pending"))
        return _first(await connection.execute(sooner.returning(*LOGGED)))


async def _may_wait(connection: AsyncConnection, owner: Owner, webhook_id: UUID) -> bool:
    """Whether there is such an endpoint, which stays locked. Raises TooMany."""
    found = select(webhooks.c.id).where(webhooks.c.id == webhook_id, owner.owns()).with_for_update(key_share=True)
    if (await connection.execute(found)).first() is None:
        return False
    waiting = select(func.count()).where(
        deliveries.c.webhook_id == webhook_id, deliveries.c.state == "pending", deliveries.c.by_hand
    )
    if (await connection.scalar(waiting) or 0) >= BY_HAND_MAX:
        raise TooMany(BY_HAND_MAX)
    return True


def _first(rows: CursorResult[Any]) -> Shown | None:
    row = rows.mappings().first()
    return None if row is None else dict(row)


def _soon(settings: Settings) -> ColumnElement[Any]:
    """Now, unless somebody may be trying it at the moment."""
    lease = literal(timedelta(seconds=lease_seconds(settings)), INTERVAL)
    now = func.clock_timestamp()
    return func.least(deliveries.c.due_at, func.greatest(now, func.coalesce(deliveries.c.attempted_at + lease, now)))


def body_of(event: dict[str, Any]) -> str:
    """What is delivered: an event as streams tell it, in the envelope of Standard Webhooks. One too long comes without
    its fields; its command tells them."""
    body = to_json({"type": event["name"], "timestamp": event["at"], "data": event})
    if len(body) > BODY_MAX_BYTES:
        event = event | {"fields": {}, "fields_omitted": True}
        body = to_json({"type": event["name"], "timestamp": event["at"], "data": event})
    return body.decode()
