"""Submission: from a request's bytes to a durable receipt.

A 202 is sent only after the command's row is committed. The hint to the workers follows by itself: if Redis does not
answer, the command is accepted all the same, and the sweeper finds it.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.auth import Keyring, actor_for
from api.openapi.columns import list_of, object_of
from api.openapi.components import IDEMPOTENCY_KEY, PREFER, RECEIPT, SUCCEEDED_RECEIPT
from api.openapi.operation import Answer, described, ref
from api.outcomes import Outcomes
from api.problems import Problem, json_response, problem_of
from commands.command import KINDS, PRINTABLE, USER, Invalid, UserId, decode
from commands.outcome import Status
from storage.journal.accept import Journal
from storage.journal.entry import Entry, Facts, new_id
from storage.journal.receipts import Receipt
from storage.keys import Credential, Role
from storage.redis.hints import Hints
from storage.sealing import NoSecretKey, Sealer
from storage.settings import Settings

_RETRY_AFTER = "1"
_SECONDS = re.compile(r"[0-9]{1,6}")
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)


def _rfc3339(value: object) -> object:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        message = "must be an RFC 3339 time with its offset"
        raise ValueError(message)
    return value


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        message = "is out of range"
        raise ValueError(message) from None


Time = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_utc)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=PRINTABLE)]

SUBMISSION_PROBLEMS = ("malformed", "forbidden", "too_large", "unsupported_media_type", "invalid")
_TO_THE_RECEIPT = {"receipt": {"operationId": "get_commands_id", "parameters": {"id": "$response.body#/id"}}}
_ACCEPTED = Answer(
    "Accepted: the receipt, which is final already when a repeated key is answered.",
    ref("Receipt"),
    ("Location", "Retry-After", "Idempotency-Replayed"),
    example=RECEIPT,
    links=_TO_THE_RECEIPT,
)
_FINAL = Answer(
    "The final receipt, waited for with `Prefer: wait`.",
    ref("Receipt"),
    ("Location", "Preference-Applied", "Idempotency-Replayed"),
    example=SUCCEEDED_RECEIPT,
    links=_TO_THE_RECEIPT,
)
_RECEIPTS = object_of({"receipts": list_of({"anyOf": [ref("Receipt"), ref("Problem")]})})


class CommandBody(BaseModel):
    """A command on the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[str, Field(strict=True, max_length=64)]
    payload: dict[str, Any]
    actor: Annotated[UserId, Field(strict=True)] | None = None
    idempotency_key: Key | None = None
    run_at: Time | None = None
    not_after: Time | None = None


class Submit:
    """The two routes that accept commands."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        hints: Hints,
        outcomes: Outcomes,
        keyring: Keyring,
        accepted: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._hints = hints
        self._outcomes = outcomes
        self._keyring = keyring
        self._accepted = accepted
        self._sealer = Sealer(settings.secret_key)

    @described(
        "commands",
        parameters=(IDEMPOTENCY_KEY, PREFER),
        body=ref("Command"),
        answers={200: _FINAL, 202: _ACCEPTED},
        problems=(*SUBMISSION_PROBLEMS, "idempotency_key_reused", "too_many_requests", "overloaded"),
    )
    async def one(self, request: Request) -> Response:
        """POST /v1/commands: submit a command.

        Accepted, it is durable, and will be executed once. The receipt tells what came of it."""
        credential = await self._keyring.authenticate(request)
        submission = self.read(
            credential, await read_json(request, self._settings.body_max_bytes), request.headers.get("idempotency-key")
        )
        seconds = wait_seconds(request.headers, self._settings)
        [answer] = await self._accept([submission], seconds)
        if isinstance(answer, Exception):
            raise answer
        headers = {"Location": f"/v1/commands/{answer.id}"}
        if answer.replayed:
            headers["Idempotency-Replayed"] = "true"
        return _answer(answer.as_json(), final=answer.is_final, seconds=seconds, headers=headers)

    @described(
        "commands",
        parameters=(PREFER,),
        body=object_of({"commands": list_of(ref("Command"), minItems=1, maxItems="submission_batch_max")}),
        answers={
            200: Answer("All are final.", _RECEIPTS, ("Preference-Applied",)),
            202: Answer("Receipts and problems, in the order of the commands.", _RECEIPTS, ("Retry-After",)),
        },
        problems=SUBMISSION_PROBLEMS,
    )
    async def many(self, request: Request) -> Response:
        """POST /v1/commands/batch: submit many commands.

        Each is answered with a receipt or a problem; one bad item harms no other."""
        credential = await self._keyring.authenticate(request)
        body = await read_json(request, self._settings.body_max_bytes)
        items = body.get("commands") if isinstance(body, dict) and body.keys() == {"commands"} else None
        if not isinstance(items, list) or not items:
            raise Invalid(("commands", "must be a list of commands, and the only field"))
        if len(items) > self._settings.submission_batch_max:
            raise Problem(413, "too_large", f"At most {self._settings.submission_batch_max} commands in a batch.")
        seconds = wait_seconds(request.headers, self._settings)
        read = [self._try_read(credential, item) for item in items]
        accepted = iter(await self._accept([item for item in read if isinstance(item, Entry)], seconds))
        answers = [next(accepted) if isinstance(item, Entry) else item for item in read]
        shown = [
            answer.as_json() if isinstance(answer, Receipt) else problem_of(answer).as_json() for answer in answers
        ]
        final = all(not isinstance(answer, Receipt) or answer.is_final for answer in answers)
        return _answer({"receipts": shown}, final=final, seconds=seconds, headers={})

    async def _accept(self, submissions: list[Entry], seconds: float) -> Sequence[Receipt | Exception]:
        """The answers, with final receipts as far as there are any within the seconds. Raises Unavailable."""
        if not submissions:
            return []
        if not seconds:
            return await self._store(submissions)
        until = asyncio.get_running_loop().time() + seconds
        # Subscribed before it is stored, an outcome cannot be missed.
        with self._outcomes.expect([submission.id for submission in submissions]) as expectation:
            answers = await self._store(submissions)
            replays = []
            for submission, answer in zip(submissions, answers, strict=True):
                if isinstance(answer, Exception) or answer.replayed:
                    expectation.forget(submission.id)
                    if isinstance(answer, Receipt) and not answer.is_final:
                        replays.append(answer)
            final = await expectation.wait(seconds)
        if replays:
            left = max(0.0, until - asyncio.get_running_loop().time())
            final |= {receipt.id: receipt._replace(replayed=True) for receipt in await self.wait(replays, left)}
        return [final.get(answer.id, answer) if isinstance(answer, Receipt) else answer for answer in answers]

    async def _store(self, submissions: list[Entry]) -> Sequence[Receipt | Exception]:
        answers = await self._journal.accept(submissions)
        fresh = [answer for answer in answers if isinstance(answer, Receipt) and not answer.replayed]
        self._accepted(len(fresh))
        self._hints.enqueue([(new.partition, new.id) for new in fresh if new.status is Status.ACCEPTED])
        return answers

    async def follow(self, submission: Entry) -> AsyncGenerator[Receipt]:
        """The receipt at its acceptance, then the final one when there is one; a drain ends the wait for it. Raises
        why the submission is refused."""
        with self._outcomes.expect([submission.id]) as expectation:
            [answer] = await self._store([submission])
            if isinstance(answer, Exception):
                raise answer
            yield answer
            if not answer.is_final and not answer.replayed:
                for receipt in (await expectation.wait(None)).values():
                    yield receipt
        if not answer.is_final and answer.replayed:  # it was another's id that was subscribed to
            [receipt] = await self.wait([answer], None)
            if receipt.is_final:
                yield receipt._replace(replayed=True)

    async def wait(self, receipts: Sequence[Receipt], seconds: float | None) -> list[Receipt]:
        """The receipts, final as far as they become so within the time."""
        with self._outcomes.expect([receipt.id for receipt in receipts]) as expectation:
            for receipt in await self._journal.look([receipt.id for receipt in receipts]):
                if receipt is not None and receipt.is_final:
                    expectation.deliver(receipt)
            final = await expectation.wait(seconds)
        return [final.get(receipt.id, receipt) for receipt in receipts]

    def _try_read(self, credential: Credential, item: Any) -> Entry | Exception:
        try:
            return self.read(credential, item)
        except (Invalid, Problem) as error:
            return error

    def read(self, credential: Credential, item: Any, header_key: str | None = None) -> Entry:
        """The submission in a JSON value. Raises Invalid, and Problem 403."""
        if header_key is not None and isinstance(item, dict):
            if item.get("idempotency_key", header_key) != header_key:
                raise Invalid(("idempotency_key", "differs from the header Idempotency-Key"))
            item = {**item, "idempotency_key": header_key}
        try:
            body = CommandBody.model_validate(item)
        except ValidationError as error:
            raise Invalid.from_pydantic(error, "") from None
        if body.run_at is not None and body.not_after is not None and body.run_at >= body.not_after:
            raise Invalid(("not_after", "must come after run_at"))
        kind = KINDS.get(body.kind)
        if kind is None:
            raise Invalid(("kind", "unknown kind"))
        actor = actor_for(credential, kind, body.actor)
        if actor is None and kind.sent_by & credential.role.sends_as <= USER and not kind.for_newcomers:
            raise Invalid(("actor", "name the user in whose name the command is sent"))
        if kind.needs_key and body.idempotency_key is None:
            raise Invalid(("idempotency_key", f"{kind.kind} needs one"))
        command = decode(body.kind, to_json(body.payload))
        command.check(self._settings)
        if credential.role is Role.USER and getattr(command, "user_id", actor) != actor:
            raise Problem(403, "forbidden", "The key is bound to another user.")
        try:
            content = self._sealer.seal(command)
        except NoSecretKey as error:
            raise Problem(503, "unavailable", f"{kind.kind} is not offered here: {error}.") from None
        facts = Facts(
            id=new_id(),
            actor=actor,
            idempotency_key=body.idempotency_key,
            run_at=body.run_at,
            not_after=body.not_after,
            key_id=credential.id,
            notify=credential.notify,
        )
        return Entry.of(command, facts, self._settings.partitions, content)


async def read_json(request: Request, body_max_bytes: int) -> Any:
    """The request's body. Raises Problem 413, 415, 400."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(415, "unsupported_media_type", "Send application/json.")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > body_max_bytes:
                raise Problem(413, "too_large", f"At most {body_max_bytes} bytes.")
    except ClientDisconnect:
        raise Problem(400, "malformed", "The body ended early.") from None
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, "malformed", f"The body is not JSON: {error}") from None


def wait_seconds(headers: Mapping[str, str], settings: Settings) -> float:
    """How long `Prefer: wait=S` asks to wait, bounded; 0 when it does not (RFC 7240)."""
    for preference in headers.get("prefer", "").split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait" and _SECONDS.fullmatch(value.strip()):
            return min(float(value), settings.wait_max_seconds)
    return 0.0


def _answer(content: Any, *, final: bool, seconds: float, headers: dict[str, str]) -> Response:
    """200 with what was waited for, else 202."""
    if seconds and final:
        return json_response(content, 200, headers | {"Preference-Applied": f"wait={seconds:g}"})
    return json_response(content, 202, headers | {"Retry-After": _RETRY_AFTER})
