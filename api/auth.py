"""Credentials: `Authorization: Bearer <key>`, and what each role may send and see. Nothing is open by default."""

import asyncio
import time

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import HTTPConnection

from api.pages import integer
from api.problems import Problem
from commands.command import BIGINT_MAX, KINDS, Command, Invalid
from storage.journal import Receipt
from storage.keys import Credential, Role, find_key, hash_of

_REMEMBER_SECONDS = 1.0
"""How long a key is taken for good without asking: a revoked one works no longer than this."""
_REMEMBER_MAX = 10_000
_KEY_MAX = 200


class Keyring:
    """The keys seen lately, by hash."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._seen: dict[bytes, tuple[Credential, float]] = {}
        self._asking: dict[bytes, asyncio.Task[Credential | None]] = {}

    async def authenticate(self, request: HTTPConnection) -> Credential:
        """Who is asking. Raises Problem 401."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(key) <= _KEY_MAX:
            raise Problem(401, "unauthenticated", "Send `Authorization: Bearer <key>`.")
        key_hash = hash_of(key)
        credential, until = self._seen.get(key_hash, (None, 0.0))
        if credential is not None and time.monotonic() < until:
            return credential
        self._seen.pop(key_hash, None)
        credential = await self._ask(key_hash)
        if credential is None:
            raise Problem(401, "unauthenticated", "The key is unknown or revoked.")
        if len(self._seen) >= _REMEMBER_MAX:
            self._seen.clear()
        self._seen[key_hash] = (credential, time.monotonic() + _REMEMBER_SECONDS)
        return credential

    async def _ask(self, key_hash: bytes) -> Credential | None:
        """The credential in the database; many requests with one key ask it once."""
        if key_hash not in self._asking:
            self._asking[key_hash] = asyncio.create_task(find_key(self._engine, key_hash))
            self._asking[key_hash].add_done_callback(lambda _: self._asking.pop(key_hash))
        return await asyncio.shield(self._asking[key_hash])


def actor_for(credential: Credential, command: type[Command], actor: int | None) -> int | None:
    """In whose name the command is sent. Raises Problem 403 when the credential may not."""
    if not command.sent_by & credential.role.sends_as:
        raise Problem(403, "forbidden", f"A key of role {credential.role} may not send {command.kind}.")
    if credential.role is Role.USER:
        if actor not in (None, credential.user_id):
            raise Problem(403, "forbidden", "The key is bound to another user.")
        return credential.user_id
    if credential.role is Role.FEED and actor is not None:
        raise Problem(403, "forbidden", "A feed's key sends in nobody's name.")
    return actor


def may_see(credential: Credential, receipt: Receipt) -> bool:
    """Operators see all, users their own, services what was sent as a user, feeds what was sent by the system."""
    match credential.role:
        case Role.OPERATOR:
            return True
        case Role.USER:
            return receipt.actor == credential.user_id
        case Role.SERVICE:
            return receipt.actor is not None
        case Role.FEED:
            return bool(KINDS[receipt.kind].sent_by & credential.role.sends_as) and receipt.actor is None


def reader(credential: Credential, actor: str | None) -> int:
    """Whose private things are read: a user's own, or those of the `actor` that a service or operator names."""
    if credential.role is Role.USER:
        assert credential.user_id is not None  # noqa: S101 - the table's constraint
        return credential.user_id
    if credential.role is Role.FEED:
        raise Problem(403, "forbidden", "A feed's key reads no user's things.")
    if actor is None:
        raise Invalid(("actor", "name the user"))
    return integer("actor", actor, 1, BIGINT_MAX)
