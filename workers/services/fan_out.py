"""Fanning out: events become deliveries of the webhooks that want them, whichever worker looks first.

Every endpoint has a position in the feed. What comes after it and is of its topics becomes deliveries, in a transaction
with the new position and under the lock of the endpoint's row: one delivery for each event, numbered in the feed's
order.

Most endpoints are at the front together, so that one reading serves them all; those that are behind share another.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple
from uuid import UUID

from storage.feed import Cursor, StoredEvent, read_events
from storage.journal.entry import new_id
from storage.postgres.connection import Connection, Line, is_weather
from storage.settings import Settings
from storage.webhooks.endpoints import IN_FORCE, WAITING, body_of

logger = logging.getLogger(__name__)

WAITING_MAX = 100
"""Deliveries of an endpoint that wait before no more are made for it: the feed keeps the rest."""

_TURN_SECONDS = 0.25
_REST_SECONDS = 0.05
"""Between two turns while events keep coming, for the sake of the lanes; the first of them is not kept waiting."""
_SHARE = 0.25
"""Of the time that turns may take while events keep coming, however many endpoints there are."""
_PENDING_SECONDS = 0.02
_STATEMENT_SECONDS = 10.0
_EVENTS_MAX = 500
_ROWS_MAX = 5_000
"""Of one reading, about: fewer events are read for more endpoints."""
_TOPICS_MAX = 200
"""Endpoints with more of them together have the events sorted here."""
_STORE_SECONDS = 5.0
"""How often a position is stored that moved without finding anything; who starts anew looks there once more."""
_KEPT_DAYS = 30
_FORGET_SECONDS = 60.0
_FORGET_MAX = 1_000

_FULL = f"""
WITH RECURSIVE {WAITING}
SELECT webhook_id FROM waiting WHERE EXISTS (
    SELECT FROM deliveries WHERE deliveries.webhook_id = waiting.webhook_id AND state = 'pending' AND NOT by_hand
    OFFSET {WAITING_MAX} - 1
)
"""  # noqa: S608 - constant
_ENDPOINTS = f"SELECT id, after_txid, after_id, topics FROM webhooks WHERE {IN_FORCE}"  # noqa: S608 - constant

# Whoever has an endpoint's row numbers its deliveries after all that it had before; others leave it out meanwhile.
_LOCK = """
SELECT id, after_txid, after_id FROM webhooks WHERE id = ANY($1::uuid[]) AND disabled_at IS NULL
FOR NO KEY UPDATE SKIP LOCKED
"""
_FAN_OUT = """
WITH moved AS (
    UPDATE webhooks SET after_txid = to_txid, after_id = to_id
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS reached(id, to_txid, to_id)
    WHERE webhooks.id = reached.id AND (to_txid, to_id) > (after_txid, after_id)
)
INSERT INTO deliveries (id, webhook_id, event_txid, event_id, name, body)
SELECT id, webhook_id, txid, event_id, ($9::text[])[number], ($10::text[])[number]
FROM unnest($4::uuid[], $5::uuid[], $6::bigint[], $7::bigint[], $8::integer[])
    WITH ORDINALITY AS new(id, webhook_id, txid, event_id, number, place)
ORDER BY place
"""

_FORGET = """
DELETE FROM deliveries WHERE id IN (
    SELECT id FROM deliveries WHERE finished_at < statement_timestamp() - make_interval(days => $1)
    ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
"""


class Endpoint:
    """An endpoint during a turn: where it is in the feed, and what was found for it."""

    def __init__(self, id_: UUID, stored: Cursor, position: Cursor, topics: Sequence[str]) -> None:
        self.id = id_
        self.stored = stored
        self.position = position
        self.topics = topics
        self.found: list[StoredEvent] = []

    def leave_out(self, stored: Cursor) -> None:
        """What somebody else has seen to meanwhile, up to this place."""
        self.found = [event for event in self.found if event.cursor > stored]


class Looked(NamedTuple):
    """How far was looked for an endpoint, and when (monotonic seconds) its position was stored."""

    position: Cursor
    stored_at: float


class FanOut:
    """That of one worker; `made` is called when there are new deliveries."""

    def __init__(self, settings: Settings, made: Callable[[], None]) -> None:
        self._made = made
        self._line = Line(settings, "fan-out", timeout_seconds=_STATEMENT_SECONDS, pinned_plans=True)
        self._rung = asyncio.Event()
        self._looked: dict[UUID, Looked] = {}
        self._forgot_at = time.monotonic()

    def ring(self) -> None:
        """There may be new events."""
        self._rung.set()

    async def run(self) -> None:
        """Fan out until cancelled."""
        try:
            while True:
                self._rung.clear()
                began = time.monotonic()
                try:
                    pause = await self.turn()
                    await self._forget()
                except Exception as error:
                    if not is_weather(error):
                        raise
                    logger.warning("events are not fanned out: %r", error)
                    self._line.doubt(error)
                    pause = _TURN_SECONDS
                if pause == _TURN_SECONDS and self._looked:
                    ended = time.monotonic()
                    rested = max(began + _REST_SECONDS, ended + (ended - began) / _SHARE)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._rung.wait()
                    pause = rested - time.monotonic()
                await asyncio.sleep(pause)
        finally:
            await self._line.close()

    async def turn(self) -> float:
        """Look at the feed once. After how many seconds to look again, unless rung for."""
        connection = await self._line.connected()
        rows = await connection.fetch(_ENDPOINTS)
        full = {row[0] for row in await connection.fetch(_FULL)} if rows else set()
        endpoints = [self._endpoint(*row) for row in rows if row[0] not in full]
        self._looked = {
            endpoint.id: self._looked.get(endpoint.id, Looked(endpoint.position, time.monotonic()))
            for endpoint in endpoints
        }
        if not endpoints:
            return _TURN_SECONDS
        front = max(endpoint.position for endpoint in endpoints)
        behind = [endpoint for endpoint in endpoints if endpoint.position < front]
        more = pending = False
        if behind:
            more, _ = await _read(connection, behind, min(endpoint.position for endpoint in behind))
        abreast = [endpoint for endpoint in endpoints if endpoint.position >= front]
        more_ahead, pending = await _read(connection, abreast, front)
        await self._write(connection, endpoints)
        return 0 if more or more_ahead else _PENDING_SECONDS if pending else _TURN_SECONDS

    def _endpoint(self, id_: UUID, after_txid: int, after_id: int, topics: Sequence[str]) -> Endpoint:
        stored = Cursor(after_txid, after_id)
        looked = self._looked.get(id_)
        return Endpoint(id_, stored, stored if looked is None else max(stored, looked.position), topics)

    async def _write(self, connection: Connection, endpoints: Iterable[Endpoint]) -> None:
        now = time.monotonic()
        stale = now - _STORE_SECONDS
        to_store = [
            each
            for each in endpoints
            if each.found or (each.position > each.stored and self._looked[each.id].stored_at < stale)
        ]
        stored: set[UUID] = set()
        if to_store:
            async with connection.transaction():
                rows = await connection.fetch(_LOCK, [endpoint.id for endpoint in to_store])
                locked = {id_: Cursor(after_txid, after_id) for id_, after_txid, after_id in rows}
                for endpoint in to_store:
                    if endpoint.id in locked:
                        stored.add(endpoint.id)
                        endpoint.leave_out(locked[endpoint.id])
                await connection.execute(_FAN_OUT, *_arguments([each for each in to_store if each.id in stored]))
        for endpoint in endpoints:
            if endpoint.id in stored:
                self._looked[endpoint.id] = Looked(endpoint.position, now)
            elif not endpoint.found:  # else somebody else has the row
                self._looked[endpoint.id] = self._looked[endpoint.id]._replace(position=endpoint.position)
        if any(endpoint.found for endpoint in to_store):
            self._made()

    async def _forget(self) -> None:
        """Old lines of the log."""
        if time.monotonic() > self._forgot_at + _FORGET_SECONDS:
            await (await self._line.connected()).execute(_FORGET, _KEPT_DAYS, _FORGET_MAX)
            self._forgot_at = time.monotonic()


async def _read(connection: Connection, endpoints: Sequence[Endpoint], after: Cursor) -> tuple[bool, bool]:
    """Find for each what comes after its position, none of which is before `after`. Whether there is more to read, and
    whether some of it cannot be read yet."""
    by_topic: defaultdict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        for topic in endpoint.topics:
            by_topic[topic].append(endpoint)
    limit = max(1, min(_EVENTS_MAX, _ROWS_MAX // len(endpoints)))
    topics = list(by_topic) if len(by_topic) <= _TOPICS_MAX else None
    reading = await read_events(connection, after, topics, limit)
    for event in reading.events:
        listeners = {endpoint.id: endpoint for topic in event.topics for endpoint in by_topic.get(topic, ())}
        for endpoint in listeners.values():
            if event.cursor > endpoint.position:
                endpoint.found.append(event)
    for endpoint in endpoints:
        endpoint.position = max(endpoint.position, reading.reached)
    return reading.more, reading.pending


def _arguments(endpoints: Sequence[Endpoint]) -> list[Sequence[object]]:
    """Of _FAN_OUT: the positions, the deliveries, and the events, each of which travels once."""
    events = {event.cursor: event for endpoint in endpoints for event in endpoint.found}
    numbers = {cursor: number for number, cursor in enumerate(events, 1)}
    new = [
        (new_id(), endpoint.id, *event.cursor, numbers[event.cursor])
        for endpoint in endpoints
        for event in endpoint.found
    ]
    return [
        [endpoint.id for endpoint in endpoints],
        [endpoint.position.txid for endpoint in endpoints],
        [endpoint.position.id for endpoint in endpoints],
        *([row[place] for row in new] for place in range(5)),
        [event.name for event in events.values()],
        [body_of(event.as_json()) for event in events.values()],
    ]
