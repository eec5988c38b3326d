"""API keys: random, shown once, stored hashed."""

import secrets
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from commands.command import Sender
from storage.tables import api_keys


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
    """Who is asking. `user_id` is set for the role `user` only."""

    id: str
    role: Role
    user_id: int | None


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
    statement = select(api_keys).where(api_keys.c.hash == key_hash, api_keys.c.revoked_at.is_(None))
    async with engine.connect() as connection:
        row = (await connection.execute(statement)).mappings().first()
    return None if row is None else Credential(row["id"], Role(row["role"]), row["user_id"])
