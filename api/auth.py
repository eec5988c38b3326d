"""Credentials: `Authorization: Bearer <key>`, and what each role may send and see. Nothing is open by default.

A browser's EventSource and WebSocket send no headers of ours: for them a session's cookie stands in
(api/events/session.py), honoured there only, and not when the page that asks is another host's.
"""

import asyncio
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import HTTPConnection

from api.pages import integer
from api.problems import Problem
from commands.command import BIGINT_MAX, KINDS, Command, Invalid
from storage.journal.receipts import Receipt
from storage.keys import Credential, Role, find_key, find_session, hash_of

_REMEMBER_SECONDS = 1.0
"""How long a key is taken for good without asking: a revoked one works no longer than this."""
_REMEMBER_MAX = 10_000
_KEY_MAX = 200
SESSION_COOKIE = "souk_session"


class Keyring:
    """The keys seen lately, by hash."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._seen: dict[_Proof, tuple[Credential, float]] = {}
        self._asking: dict[_Proof, asyncio.Task[Credential | None]] = {}

    async def authenticate(self, connection: HTTPConnection, *, cookie: bool = False) -> Credential:
        """Who is asking; `cookie` says whether a session will do. Raises Problem 401."""
        proof = _proof(connection, cookie=cookie)
        credential, until = self._seen.get(proof, (None, 0.0))
        if credential is not None and time.monotonic() < until:
            return credential
        self._seen.pop(proof, None)
        credential = await self._ask(proof)
        if credential is None:
            raise Problem(401, "unauthenticated", "The key or session is unknown, revoked or over.")
        if len(self._seen) >= _REMEMBER_MAX:
            self._seen.clear()
        self._seen[proof] = (credential, time.monotonic() + _REMEMBER_SECONDS)
        return credential

    async def _ask(self, proof: "_Proof") -> Credential | None:
        """The credential in the database; many requests with one key ask it once."""
        if proof not in self._asking:
            find = find_session if proof.is_session else find_key
            self._asking[proof] = asyncio.create_task(find(self._engine, proof.hash))
            self._asking[proof].add_done_callback(lambda _: self._asking.pop(proof))
        return await asyncio.shield(self._asking[proof])


class _Proof(NamedTuple):
    is_session: bool
    hash: bytes


def _proof(connection: HTTPConnection, *, cookie: bool) -> _Proof:
    header = connection.headers.get("authorization")
    token = connection.cookies.get(SESSION_COOKIE) if cookie and header is None and is_own_page(connection) else None
    if token is not None and 0 < len(token) <= _KEY_MAX:
        return _Proof(is_session=True, hash=hash_of(token))
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(key) <= _KEY_MAX:
        raise Problem(401, "unauthenticated", "Send `Authorization: Bearer <key>`.")
    return _Proof(is_session=False, hash=hash_of(key))


def is_own_page(connection: HTTPConnection) -> bool:
    """Whether a browser says that a page of this host asks, or nothing."""
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == connection.headers.get("host", "").lower() != ""


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
    if credential.role is Role.FEED:
        raise Problem(403, "forbidden", "A feed's key reads no user's things.")
    named = None if actor is None else integer("actor", actor, 1, BIGINT_MAX)
    if credential.role is Role.USER:
        assert credential.user_id is not None  # noqa: S101 - the table's constraint
        return credential.user_id
    if named is None:
        raise Invalid(("actor", "name the user"))
    return named
