"""The client: commands go in once, however often they must be sent; what came of them comes out.

A command that is given no idempotency key gets one, and keeps it however often it is sent; so what got no answer is
simply sent again. So is what the API refuses for now, when it asks for that, until `patience` seconds are over. What
could take effect twice is never repeated.
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

from api.client.answers import Answer, Event, Receipt
from api.client.errors import Problem, SoukError, Unreachable
from api.client.retries import attempts
from api.client.streams import Streams
from api.client.transport import HttpxTransport, Transport

WAIT_MAX_SECONDS = 30
"""The API waits no longer at a time; who wants to wait longer asks again."""
ANSWER_SECONDS = 30.0
"""How long an answer may take, beyond what it was asked to wait."""
BODY_COMMANDS, BODY_BYTES = 1_000, 900_000
"""What goes into one body; the API takes 1,000 commands and 1 MiB."""
LOOKS_AT_ONCE = 50

COMMANDS, BATCH = "/v1/commands", "/v1/commands/batch"
CONFLICT = 409

Outcome = Receipt | Problem | Unreachable
"""What came of one command of many."""


class Submission(TypedDict, total=False):
    """A command as submit_many takes it."""

    kind: Required[str]
    payload: Required[Mapping[str, Any]]
    actor: int | None
    idempotency_key: str | None
    run_at: datetime | str | None
    not_after: datetime | str | None


class Client:
    """Speaks to the API at `url` with an API key; `async with` closes its connections.

    Raises ValueError for an address or a key that cannot be one. Methods raise Problem for a refusal, and Unreachable
    when no answer comes for `patience` seconds. Requests go over `transport`, streams always over httpx.
    """

    def __init__(self, url: str, key: str, *, transport: Transport | None = None, patience: float = 60.0) -> None:
        if not key.isascii() or not key.isprintable():
            raise ValueError("the key has characters that no key has")
        self.url = url.rstrip("/")
        self.patience = patience
        self._headers = {"Authorization": f"Bearer {key}"}
        self._transport = transport or HttpxTransport(self.url)
        self._streams = Streams(self.url, self._headers, patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._streams.aclose()
        await self._transport.aclose()

    # -- commands

    async def submit(
        self,
        kind: str,
        payload: Mapping[str, Any] | None = None,
        *,
        actor: int | None = None,
        key: str | None = None,
        wait: float = 0.0,
        run_at: datetime | str | None = None,
        not_after: datetime | str | None = None,
        **fields: Any,
    ) -> Receipt:
        """Submit a command, its payload as a mapping or as fields; waits up to `wait` seconds for the outcome.

        A refusal by the rules is an outcome, and is not raised; see Receipt.raise_for_outcome. Once the command is
        accepted nothing is raised: the receipt tells what is known of it by then.
        """
        body = _body(
            {
                "kind": kind,
                "payload": {**(payload or {}), **fields},
                "actor": actor,
                "idempotency_key": key,
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
        """Submit commands in order, in bodies as large as the API takes; what came of each is in its place.

        Nothing is raised: a command that was refused, or could not be sent, harms no other. Each body waits up to
        `wait` seconds for its outcomes, and only then the next one is sent.
        """
        given = ({"actor": actor, **command} for command in commands)
        outcomes: list[Outcome] = []
        for bodies in _packed(_body(command) for command in given):
            outcomes += await self._submit_bodies(bodies, wait)
        return outcomes

    async def wait(self, command: Receipt | UUID | str, seconds: float) -> Receipt:
        """The receipt of a command, final if it becomes so within the time."""
        until = monotonic() + seconds
        if isinstance(command, Receipt):
            return await self._wait(command, until)
        return await self._wait(await self._look(command, seconds), until)

    async def get(self, command_id: UUID | str) -> Receipt:
        return await self._look(command_id, 0.0)

    async def cancel(self, command_id: UUID | str) -> Receipt:
        """Cancel a command unless it was executed; its receipt, whose status tells which."""
        try:
            answer = await self.call("DELETE", f"{COMMANDS}/{_segment(command_id)}", safe=True)
            return Receipt.of(answer.json())
        except Problem as problem:
            if problem.status == CONFLICT and "receipt" in problem.raw:
                return Receipt.of(problem.raw["receipt"])
            raise

    async def commands(self, **filters: Any) -> AsyncIterator[Receipt]:
        """One's own commands, newest first, by `status`, `kind`, `asset`, `actor`."""
        async for raw in self.pages(COMMANDS, **filters):
            yield Receipt.of(raw)

    # -- streams

    async def stream(self, command_id: UUID | str) -> AsyncIterator[Receipt]:
        """The receipts of a command as it goes on; the last one is final. Reconnects by itself."""
        last: Receipt | None = None
        async for message in self._streams.messages(f"{COMMANDS}/{_segment(command_id)}/stream"):
            receipt = Receipt.of(message)
            if receipt != last:
                yield receipt
            if receipt.is_final:
                return
            last = receipt

    async def events(self, *topics: str, after: str | None = None) -> AsyncIterator[Event]:
        """Events of the topics, each once and in order: from now on, or after the event of that id. Endless."""
        path = f"/v1/events?{urlencode({'topic': topics}, doseq=True)}"
        async for message in self._streams.messages(path, after):
            yield Event.of(message)

    # -- anything else

    async def read(self, path: str, **params: Any) -> Any:
        """The JSON of a read, like `read("/v1/listings", limit=5)`. Parameters that are None are left out."""
        return (await self.call("GET", _with_query(path, params), safe=True)).json()

    async def pages(self, path: str, **params: Any) -> AsyncIterator[Any]:
        """The items of a list, page after page."""
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
        """A request, until it is answered with what was asked for. Raises Problem and Unreachable.

        Only what is `safe` to happen twice is sent again. `wait` is how long the answer was asked to wait.
        """
        async for attempt in attempts(self.patience if safe else 0.0):
            with attempt:
                answer = await self.request(method, path, body, headers, ANSWER_SECONDS + min(wait, WAIT_MAX_SECONDS))
                if answer.status >= 400:  # noqa: PLR2004
                    raise answer.problem()
                return answer
        raise AssertionError("unreachable: the last attempt raises")

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """One request, sent once, and its answer, whatever it is. A body is JSON. Raises Unreachable."""
        lines = {**self._headers, **headers}
        if body:
            lines["Content-Type"] = "application/json"
        return await self._transport.request(method, path, body, lines, timeout_seconds)

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
        """Sends all, again those that were refused for now, and waits for those that were accepted."""
        until = monotonic() + wait
        outcomes: dict[int, Outcome] = {}
        left = list(range(len(bodies)))
        try:
            async for attempt in attempts(self.patience):
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
        """The receipt, final if that can be learnt within the time."""
        try:
            return await self._wait(receipt, until)
        except (Problem, Unreachable):
            return receipt


def batch(bodies: Iterable[bytes]) -> bytes:
    """The body that submits commands, each JSON already, together."""
    return b'{"commands":[' + b",".join(bodies) + b"]}"


def prefer(wait: float) -> Mapping[str, str]:
    """The header that asks a submission to wait for its outcome."""
    return {"Prefer": f"wait={min(ceil(wait), WAIT_MAX_SECONDS)}"} if wait > 0 else {}


def _body(command: Mapping[str, Any]) -> bytes:
    """The command on the wire, with a key if it had none."""
    said = {name: value for name, value in command.items() if value is not None}
    return to_json({"idempotency_key": str(uuid4()), **said})


def _packed(commands: Iterable[bytes]) -> Iterator[list[bytes]]:
    """In order, as many together as fit into a body."""
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


def _outcome(raw: Mapping[str, Any]) -> Receipt | Problem:
    return Problem(raw.get("status", 0), raw) if "code" in raw else Receipt.of(raw)


def _segment(command_id: UUID | str) -> str:
    return quote(str(command_id), safe="")


def _with_query(path: str, params: Mapping[str, Any]) -> str:
    said = {name: value for name, value in params.items() if value is not None}
    return f"{path}?{urlencode(said, doseq=True)}" if said else path
