"""GET /v1/ws: commands, their receipts and events on one connection. docs/results.md tells the protocol.

    the socket ──▶ read ──▶ a task for each submission: stored, told, waited for, told ──┐
                    │                                                                    ├──▶ one lock ──▶ the socket
                    └─────▶ one task that tells events, once there is a subscription ────┘

Nothing is queued here. Who is about to send waits for the lock, so a client that does not read holds up its own
submissions, whose number is bounded, and its subscription, whose buffer is; then its socket is read no further.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError
from pydantic_core import from_json, to_json
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from api.auth import Keyring
from api.events.hub import Behind, Hub, Subscription
from api.events.limits import Places
from api.events.topics import TOPICS_MAX, readable
from api.openapi.operation import Answer, described
from api.problems import Problem, problem_of
from api.submit import Submit
from commands.command import Invalid
from storage.feed import Cursor
from storage.journal.entry import Entry
from storage.keys import Credential
from storage.postgres.connection import is_weather

RESTARTING, UNAUTHENTICATED, SLOW = 1012, 4001, 4008
_BUG = 1011

IN_FLIGHT_MAX = 100
"""Submissions of a connection that wait for their first answer; with as many, the socket is read no further."""
UNFINISHED_MAX = 1_000
"""Commands of a connection that wait for their outcome: as many as one actor may have."""
STALLED_SECONDS = 10.0
"""How long one message may wait for a client that does not read; less than the pings' patience, so that this is what
ends the connection."""
_AUTHENTICATE_SECONDS = 15.0
_DRAIN_SECONDS = 5.0
"""More than acceptance may take."""
_ID_MAX = 255


def _request_id(value: object) -> int | str:
    fits = len(value) <= _ID_MAX if isinstance(value, str) else type(value) is int and abs(value) <= 2**53
    if not fits:
        raise ValueError(f"must be a string of at most {_ID_MAX} characters or an integer")
    return value  # type: ignore[return-value]


RequestId = Annotated[int | str, PlainValidator(_request_id)]


class _Request(BaseModel):
    """A message of the client's; `id` comes back with whatever answers it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: RequestId | None = None


class SubmitRequest(_Request):
    op: Literal["submit"]
    id: RequestId
    command: Any
    """As in POST /v1/commands."""


class SubscribeRequest(_Request):
    op: Literal["subscribe"]
    topics: list[str]
    after: str | None = None


class UnsubscribeRequest(_Request):
    op: Literal["unsubscribe"]
    topics: list[str]


class PingRequest(_Request):
    op: Literal["ping"]


Request = SubmitRequest | SubscribeRequest | UnsubscribeRequest | PingRequest
_REQUESTS: dict[str, type[Request]] = {
    "submit": SubmitRequest,
    "subscribe": SubscribeRequest,
    "unsubscribe": UnsubscribeRequest,
    "ping": PingRequest,
}


class _End(Exception):
    """The connection is over: closed with this code, or gone when there is none."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSockets:
    """The route, and the drain of all its connections."""

    def __init__(self, submit: Submit, hub: Hub, keyring: Keyring, places: Places) -> None:
        self._submit = submit
        self._hub = hub
        self._keyring = keyring
        self._places = places
        self._draining = asyncio.Event()

    @described(
        "events",
        answers={101: Answer("The connection is a WebSocket.")},
        problems=("too_many_requests",),
        access=("bearer", "session"),
    )
    async def answer(self, socket: WebSocket) -> None:
        """GET /v1/ws: commands, their receipts and events on one connection.

        Whoever may not connect is told so in HTTP, before the handshake. docs/results.md tells the protocol."""
        credential = await self._keyring.authenticate(socket, cookie=True)
        if self._draining.is_set():
            raise Problem(503, "unavailable", "The process is about to end; connect again.")
        with self._places.one(credential):
            await socket.accept()
            await _Connection(socket, credential, self._submit, self._hub, self._keyring).serve(self._draining)

    def drain(self) -> None:
        """The process is about to end: submissions under way are answered, then the connections are closed."""
        self._draining.set()


class _Connection:
    def __init__(self, socket: WebSocket, credential: Credential, submit: Submit, hub: Hub, keyring: Keyring) -> None:
        self._socket = socket
        self._credential = credential
        self._submit = submit
        self._hub = hub
        self._keyring = keyring
        self._tasks = asyncio.TaskGroup()
        self._sending = asyncio.Lock()
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._submissions: set[asyncio.Task[None]] = set()
        self._topics: dict[str, None] = {}
        self._subscription: Subscription | None = None
        self._told = Cursor(0, 0)
        self._telling = False

    async def serve(self, draining: asyncio.Event) -> None:
        """Until it is over. Commands that were accepted go on without it."""
        end = _End(None)
        try:
            async with self._tasks:
                reading = self._tasks.create_task(self._read())
                self._tasks.create_task(self._stay_authenticated())
                self._tasks.create_task(self._drain(draining, reading))
        except* _End as group:
            end = _first(group)
        except* Exception as group:  # noqa: BLE001 - a bug, told by its incident only
            problem_of(group)
            end = _End(_BUG, "internal")
        finally:
            if self._subscription is not None:
                self._subscription.close()
        if end.code is not None:
            with suppress(TimeoutError, OSError, WebSocketDisconnected, WebSocketDisconnect):
                async with asyncio.timeout(STALLED_SECONDS):
                    await self._socket.close(end.code, end.reason)

    # -- what comes

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise _End(None)
            await self._hear(message.get("text"))

    async def _hear(self, text: str | None) -> None:
        """One message; what is wrong with it is told, and harms no other."""
        content = None
        try:
            content = _json(text)
            await self._obey(_request(content))
        except _End:
            raise
        except Exception as error:  # noqa: BLE001 - told as HTTP would
            await self._refuse(_id_of(content), error)

    async def _obey(self, request: Request) -> None:
        match request:
            case SubmitRequest():
                if len(self._submissions) >= UNFINISHED_MAX:
                    raise Problem(429, "too_many_requests", "Too many unfinished commands on this connection.")
                await self._authenticate()
                submission = self._submit.read(self._credential, request.command)
                await self._in_flight.acquire()
                task = self._tasks.create_task(self._follow(request.id, submission))
                self._submissions.add(task)
                task.add_done_callback(self._submissions.discard)
            case SubscribeRequest():
                await self._subscribe(request)
                await self._tell_subscribed(request)
            case UnsubscribeRequest():
                gone = _readable(self._credential, request.topics)
                if self._subscription is not None:
                    self._subscription.discard(gone)
                self._topics = {topic: None for topic in self._topics if topic not in gone}
                await self._tell_subscribed(request)
            case PingRequest():
                await self._send({"type": "pong", "id": request.id, "position": self._position()})

    async def _follow(self, request_id: RequestId, submission: Entry) -> None:
        """Tell of a command twice: that it is accepted, and what came of it."""
        answered = False
        try:
            async with aclosing(self._submit.follow(submission)) as receipts:
                async for receipt in receipts:
                    answer = {"type": "receipt", "id": request_id, "replayed": receipt.replayed}
                    await self._send(answer | {"receipt": receipt.as_json()})
                    if not answered:
                        answered = True
                        self._in_flight.release()
        except _End:
            raise
        except Exception as error:  # noqa: BLE001 - told as HTTP would
            await self._refuse(request_id, error)
        finally:
            if not answered:
                self._in_flight.release()

    async def _subscribe(self, request: SubscribeRequest) -> None:
        await self._authenticate()
        added = _readable(self._credential, request.topics)
        if len(self._topics.keys() | added) > TOPICS_MAX:
            raise Invalid(("topics", f"at most {TOPICS_MAX} on a connection"))
        if self._subscription is not None:
            if request.after is not None:
                raise Invalid(("after", "goes with the first subscription of a connection only"))
            self._subscription.add(added)
        else:
            subscription = self._hub.subscribe(added, _cursor(request.after))
            await subscription.__aenter__()
            self._subscription, self._told = subscription, subscription.position
            self._tasks.create_task(self._tell_events(subscription))
        self._topics |= dict.fromkeys(added)

    # -- what goes

    async def _tell_events(self, subscription: Subscription) -> None:
        try:
            async for event in subscription:
                self._telling = True
                await self._send({"type": "event", "event": event.as_json()})
                self._told, self._telling = event.cursor, False
        except Behind:
            raise _End(SLOW, self._resume()) from None

    async def _tell_subscribed(self, request: SubscribeRequest | UnsubscribeRequest) -> None:
        topics: Sequence[str] = list(self._topics)
        await self._send({"type": "subscribed", "id": request.id, "topics": topics, "position": self._position()})

    async def _refuse(self, request_id: RequestId | None, error: Exception) -> None:
        await self._send({"type": "problem", "id": request_id, "problem": problem_of(error).as_json()})

    async def _send(self, message: dict[str, Any]) -> None:
        text = to_json(message).decode()
        async with self._sending:
            try:
                async with asyncio.timeout(STALLED_SECONDS):
                    await self._socket.send_text(text)
            except TimeoutError:
                raise _End(SLOW, self._resume()) from None
            except (OSError, WebSocketDisconnected, WebSocketDisconnect):
                raise _End(None) from None

    def _position(self) -> str | None:
        """The cursor to resume from: every event up to it was sent, and none after it."""
        if self._subscription is None:
            return None
        return str(self._told if self._telling else max(self._told, self._subscription.position))

    def _resume(self) -> str:
        position = self._position()
        return "" if position is None else f"after={position}"

    # -- how it ends

    async def _authenticate(self) -> None:
        try:
            self._credential = await self._keyring.authenticate(self._socket, cookie=True)
        except Problem:
            raise _End(UNAUTHENTICATED, self._resume()) from None

    async def _stay_authenticated(self) -> None:
        """A revoked key ends the connection soon, even while the client is silent."""
        while True:
            await asyncio.sleep(_AUTHENTICATE_SECONDS)
            try:
                await self._authenticate()
            except Exception as error:
                if not is_weather(error):
                    raise

    async def _drain(self, draining: asyncio.Event, reading: asyncio.Task[None]) -> None:
        """Nothing more is read; outcomes are waited for no longer, so the submissions end with their first answer."""
        await draining.wait()
        reading.cancel()
        if self._submissions:
            await asyncio.wait(self._submissions, timeout=_DRAIN_SECONDS)
        raise _End(RESTARTING, self._resume())


def _json(text: str | None) -> Any:
    if text is None:
        raise Problem(400, "malformed", "Send text, not binary.")
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, "malformed", f"The message is not JSON: {error}") from None


def _request(content: Any) -> Request:
    """Raises Invalid."""
    op = content.get("op") if isinstance(content, dict) else None
    if not isinstance(op, str) or op not in _REQUESTS:
        raise Invalid(("op", f"must be one of {', '.join(_REQUESTS)}, in an object"))
    try:
        return _REQUESTS[op].model_validate(content)
    except ValidationError as error:
        raise Invalid.from_pydantic(error, "") from None


def _id_of(content: Any) -> RequestId | None:
    """The id of a message that may be wrong otherwise."""
    try:
        return _request_id(content["id"]) if isinstance(content, dict) and "id" in content else None
    except ValueError:
        return None


def _readable(credential: Credential, topics: list[str]) -> list[str]:
    try:
        return readable(credential, topics)
    except Invalid as error:
        raise Invalid(*(("topics", message) for _, message in error.errors)) from None


def _cursor(text: str | None) -> Cursor | None:
    try:
        return None if text is None else Cursor.parse(text)
    except ValueError:
        raise Invalid(("after", "must be the id of an event or a position")) from None


def _first(group: BaseExceptionGroup[_End]) -> _End:
    """What ended it; where several tasks found that it is over, one that says why."""
    ends = [end for end in group.exceptions if isinstance(end, _End)]
    return next((end for end in ends if end.code is not None), ends[0])
