"""The client: a command happens once, however often it must be sent, and its outcome comes back.

A command without an idempotency key gets one, a random UUID, and keeps it however often it is sent; so the client
simply sends again what got no answer, and what the API refuses for now (429, 502, 503, 504), until its patience is
over. What could take effect twice is never sent again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from math import ceil
from time import monotonic
from types import MappingProxyType
from typing import Any, Required, Self, TypedDict
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

from pydantic_core import to_json

from souk_client.answers import Answer, Event, Receipt
from souk_client.errors import Problem, SoukError, Unreachable
from souk_client.retries import Retries
from souk_client.streams import Streams
from souk_client.transport import HttpxTransport, Transport

WAIT_MAX_SECONDS = 30
"""The longest that the API waits at a time; for more the client asks again."""
ANSWER_SECONDS = 30.0
"""How long an answer may take, beyond what it was asked to wait."""
BODY_COMMANDS, BODY_BYTES = 1_000, 900_000
"""What goes into one body; the API takes 1,000 commands and 1 MiB."""
LOOKS_AT_ONCE = 50

COMMANDS, BATCH = "/v1/commands", "/v1/commands/batch"
CONFLICT = 409

Outcome = Receipt | Problem | Unreachable
"""What came of one command of many: a receipt, or the error in its place."""


class Submission(TypedDict, total=False):
    """A command as submit_many takes it. The names are the options of Client.submit."""

    kind: Required[str]
    payload: Required[Mapping[str, Any]]
    actor: int | None
    idempotency_key: str | None
    run_at: datetime | str | None
    not_after: datetime | str | None


class Client:
    """Speaks to the API at `url`, like "http://127.0.0.1:8000", with the API key `key`; `async with` closes it.

    `patience` is for how many seconds a request is sent again that gets no answer or is refused for now. By default
    it is 60, but 2 until a connection was made for the first time, so that a wrong address is told soon. Requests
    travel over `transport`, by default httpx; streams always travel over httpx.

    Raises ValueError for an address or a key that cannot be one. Methods raise Problem when the API refuses a request,
    Unreachable when no answer comes, and NoConnection, an Unreachable, when no connection can be made.
    """

    def __init__(
        self, url: str, key: str, *, transport: Transport | None = None, patience: float | None = None
    ) -> None:
        if not key.isascii() or not key.isprintable():
            raise ValueError("the key has characters that no key has")
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}
        self._transport = transport or HttpxTransport(self.url)
        self._retries = Retries(patience)
        self._streams = Streams(self.url, self._headers, self._retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._streams.aclose()
        await self._transport.aclose()

    # -- commands

    async def submit(
        self,
        kind: str,
        payload: Mapping[str, Any] | None = None,
        *,
        actor: int | None = None,
        idempotency_key: str | None = None,
        wait: float = 0.0,
        run_at: datetime | str | None = None,
        not_after: datetime | str | None = None,
        **fields: Any,
    ) -> Receipt:
        """Submits a command and waits up to `wait` seconds for its outcome.

        The payload is a mapping, keyword arguments, or both; a field named like an option goes into the mapping.
        `actor` is the user in whose name it is sent. A command that was sent with the same `idempotency_key` before
        does not happen again; its receipt is returned. `run_at` is when to execute it, and `not_after` when it expires
        if it was not executed: aware datetimes, or texts like "2030-01-01T00:00:00Z".

        A rejection by the rules is an outcome and is not raised; see Receipt.raise_for_outcome. Raises Problem or
        Unreachable only as long as the command is not known to be accepted, and TypeError for a field given twice.
        """
        if twice := fields.keys() & (payload or {}).keys():
            message = f"in the payload and as a keyword argument: {', '.join(sorted(twice))}"
            raise TypeError(message)
        body = _body(
            {
                "kind": kind,
                "payload": {**(payload or {}), **fields},
                "actor": actor,
                "idempotency_key": idempotency_key,
                "run_at": run_at,
                "not_after": not_after,
            }
        )
        until = monotonic() + wait
        answer = await self.call("POST", COMMANDS, body, prefer(wait), safe=True, wait=wait)
        return await self._follow(Receipt.of(answer.json()), until)

    async def submit_many(
        self, commands: Iterable[Submission], *, actor: int | None = None, wait: float = 0.0
    ) -> list[Outcome]:
        """Submits commands in order, up to 1,000 in a request, and returns what came of each in its place.

        `actor` is that of the commands that name none. After each request, up to `wait` seconds are spent on its
        outcomes before the next one is sent. No SoukError is raised: a command that was refused has a Problem in its
        place, one that got no answer an Unreachable, and neither harms the others.
        """
        given = ({"actor": actor, **command} for command in commands)
        outcomes: list[Outcome] = []
        for bodies in _packed(_body(command) for command in given):
            outcomes += await self._submit_bodies(bodies, wait)
        return outcomes

    async def wait(self, command: Receipt | UUID | str, seconds: float) -> Receipt:
        """Returns the receipt of a command, given by its id or a receipt; final if it becomes so within `seconds`.

        Raises Problem, say 404 `not_found`, and Unreachable.
        """
        until = monotonic() + seconds
        if isinstance(command, Receipt):
            return await self._wait(command, until)
        return await self._wait(await self._look(command, seconds), until)

    async def get(self, command_id: UUID | str) -> Receipt:
        """Returns the receipt of a command as it is now. Raises Problem, say 404 `not_found`, and Unreachable."""
        return await self._look(command_id, 0.0)

    async def cancel(self, command_id: UUID | str) -> Receipt:
        """Cancels a command unless it is final already, and returns its receipt: its `status` tells which.

        Raises Problem, say 404 `not_found`, and Unreachable.
        """
        try:
            answer = await self.call("DELETE", f"{COMMANDS}/{_segment(command_id)}", safe=True)
            return Receipt.of(answer.json())
        except Problem as problem:
            if problem.status == CONFLICT and "receipt" in problem.raw:
                return Receipt.of(problem.raw["receipt"])
            raise

    async def commands(self, **filters: Any) -> AsyncIterator[Receipt]:
        """Yields the receipts of one's own commands, newest first.

        Filters are `status`, `kind`, `asset` and `actor`. Raises Problem for a filter that is none, and Unreachable.
        """
        async for raw in self.pages(COMMANDS, **filters):
            yield Receipt.of(raw)

    # -- streams

    async def stream(self, command_id: UUID | str) -> AsyncIterator[Receipt]:
        """Yields the receipts of a command, one for each change; the last one is final. Reconnects by itself.

        Raises Problem, say 404 `not_found`, and Unreachable when no connection can be had until patience is over.
        """
        last: Receipt | None = None
        async for message in self._streams.messages(f"{COMMANDS}/{_segment(command_id)}/stream"):
            receipt = Receipt.of(message)
            if receipt != last:
                yield receipt
            if receipt.is_final:
                return
            last = receipt

    async def events(self, *topics: str, after: str | None = None) -> AsyncIterator[Event]:
        """Yields the events of topics like "market" and "nft:17", each once and in order, without end.

        They begin now, or after the event whose id is `after`. Reconnects by itself, without a gap. Raises Problem, say
        for a topic that is none, and Unreachable when no connection can be had until patience is over.
        """
        path = f"/v1/events?{urlencode({'topic': topics}, doseq=True)}"
        async for message in self._streams.messages(path, after):
            yield Event.of(message)

    # -- anything else

    async def read(self, path: str, **params: Any) -> Any:
        """Returns the JSON of any read, like `read("/v1/listings", limit=5)`; parameters that are None are left out.

        Raises Problem and Unreachable.
        """
        return (await self.call("GET", _with_query(path, params), safe=True)).json()

    async def pages(self, path: str, **params: Any) -> AsyncIterator[Any]:
        """Yields the items of a list like "/v1/listings", page after page, 100 at a time unless `limit` says otherwise.

        Raises Problem and Unreachable.
        """
        cursor: str | None = None
        while True:
            page = await self.read(path, **{"limit": 100, **params, "cursor": cursor})
            for item in page["items"]:
                yield item
            cursor = page["next"]
            if cursor is None:
                return

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        safe: bool = False,
        wait: float = 0.0,
    ) -> Answer:
        """Sends any request, and returns its answer when it is no refusal. A body is JSON.

        It is sent again, until patience is over, only when it is `safe` to happen twice. `wait` is how many seconds the
        API was asked to wait before it answers. Raises Problem and Unreachable.
        """
        seconds = ANSWER_SECONDS + min(wait, WAIT_MAX_SECONDS)
        if not safe:
            return _accepted(await self.request(method, path, body, headers, seconds))
        async for attempt in self._retries.attempts():
            with attempt:
                return _accepted(await self.request(method, path, body, headers, seconds))
        raise AssertionError("unreachable: the last attempt raises")

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Sends any request, once, and returns its answer, whatever it is. A body is JSON.

        Raises Unreachable when no whole answer comes within `timeout_seconds`.
        """
        lines = {**self._headers, **headers}
        if body:
            lines["Content-Type"] = "application/json"
        answer = await self._transport.request(method, path, body, lines, timeout_seconds)
        self._retries.reached = True
        return answer

    # -- inside

    async def _look(self, command_id: UUID | str, seconds: float) -> Receipt:
        seconds = max(0.0, min(seconds, WAIT_MAX_SECONDS))
        query = f"?wait={round(seconds, 3):g}" if seconds else ""
        path = f"{COMMANDS}/{_segment(command_id)}{query}"
        return Receipt.of((await self.call("GET", path, safe=True, wait=seconds)).json())

    async def _wait(self, receipt: Receipt, until: float) -> Receipt:
        while not receipt.is_final and (left := until - monotonic()) > 0:
            receipt = await self._look(receipt.id, left)
        return receipt

    async def _submit_bodies(self, bodies: Sequence[bytes], wait: float) -> list[Outcome]:
        """Sends all, sends again those that were refused for now, and waits for those that were accepted."""
        until = monotonic() + wait
        outcomes: dict[int, Outcome] = {}
        left = list(range(len(bodies)))
        try:
            async for attempt in self._retries.attempts():
                with attempt:
                    try:
                        body = batch([bodies[place] for place in left])
                        answer = await self.call("POST", BATCH, body, prefer(wait), wait=wait)
                    except (Problem, Unreachable) as error:
                        outcomes |= dict.fromkeys(left, error)
                        raise
                    outcomes |= zip(left, map(_outcome, answer.json()["receipts"]), strict=True)
                    refused = {place: each for place in left if isinstance(each := outcomes[place], Problem)}
                    left = [place for place, problem in refused.items() if problem.passes]
                    if left:
                        raise refused[left[0]]
        except SoukError:
            pass  # it is in its place
        gate = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def followed(outcome: Outcome) -> Outcome:
            async with gate:
                return await self._follow(outcome, until) if isinstance(outcome, Receipt) else outcome

        return await asyncio.gather(*(followed(outcomes[place]) for place in range(len(bodies))))

    async def _follow(self, receipt: Receipt, until: float) -> Receipt:
        """Returns the receipt, final if that can be learnt within the time."""
        try:
            return await self._wait(receipt, until)
        except (Problem, Unreachable):
            return receipt


def batch(bodies: Iterable[bytes]) -> bytes:
    """Returns the body that submits commands, each JSON already, together."""
    return b'{"commands":[' + b",".join(bodies) + b"]}"


def prefer(wait: float) -> Mapping[str, str]:
    """Returns the header that asks a submission to wait for its outcome."""
    return {"Prefer": f"wait={ceil(min(wait, WAIT_MAX_SECONDS))}"} if wait > 0 else {}


def _body(command: Mapping[str, Any]) -> bytes:
    """Returns the command as JSON, with an idempotency key if it had none."""
    said = {name: value for name, value in command.items() if value is not None}
    return to_json({"idempotency_key": str(uuid4()), **said})


def _packed(commands: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yields the commands in order, as many together as fit into a body."""
    bodies: list[bytes] = []
    size = 0
    for command in commands:
        if bodies and (len(bodies) == BODY_COMMANDS or size + len(command) > BODY_BYTES):
            yield bodies
            bodies, size = [], 0
        bodies.append(command)
        size += len(command) + 1
    if bodies:
        yield bodies


def _accepted(answer: Answer) -> Answer:
    if answer.status >= 400:  # noqa: PLR2004
        raise answer.problem()
    return answer


def _outcome(raw: Mapping[str, Any]) -> Receipt | Problem:
    return Problem(raw.get("status", 0), raw) if "code" in raw else Receipt.of(raw)


def _segment(command_id: UUID | str) -> str:
    return quote(str(command_id), safe="")


def _with_query(path: str, params: Mapping[str, Any]) -> str:
    said = {name: value for name, value in params.items() if value is not None}
    return f"{path}?{urlencode(said, doseq=True)}" if said else path
