"""API keys: random, shown once, stored hashed; and sessions, which stand in for a key in a browser for a while."""

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Select, delete, exists, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.ext.asyncio import AsyncEngine

from commands.command import Sender
from storage.tables import api_keys, sessions, webhooks

SESSION_SECONDS = 900
SESSIONS_MAX = 20
"""Of one key; the oldest give way."""


class Role(StrEnum):
    """What a key may do: everything in any name; system kinds; users' kinds for any actor; one user's."""

    OPERATOR = "operator"
    FEED = "feed"
    SERVICE = "service"
    USER = "user"

    @property
    def sends_as(self) -> frozenset[Sender]:
        return _SENDS_AS[self]


_SENDS_AS = {
    Role.OPERATOR: frozenset(Sender),
    Role.FEED: frozenset({Sender.SYSTEM}),
    Role.SERVICE: frozenset({Sender.USER}),
    Role.USER: frozenset({Sender.USER}),
}


class Credential(NamedTuple):
    """Who is asking. `user_id` is set for the role `user` only; `notify` says whether a webhook wants to hear what
    came of its commands."""

    id: str
    role: Role
    user_id: int | None
    notify: bool = False


def hash_of(key: str) -> bytes:
    """Keys are 256 random bits, so a plain hash is enough; no need for a slow one."""
    return sha256(key.encode()).digest()


async def create_key(engine: AsyncEngine, role: Role, user_id: int | None = None) -> tuple[str, str]:
    """(id, key) of a new key; the key is kept nowhere."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = f"souk_{key_id}_{secret}"
    async with engine.begin() as connection:
        await connection.execute(insert(api_keys).values(hash=hash_of(key), id=key_id, role=role, user_id=user_id))
    return key_id, key


async def revoke_key(engine: AsyncEngine, key_id: str) -> bool:
    """False when there is no such key in force."""
    statement = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    async with engine.begin() as connection:
        result = await connection.execute(statement.values(revoked_at=func.now()).returning(api_keys.c.id))
        return result.first() is not None


async def list_keys(engine: AsyncEngine) -> list[dict[str, object]]:
    columns = [api_keys.c[name] for name in ("id", "role", "user_id", "created_at", "revoked_at")]
    async with engine.connect() as connection:
        result = await connection.execute(select(*columns).order_by(api_keys.c.created_at))
        return [dict(row) for row in result.mappings()]


async def find_key(engine: AsyncEngine, key_hash: bytes) -> Credential | None:
    """Who holds the key of this hash, or None when it is unknown or revoked. Its timing tells nothing of any key."""
    return await _find(engine, select(api_keys).where(api_keys.c.hash == key_hash))


async def create_session(engine: AsyncEngine, key_id: str) -> tuple[str, datetime]:
    """(token, when it expires) of a new session of a key; the token is kept nowhere."""
    token = secrets.token_urlsafe(32)
    own = select(sessions.c.hash).where(sessions.c.key_id == key_id).order_by(sessions.c.expires_at.desc())
    expires_at = func.now() + timedelta(seconds=SESSION_SECONDS)
    new = insert(sessions).values(hash=hash_of(token), key_id=key_id, expires_at=expires_at)
    async with engine.begin() as connection:
        await connection.execute(delete(sessions).where(sessions.c.expires_at < func.now()))
        await connection.execute(delete(sessions).where(sessions.c.hash.in_(own.offset(SESSIONS_MAX - 1))))
        return token, (await connection.execute(new.returning(sessions.c.expires_at))).scalar_one()


async def end_session(engine: AsyncEngine, token_hash: bytes) -> None:
    async with engine.begin() as connection:
        await connection.execute(delete(sessions).where(sessions.c.hash == token_hash))


async def find_session(engine: AsyncEngine, token_hash: bytes) -> Credential | None:
    """Whose session this is: the credential is the key's. None when it is unknown or over, or the key is revoked."""
    in_force = (sessions.c.hash == token_hash, sessions.c.expires_at > func.now())
    return await _find(engine, select(api_keys).join(sessions, sessions.c.key_id == api_keys.c.id).where(*in_force))


async def _find(engine: AsyncEngine, keys: Select[Any]) -> Credential | None:
    owned = or_(webhooks.c.key_id == api_keys.c.id, webhooks.c.user_id == api_keys.c.user_id)
    told = webhooks.c.topics.contains(array([func.concat("commands:", api_keys.c.id)]))
    notify = exists().where(owned, told, webhooks.c.disabled_at.is_(None))
    async with engine.connect() as connection:
        in_force = keys.where(api_keys.c.revoked_at.is_(None)).add_columns(notify.label("notify"))
        row = (await connection.execute(in_force)).mappings().first()
    return None if row is None else Credential(row["id"], Role(row["role"]), row["user_id"], row["notify"])
