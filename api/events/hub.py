"""The hub: one reader of the feed for all streams of the process, fanned out in memory by topic.

    a notice, or a second passed ──▶ one reading after `position` ──▶ each event to the subscriptions of its topics

While nobody listens nothing is read. A subscription that resumes reads from the table, for itself, what lies between
its cursor and the hub's position, then joins the live part; what both give is told apart by its cursor, so every event
is given once, in the feed's order.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

from commands.command import Invalid
from storage.feed import Cursor, End, Reading, StoredEvent, read_end, read_events
from storage.postgres.connection import Line, Unavailable, is_weather
from storage.settings import Settings

logger = logging.getLogger(__name__)

BUFFER_MAX = 1_000
"""Events that wait for one client; with more it is cut off, and may resume."""
LOOK_SECONDS = 1.0
"""A notice may be lost: the hub looks by itself this often."""
LOOK_SECONDS_WITHOUT_NOTICES = 0.1
_PACE_SECONDS = 0.005
"""Between two readings: a busy system has a notice for each batch, and one reading finds the events of several."""
_PENDING_SECONDS, _PENDING_SECONDS_MAX = 0.01, 0.25
"""Before looking again for events that an older transaction holds back; doubled while it does."""
_RETRY_SECONDS = 0.1
_LIVE_MAX, _RESUMED_MAX = 250, 500
"""Events of one reading, for all and for one who resumes: a part of the buffer only, so that a burst overflows the
buffers of those alone who take nothing between two readings."""
_SELECTED_MAX = 50
"""So many topics are selected by PostgreSQL; where there are more, every event is read."""
_READ_SECONDS = 10.0


class Behind(Exception):
    """The client takes events more slowly than they come. It may resume from the cursor."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(str(cursor))
        self.cursor = cursor


class Subscription:
    """One client's events: `async with hub.subscribe(…) as subscription: async for event in subscription: …`.

    Entering raises Invalid for a cursor from the future, Unavailable, and what `is_weather`. Iterating raises Behind,
    and ends when the process is about to.
    """

    def __init__(self, hub: "Hub", topics: Iterable[str], after: Cursor | None) -> None:
        self._hub = hub
        self._topics = set(topics)
        self._after = after
        self._given = self._reach = Cursor(0, 0)
        self._buffer: deque[StoredEvent] = deque()
        self._heard: list[StoredEvent] = []
        self._reading: asyncio.Future[Reading] | None = None
        self._listening = self._live = self._behind = False
        self._woken = asyncio.Event()
        self.closed = False

    async def __aenter__(self) -> Self:
        self._hub.enter(self)
        try:
            position = await self._hub.ready()
            if self._after is not None:
                await self._hub.require_past(self._after)
            self._given = self._reach = self._after or position
            self._join()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the hub; whoever iterates finds the end."""
        if not self.closed:
            self.closed = True
            self._unlisten()
            self._hub.leave(self)
            self._buffer.clear()
            self._woken.set()

    @property
    def position(self) -> Cursor:
        """All up to it that is wanted has been given, and nothing after it."""
        if self._live and not self._buffer and not self.closed:
            return max(self._given, self._hub.position)
        return self._given

    def add(self, topics: Iterable[str]) -> Cursor:
        """Listen to these too; answers from where on."""
        new = set(topics) - self._topics
        self._topics |= new
        self._reading = None
        if self._listening:
            self._hub.listen(self, new)
        return max(self._reach, self._hub.position) if self._live else self._reach

    def discard(self, topics: Iterable[str]) -> None:
        """Listen to these no more."""
        gone = self._topics.intersection(topics)
        self._topics -= gone
        self._reading = None
        if self._listening:
            self._hub.unlisten(self, gone)
        self._buffer = deque(event for event in self._buffer if not self._topics.isdisjoint(event.topics))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoredEvent:
        while not self._buffer:
            if self.closed:
                raise StopAsyncIteration
            await self._wait()
        event = self._buffer.popleft()
        self._given = event.cursor
        return event

    async def take(self, seconds: float) -> list[StoredEvent]:
        """All that wait, as soon as one does; none when none comes within the time, or when `closed`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._buffer and not self.closed:
                    await self._wait()
        taken = list(self._buffer)
        if taken:
            self._buffer.clear()
            self._given = taken[-1].cursor
        return taken

    def push(self, event: StoredEvent) -> None:
        """The hub's next event; it may come once for each of its topics, and may have been read from the table."""
        if not self._live:
            if not self._heard or event.cursor > self._heard[-1].cursor:
                self._heard.append(event)
            if len(self._heard) > BUFFER_MAX:
                self._unlisten()
            return
        if event.cursor <= self._reach:
            return
        if len(self._buffer) < BUFFER_MAX:
            self._reach = event.cursor
            self._buffer.append(event)
        else:
            self._behind = True
            self._unlisten()
            self._buffer.clear()
        self._woken.set()

    async def _wait(self) -> None:
        """Until there is something new to see, in the buffer or otherwise."""
        if self._behind:
            raise Behind(self._given)
        if self._live:
            self._woken.clear()
            await self._woken.wait()
        else:
            await self._read_up()

    async def _read_up(self) -> None:
        """Read on from the table. When its end is in sight the hub is listened to as well, and one more reading finds
        all that comes before what is heard from then on."""
        if self._reading is None:
            self._reading = self._hub.resume(self._reach, self._topics, lambda: not self.closed)
        current = self._reading
        reading = await asyncio.shield(current)  # who waits with a time limit goes on with the same reading later
        if self._reading is not current or self.closed:
            return
        self._reading = None
        if reading.more:
            self._unlisten()
        heard = [event for event in self._heard if event.cursor > reading.reached]
        self._heard.clear()
        self._buffer.extend([*reading.events, *heard])
        self._reach = heard[-1].cursor if heard else reading.reached
        if not self._buffer:
            self._given = self._reach
        if self._listening:
            self._live = True
        elif not reading.more:
            self._join()

    def _join(self) -> None:
        """Listen to the hub from here on; live at once unless it is ahead."""
        self._listening = True
        self._hub.listen(self, self._topics)
        self._live = self._hub.position <= self._reach

    def _unlisten(self) -> None:
        if self._listening:
            self._listening = self._live = False
            self._heard.clear()
            self._hub.unlisten(self, self._topics)


class Hub:
    """Whoever listens, and the reading for them. `run` it as long as the process serves."""

    def __init__(self, settings: Settings) -> None:
        self._ahead = Line(settings, "feed", timeout_seconds=_READ_SECONDS, pinned_plans=True)
        self._behind = Line(settings, "resume", timeout_seconds=_READ_SECONDS, pinned_plans=True)
        self._turn = asyncio.Lock()
        self._subscriptions: set[Subscription] = set()
        self._listeners: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._position: Cursor | None = None
        self._starting: asyncio.Future[Cursor] | None = None
        self._wanted = asyncio.Event()
        self._again = asyncio.Event()
        self._pending_seconds = _PENDING_SECONDS
        self._draining = False
        self.readings = 0
        self.notices_work: Callable[[], bool] = lambda: False

    def subscribe(self, topics: Iterable[str], after: Cursor | None = None) -> Subscription:
        """Events of these topics, by their stored names, after the cursor; from now on when there is none."""
        return Subscription(self, topics, after)

    async def page(self, after: Cursor | None, topics: Iterable[str], limit: int) -> Reading:
        """One reading of the table. Raises as entering a subscription does."""
        async with self._turn:
            end = await self._end(self._behind)
            if after is None:
                return Reading([], end.cursor, more=False, pending=False)
            _require_past(after, end.next_txid)
            return await self._read(self._behind, after, list(topics), limit)

    def heard(self) -> None:
        """A notice: there may be something new."""
        self._again.set()

    def drain(self) -> None:
        """The process is about to end: so do all subscriptions, and nobody enters any more."""
        self._draining = True
        for subscription in list(self._subscriptions):
            subscription.close()

    async def close(self) -> None:
        async with self._turn:
            for line in (self._ahead, self._behind):
                await line.close()

    async def run(self) -> None:
        """Read for those who listen, until cancelled."""
        while True:
            await self._wanted.wait()
            self._again.clear()
            seconds = await self._look()
            if seconds:
                await asyncio.sleep(_PACE_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._again.wait()

    # -- for subscriptions

    @property
    def position(self) -> Cursor:
        """Everything up to it has been told to those who listen. Known while anybody has entered."""
        assert self._position is not None  # noqa: S101 - see above
        return self._position

    def enter(self, subscription: Subscription) -> None:
        if self._draining:
            raise Unavailable("the process is about to end")
        self._subscriptions.add(subscription)
        self._wanted.set()

    def leave(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            self._wanted.clear()
            self._position = None

    async def ready(self) -> Cursor:
        """The position, once it is known."""
        if self._position is None:
            if self._starting is None:
                self._starting = asyncio.get_running_loop().create_future()
                self._starting.add_done_callback(lambda starting: starting.cancelled() or starting.exception())
                self._again.set()
            return await asyncio.shield(self._starting)
        return self._position

    async def require_past(self, cursor: Cursor) -> None:
        """Raises Invalid for what can be no cursor yet."""
        if cursor > self.position:
            async with self._turn:
                _require_past(cursor, (await self._end(self._behind)).next_txid)

    def listen(self, subscription: Subscription, topics: Iterable[str]) -> None:
        for topic in topics:
            self._listeners[topic].add(subscription)

    def unlisten(self, subscription: Subscription, topics: Iterable[str]) -> None:
        for topic in topics:
            listeners = self._listeners[topic]
            listeners.discard(subscription)
            if not listeners:
                del self._listeners[topic]

    def resume(self, after: Cursor, topics: Iterable[str], wanted: Callable[[], bool]) -> "asyncio.Task[Reading]":
        """A reading for one; bad weather delays it for as long as it is wanted."""
        return asyncio.create_task(self._resume(after, list(topics), wanted))

    # -- the reading

    async def _resume(self, after: Cursor, topics: list[str], wanted: Callable[[], bool]) -> Reading:
        while wanted():
            try:
                async with self._turn:
                    return await self._read(self._behind, after, topics, _RESUMED_MAX)
            except Exception as error:
                if not is_weather(error):
                    raise
                logger.warning("a stream waits to resume: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)
        return Reading([], after, more=False, pending=False)

    async def _look(self) -> float:
        """One reading for all. Answers after how many seconds the next one is due, if there is no notice."""
        try:
            if self._position is None:
                self._begin((await self._end(self._ahead)).cursor)
            if self._position is None:
                return LOOK_SECONDS
            before = self._position
            asked = list(self._listeners) if len(self._listeners) <= _SELECTED_MAX else None
            reading = await self._read(self._ahead, before, asked, _LIVE_MAX)
        except Exception as error:
            logger.warning("streams wait for events: %s", error, exc_info=None if is_weather(error) else error)
            self._fail(error)
            return _RETRY_SECONDS
        if asked is not None and self._listeners.keys() - asked:
            return 0  # somebody came meanwhile whose events were not asked for
        self._tell(reading)
        if reading.more:
            return 0
        if not reading.pending or reading.reached > before:
            self._pending_seconds = _PENDING_SECONDS
        if reading.pending:
            seconds = self._pending_seconds
            self._pending_seconds = min(2 * seconds, _PENDING_SECONDS_MAX)
            return seconds
        return LOOK_SECONDS if self.notices_work() else LOOK_SECONDS_WITHOUT_NOTICES

    def _begin(self, position: Cursor) -> None:
        if self._subscriptions:
            self._position = position
        if self._starting is not None:
            self._starting.set_result(position)
            self._starting = None

    def _fail(self, error: Exception) -> None:
        if self._starting is not None:
            self._starting.set_exception(error)
            self._starting = None

    def _tell(self, reading: Reading) -> None:
        for event in reading.events:
            for topic in event.topics:
                for subscription in tuple(self._listeners.get(topic, ())):
                    subscription.push(event)
        self._begin(reading.reached)

    async def _end(self, line: Line) -> End:
        self.readings += 1
        try:
            return await read_end(await line.connected())
        except Exception as error:
            line.doubt(error)
            raise

    async def _read(self, line: Line, after: Cursor, topics: list[str] | None, limit: int) -> Reading:
        self.readings += 1
        try:
            return await read_events(await line.connected(), after, topics, limit)
        except Exception as error:
            line.doubt(error)
            raise


def _require_past(cursor: Cursor, next_txid: int) -> None:
    if cursor.txid >= next_txid:
        raise Invalid(("after", "is a cursor from the future"))
