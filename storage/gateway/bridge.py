"""The gateway: the way out of the process to Telegram and to the TON network.

A call names its reference, and a reference has one effect, however often and by whomever it is performed: whoever
stands behind a gateway promises that, and tells the first answer again. docs/gateway.md is the contract.

Two stand there. The sandbox (storage/gateway/sandbox.py) does nothing, plausibly, for the embedded stack and the tests.
The bridge is the operator's: it is sent HTTP requests, signed as Standard Webhooks are.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from commands.command import KINDS, Command, Invalid, decode
from commands.requests import EXPIRED

ANSWER_MAX_BYTES = 4 * 1_048_576
"""Of one answer: the longest, a snapshot of 1,000 gifts and 500 channels, takes a fifth of it."""

_CONNECTIONS_MAX = 16
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_WORD = re.compile(r"[a-z][a-z_]{0,63}")


class Outcome(StrEnum):
    """What is known of an effect. Done and refused are definite, for ever."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    NEVER_SEEN = "never_seen"


class Answer(NamedTuple):
    """`reason` is one word; `fields` are those of the operation when it is done."""

    outcome: Outcome
    reason: str | None = None
    fields: Mapping[str, Any] = {}


class Call(NamedTuple):
    """What every call says. Of two calls for one of the `accounts`, the one that was claimed later has the larger
    token: whoever has seen it begins nothing any more under a smaller one."""

    reference: UUID
    op: str
    accounts: tuple[str, ...]
    fencing_token: int


class Gateway(Protocol):
    """Neither call raises for what happens outside: no answer, or an unclear one, is the answer `unknown`."""

    async def perform(self, call: Call, body: Mapping[str, Any], not_after: datetime) -> Answer:
        """Bring the effect about, once, not after the time and not under a smaller token than was seen. `never_seen`
        when the request certainly did not reach whom it was for, because there was no connection to him."""
        ...

    async def lookup(self, call: Call) -> Answer:
        """What came of the reference. After `never_seen` no attempt with a smaller token is begun any more."""
        ...

    async def close(self) -> None: ...


_REFUSALS = ("refused", "account_unusable")
"""What a reason that the waiting command does not know is taken for: each knows one of these."""


def command_of(answers: str, names: Mapping[str, Any], answer: Answer) -> Command:
    """The system command that a definite answer becomes: `answers` is its kind without _confirm or _fail, `names` are
    the fields that name what waits. Raises Invalid when the answer does not say what the command needs."""
    if answer.outcome is Outcome.DONE:
        kind = f"{answers}_confirm"
        fields = {**answer.fields, **names}
        known = KINDS[kind].model_fields if kind in KINDS else ()
        return decode(kind, to_json({name: value for name, value in fields.items() if name in known}))
    for reason in (None if answer.reason == EXPIRED else answer.reason, *_REFUSALS):
        with suppress(Invalid):
            return decode(f"{answers}_fail", to_json({**names, "reason": reason}))
    raise Invalid(("reason", f"{answers}_fail knows none of them"))


class _Said(BaseModel):
    """An answer on the wire; its other fields are the operation's."""

    model_config = ConfigDict(extra="allow")

    reference: UUID
    outcome: Outcome
    reason: str | None = None


class Bridge:
    """The operator's program at SOUK_GATEWAY_URL."""

    def __init__(self, url: str, secret: str, timeout_seconds: float) -> None:
        self._secret = secret
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/") + "/",
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=_CONNECTIONS_MAX),
            trust_env=False,  # a proxy might hold a request back until after its effect was given up
        )

    async def perform(self, call: Call, body: Mapping[str, Any], not_after: datetime) -> Answer:
        try:
            answer = await self._ask("perform", call, {**body, **call._asdict(), "not_after": not_after})
        except _NOT_CONNECTED:
            return Answer(Outcome.NEVER_SEEN, "not_connected")
        # Only a lookup can say so: this very request was seen.
        return Answer(Outcome.UNKNOWN, "unclear") if answer.outcome is Outcome.NEVER_SEEN else answer

    async def lookup(self, call: Call) -> Answer:
        try:
            return await self._ask("lookup", call, call._asdict())
        except _NOT_CONNECTED:
            return Answer(Outcome.UNKNOWN, "not_connected")

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, path: Literal["perform", "lookup"], call: Call, request: Mapping[str, Any]) -> Answer:
        """Raises one of _NOT_CONNECTED when nothing was sent."""
        content = to_json(request)
        headers = {
            "content-type": "application/json",
            **signed(self._secret, str(call.reference), int(time.time()), content),
        }
        try:
            async with self._client.stream("POST", path, content=content, headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    return Answer(Outcome.UNKNOWN, f"status_{response.status_code}")
                answer = b""
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > ANSWER_MAX_BYTES:
                        return Answer(Outcome.UNKNOWN, "too_long")
        except _NOT_CONNECTED:
            raise
        except httpx.TimeoutException:
            return Answer(Outcome.UNKNOWN, "timeout")
        except (httpx.TransportError, httpx.DecodingError):
            return Answer(Outcome.UNKNOWN, "broken_off")
        return _understood(call.reference, answer)


def _understood(reference: UUID, content: bytes) -> Answer:
    try:
        said = _Said.model_validate_json(content)
    except ValidationError:
        return Answer(Outcome.UNKNOWN, "unclear")
    if said.reference != reference:
        return Answer(Outcome.UNKNOWN, "unclear")
    reason = said.reason if said.reason and _WORD.fullmatch(said.reason) else None
    return Answer(said.outcome, reason, said.model_extra or {})


def signed(secret: str, message_id: str, timestamp: int, content: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks (https://www.standardwebhooks.com). The secret is `whsec_` and base64."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message = b".".join((message_id.encode(), str(timestamp).encode(), content))
    signature = base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}
