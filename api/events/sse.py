"""Server-sent events: GET /v1/events for topics, GET /v1/commands/{id}/stream for one command. docs/results.md tells
what is on them.

A stream is one task that waits for the hub and for the client, nothing more: who does not read is told nothing, and
holds no more than the hub's bounded buffer. Each beat, every 15 seconds, it says where a client that loses it now may
resume, and looks whether its credential is still good.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.auth import Keyring, may_see
from api.events.hub import Behind, Hub, Subscription
from api.events.limits import Places
from api.events.topics import CURSOR, TOPIC, TOPICS_MAX, readable
from api.openapi.columns import Schema, list_of, named, object_of
from api.openapi.operation import JSON, Answer, Parameter, described
from api.outcomes import Expectation, Outcomes
from api.pages import LIMIT_DEFAULT, LIMIT_MAX, TIME, UUID_TEXT, integer, require_known
from api.problems import Problem, json_response, not_found
from commands.command import Invalid
from storage.feed import Cursor, StoredEvent
from storage.journal.accept import Journal
from storage.journal.receipts import Receipt
from storage.postgres.connection import is_weather

BEAT_SECONDS = 15.0
"""Twice this, and the second for which a key is remembered, is less than the time in which a revoked one must end."""
_RETRY_MILLISECONDS = 1_000
_ENCODED_MAX = 2_000

_SSE = "text/event-stream"
_EVENT = named(
    "Event",
    object_of(
        {
            "id": CURSOR,
            "name": {"type": "string", "pattern": r"^[a-z_]+(\.[a-z_]+)+$", "examples": ["nft.sold"]},
            "command_id": {"type": ["string", "null"], "format": "uuid"},
            "topics": list_of({"type": "string"}) | {"examples": [["nft:17", "market"]]},
            "at": TIME,
            "fields": {"type": "object", "examples": [{"nft_id": "17", "price_nano": 5_000_000_000}]},
        }
    ),
)
_PAGE = object_of({"items": list_of(_EVENT), "next": CURSOR, "more": {"type": "boolean"}})
_EVENTS: Schema = {
    "type": "string",
    "examples": [
        (
            "retry: 1000\nid: 7041-3\n\n"
            'id: 7052-9\nevent: nft.sold\ndata: {"id":"7052-9","name":"nft.sold","topics":["nft:17","market"],…}\n\n'
            ": ping\nid: 7060-0\n\n"
            'event: resume\ndata: {"after":"7060-0","reason":"restart"}\n\n'
        )
    ],
}
_RECEIPTS: Schema = {
    "type": "string",
    "examples": [
        (
            'id: accepted\nevent: receipt\ndata: {"id":"0197b0c4-…","status":"accepted",…}\n\n'
            'id: succeeded\nevent: receipt\ndata: {"id":"0197b0c4-…","status":"succeeded",…}\n\n'
        )
    ],
}

AppStatus.enable_automatic_graceful_drain = False  # the hub and the outcomes are drained: a stream has a last word


class Streams:
    """The two routes."""

    def __init__(self, hub: Hub, outcomes: Outcomes, journal: Journal, keyring: Keyring, places: Places) -> None:
        self._hub = hub
        self._outcomes = outcomes
        self._journal = journal
        self._keyring = keyring
        self._places = places
        self._encoded: dict[Cursor, bytes] = {}

    @described(
        "events",
        parameters=(
            Parameter("topic", list_of(TOPIC, minItems=1, maxItems=TOPICS_MAX), "Any of them.", required=True),
            Parameter("after", CURSOR, "Tell what came after it; without, what comes from now on."),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}, "Of a page only."),
            Parameter("Last-Event-ID", CURSOR, "The same as `after`, sent by browsers that reconnect.", "header"),
        ),
        answers={200: Answer("The stream or the page.", {_SSE: _EVENTS, JSON: _PAGE})},
        problems=("forbidden", "invalid", "too_many_requests"),
        access=("bearer", "session"),
    )
    async def events(self, request: Request) -> Response:
        """GET /v1/events: events of topics, as they happen.

        A stream, or with `Accept: application/json` a page. Each event of the stream has the name of what happened, and
        as its id the cursor to resume from. `resume` are the last words of a stream that ends before its time."""
        paged = _wants_page(request)
        credential = await self._keyring.authenticate(request, cookie=not paged)
        require_known(request.query_params, {"topic", "after", "limit"} if paged else {"topic", "after"})
        topics = readable(credential, request.query_params.getlist("topic"))
        after = _after(request)
        if paged:
            return await self._page(request, topics, after)
        with ExitStack() as stack:
            stack.enter_context(self._places.one(credential))
            subscription = await self._hub.subscribe(topics, after).__aenter__()
            stack.callback(subscription.close)
            return _Stream(self._tell_events(request, subscription), stack.pop_all())
        raise AssertionError  # pragma: no cover

    @described(
        "events",
        parameters=(Parameter("id", UUID_TEXT, "Of the command.", "path", required=True),),
        answers={
            200: Answer("The stream.", {_SSE: _RECEIPTS}),
            204: Answer("What Last-Event-ID names was the last there is."),
        },
        problems=("not_found", "invalid", "too_many_requests"),
        access=("bearer", "session"),
    )
    async def command(self, request: Request) -> Response:
        """GET /v1/commands/{id}/stream: the receipt of a command, and again when it is final.

        Events are named `receipt`, their ids are the status. The stream ends with the final receipt."""
        credential = await self._keyring.authenticate(request, cookie=True)
        require_known(request.query_params, set())
        try:
            command_id = UUID(request.path_params["id"])
        except ValueError:
            raise not_found() from None
        with ExitStack() as stack:
            stack.enter_context(self._places.one(credential))
            expectation = stack.enter_context(self._outcomes.expect([command_id]))
            receipt = await self._journal.read(command_id)
            if receipt is None or not may_see(credential, receipt):
                raise not_found()
            if receipt.is_final and request.headers.get("last-event-id") == receipt.status:
                return Response(status_code=204)  # which keeps an EventSource from asking again and again
            return _Stream(self._tell_receipts(request, receipt, expectation), stack.pop_all())
        raise AssertionError  # pragma: no cover

    async def _page(self, request: Request, topics: list[str], after: Cursor | None) -> Response:
        limit = integer("limit", request.query_params.get("limit", str(LIMIT_DEFAULT)), 1, LIMIT_MAX)
        reading = await self._hub.page(after, topics, limit)
        items = [event.as_json() for event in reading.events]
        return json_response({"items": items, "next": str(reading.reached), "more": reading.more})

    async def _tell_events(self, request: Request, subscription: Subscription) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        told, reason, beat_at = subscription.position, "restart", clock() + BEAT_SECONDS
        yield _message(id=str(told), retry=_RETRY_MILLISECONDS)
        try:
            while not subscription.closed:
                events = await subscription.take(beat_at - clock())
                beats = clock() >= beat_at
                if beats and not await self._is_still_good(request):
                    reason = "credential"
                    break
                if events:
                    yield b"".join(map(self._encode, events))
                    told = events[-1].cursor
                if beats:
                    told = subscription.position
                    yield _message(comment="ping", id=str(told))
                    beat_at = clock() + BEAT_SECONDS
        except Behind:
            reason = "slow"
        yield _farewell({"after": str(told), "reason": reason})

    async def _tell_receipts(
        self, request: Request, receipt: Receipt, expectation: Expectation
    ) -> AsyncIterator[bytes]:
        yield _receipt(receipt)
        while not receipt.is_final:
            final = await expectation.wait(BEAT_SECONDS)
            if receipt.id in final:
                receipt = final[receipt.id]
                yield _receipt(receipt)
            elif self._outcomes.draining:
                yield _farewell({"reason": "restart"})
                return
            elif not await self._is_still_good(request):
                yield _farewell({"reason": "credential"})
                return
            else:
                yield _message(comment="ping")

    async def _is_still_good(self, request: Request) -> bool:
        """Whether the credential is; in bad weather nobody knows, and nothing is told either."""
        try:
            await self._keyring.authenticate(request, cookie=True)
        except Problem:
            return False
        except Exception as error:
            if not is_weather(error):
                raise
        return True

    def _encode(self, event: StoredEvent) -> bytes:
        """Once for all who hear of it at the same time."""
        encoded = self._encoded.get(event.cursor)
        if encoded is None:
            if len(self._encoded) >= _ENCODED_MAX:
                self._encoded.clear()
            encoded = _message(id=str(event.cursor), event=event.name, data=to_json(event.as_json()).decode())
            self._encoded[event.cursor] = encoded
        return encoded


class _Stream(EventSourceResponse):
    """Gives back what it holds when it is over, also if it never began."""

    def __init__(self, content: AsyncIterator[bytes], holds: ExitStack) -> None:
        super().__init__(content, ping=0)
        self._holds = holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holds:
            await super().__call__(scope, receive, send)


def _message(**fields: Any) -> bytes:
    return ServerSentEvent(**fields, sep="\n").encode()


def _receipt(receipt: Receipt) -> bytes:
    return _message(id=receipt.status, event="receipt", data=to_json(receipt.as_json()).decode())


def _farewell(data: dict[str, str]) -> bytes:
    """The last words of a stream that ends before its time."""
    return _message(event="resume", data=to_json(data).decode(), retry=_RETRY_MILLISECONDS)


def _wants_page(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted and "text/event-stream" not in accepted


def _after(request: Request) -> Cursor | None:
    """Where to go on. A browser that reconnects asks for the same address, and says in a header how far it came."""
    name = "last-event-id" if request.headers.get("last-event-id") else "after"
    text = request.headers.get(name) if name == "last-event-id" else request.query_params.get(name)
    try:
        return None if text is None else Cursor.parse(text)
    except ValueError:
        raise Invalid((name, "must be the id of an event, or of a place between them")) from None
