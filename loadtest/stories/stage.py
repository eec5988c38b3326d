"""The stage: many stories under way at once, each going on when the answers to its last step are in.

A story is a generator over a Scene. It yields a Step and is sent what came of it:

    [commands]   submitted in this order, side by side with those of other stories     → their receipts
    Rest(s)      time passes                                                            → None
    Look(path)   a read, repeated until it shows what the story waits for               → what it shows

Items belong to one story at a time, and money is counted when it is promised, so stories foresee their outcomes however
many of them are told at once. One that meets an outcome it has not foreseen ends there, and nobody touches its items
again.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import accumulate, count, islice
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from loadtest.measure import outcome_of
from loadtest.pace import Command
from loadtest.terms import Terms
from loadtest.workload import RESERVE_NANO, Item, Marketplace
from souk_client import Client, SoukError

STRAY_PERCENT = 6
"""How often somebody tries what must be refused, at each point of a story that allows for it."""
TRADERS_MIN = 8
"""No story has more parties."""
LOOK_FIRST_SECONDS, LOOK_MAX_SECONDS = 0.1, 1.0
LOOK_PATIENCE_SECONDS = 60.0
LOOKS_AT_ONCE = 8
TICK_SECONDS = 0.02

Receipt = Mapping[str, Any]


class Rest(NamedTuple):
    seconds: float


class Look(NamedTuple):
    """`shows` picks from the read's JSON what is waited for; None as long as it is not there."""

    path: str
    shows: Callable[[Any], Any]


Step = list[Command] | Rest | Look
T = TypeVar("T")
Telling = Generator[Step, Any, T]
"""A part of a story, with what comes of it."""
Story = Telling[None]
Plot = Callable[["Scene"], Story]


class OffScript(Exception):
    """Something happened that the story did not foresee."""


class Scene:
    """What one story knows, has, and can do."""

    def __init__(
        self, number: int, market: Marketplace, terms: Terms, opened: datetime, clock: Callable[[], float]
    ) -> None:
        self.number = number
        self.clock = clock
        self.market = market
        self.terms = terms
        self.chance = market.chance
        self.opened = opened
        self.now = opened + timedelta(microseconds=100 * number)
        """For what reports a time: a little later in each story, and never in the server's future."""
        self.items: list[Item] = []
        self.plot: Plot
        self.story: Story
        self.awaited = 0
        self.receipts: list[Receipt] = []

    # -- doing

    def command(
        self,
        kind: str,
        actor: int | None = None,
        /,
        *,
        foreseen: str = "succeeded",
        chain: str | None = None,
        **payload: Any,
    ) -> Command:
        """Several foreseen outcomes are separated by |. A story's commands keep their order, and so do those of any
        stories with the same chain."""
        script = self.market.script
        return script.command(kind, payload, chain or f"story:{self.number}", actor=actor, foreseen=foreseen, tag=self)

    def own(self, command: Command, foreseen: str = "succeeded") -> Command:
        """The script's command as one of this story."""
        return replace(command, foreseen=foreseen, tag=self)

    def act(
        self, kind: str, actor: int | None = None, /, *, foreseen: str = "succeeded", **payload: Any
    ) -> Telling[dict[str, Any]]:
        """One command; its result, empty when it was refused as foreseen."""
        [receipt] = yield [self.command(kind, actor, foreseen=foreseen, **payload)]
        result: dict[str, Any] = receipt.get("result") or {}
        return result

    def stray(self, code: str, kind: str, actor: int | None, /, **payload: Any) -> Telling[None]:
        """Now and then somebody tries this, and is refused."""
        if self.happens(STRAY_PERCENT):
            yield [self.command(kind, actor, foreseen=code, **payload)]

    def until(self, path: str, shows: Callable[[Any], Any]) -> Telling[Any]:
        """Reads until there is something to see."""
        return (yield Look(path, shows))

    def until_ended(self, path: str, name: str, document_id: str, *waiting: str) -> Telling[str]:
        """Reads a page until it shows the document of this id in none of the states of waiting; its state."""

        def shows(page: Any) -> Any:
            states = (each["state"] for each in page["items"] if each[name] == document_id)
            return next((state for state in states if state not in waiting), None)

        state: str = yield Look(path, shows)
        return state

    # -- choosing

    def happens(self, percent: float) -> bool:
        return self.chance.random() * 100 < percent

    def price(self) -> int:
        return self.market.price()

    def soon(self, seconds: float) -> datetime:
        return self.opened + timedelta(seconds=self.clock() + seconds)

    def rivals(self, number: int, *others: int, nano: int = 0) -> list[int]:
        """So many different users, none of the others, who can spend so much."""
        traders, money = self.market.traders, self.market.money
        start = self.chance.randrange(len(traders))
        circle = (traders[start - step] for step in range(len(traders)))
        able = (user_id for user_id in circle if user_id not in others and money[user_id] >= RESERVE_NANO + nano)
        found = list(islice(able, number))
        if len(found) < number:
            raise RuntimeError("too few traders have money left: a shorter run or more users")
        return found

    def rival(self, *others: int, nano: int = 0) -> int:
        """Somebody else, who can spend so much."""
        return self.rivals(1, *others, nano=nano)[0]

    def spend(self, user_id: int, nano: int) -> None:
        self.market.money[user_id] -= nano

    def earn(self, user_id: int, nano: int) -> None:
        if user_id in self.market.money:
            self.market.money[user_id] += nano

    @staticmethod
    def after_fee(price_nano: int, fee_bp: int) -> int:
        return price_nano - price_nano * fee_bp // 10_000

    # -- having

    def item(self) -> Telling[Item]:
        """An item that nobody has plans for; a new gift arrives when there is none."""
        item = self.market.take()
        if item is None:
            item = yield from self.arrival()
        self.items.append(item)
        return item

    def arrival(self) -> Telling[Item]:
        owner_id, facts = self.rival(), self.market.new_gift()
        yield [self.own(self.market.script.receive(facts["id"], owner_id, facts))]
        return self.market.add_item(owner_id, facts)

    def listed_item(self) -> Telling[Item]:
        item = yield from self.item()
        if item.price_nano is None:
            yield from self.set_price(item, self.price())
        return item

    def held_item(self) -> Telling[Item]:
        item = yield from self.item()
        if item.price_nano is not None:
            yield from self.set_price(item, None)
        return item

    def set_price(self, item: Item, price_nano: int | None) -> Telling[None]:
        yield from self.act("nft.set_price", item.owner_id, nft_id=item.nft_id, price_nano=price_nano)
        item.price_nano = price_nano

    def hand_over(self, item: Item, owner_id: int) -> None:
        item.owner_id, item.price_nano = owner_id, None

    def keep(self, item: Item) -> None:
        """The item is not given back when the story ends: it has left the market."""
        self.items.remove(item)


@dataclass(order=True)
class _Waiting:
    """A scene that goes on by itself at `at`, or looks again."""

    at: float
    number: int
    scene: Scene
    look: Look | None = None
    pause: float = LOOK_FIRST_SECONDS
    since: float = 0.0


class Stage:
    """An endless stream of commands from stories, drawn by their weights in `mix`; feed `note` with the answers."""

    def __init__(
        self,
        market: Marketplace,
        mix: Mapping[Plot, int],
        terms: Terms,
        opened: datetime,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if len(market.traders) < TRADERS_MIN:
            raise ValueError(f"stories need at least {TRADERS_MIN} users with money")
        self._market = market
        self._plots, self._weights = list(mix), list(accumulate(mix.values()))
        self._terms = terms
        self._opened = opened
        started = clock()
        self._clock: Callable[[], float] = lambda: clock() - started
        """Seconds since `opened`."""
        self._numbers = count()
        self._ready: deque[Command] = deque()
        self._resting: list[_Waiting] = []
        self._looking: list[_Waiting] = []
        self._begun = 0
        self.ended: Counter[Plot] = Counter()
        """How many stories were told to their end."""
        self.off_script: list[str] = []
        """What was not foreseen."""

    def commands(self) -> Iterator[Command]:
        """What goes on goes before what begins."""
        while True:
            while self._resting and self._resting[0].at <= self._clock():
                self._go_on(heappop(self._resting).scene, None)
            while not self._ready:
                self._begin()
            yield self._ready.popleft()

    def note(self, command: Command, receipt: Receipt) -> None:
        scene = command.tag
        if not isinstance(scene, Scene):
            return
        if outcome_of(dict(receipt)) not in command.foreseen.split("|"):
            self._abandon(scene, f"{outcome_of(dict(receipt))} instead of {command.foreseen}: {command.body!r}")
            return
        scene.receipts.append(receipt)
        scene.awaited -= 1
        if scene.awaited == 0:
            receipts, scene.receipts = scene.receipts, []
            self._go_on(scene, receipts)

    def owners(self) -> Mapping[int, int]:
        """By item, as the receipts tell, of those that no story is about."""
        return {item.nft_id: item.owner_id for item in self._market.items if not item.taken}

    def as_json(self) -> dict[str, Any]:
        """How many stories were told to their end, by their names; how many were not; what was not foreseen."""
        told = {f"{plot.__module__.rpartition('.')[2]}.{plot.__name__}": count for plot, count in self.ended.items()}
        under_way = self._begun - self.ended.total() - len(self.off_script)
        return {"told": dict(sorted(told.items())), "under_way": under_way, "off_script": self.off_script}

    async def attend(self, client: Client) -> None:
        """Does the looking that stories wait for, until cancelled."""
        while True:
            due: list[_Waiting] = []
            while self._looking and self._looking[0].at <= self._clock() and len(due) < LOOKS_AT_ONCE:
                due.append(heappop(self._looking))
            if due:
                await asyncio.gather(*(self._look(client, waiting) for waiting in due))
            else:
                await asyncio.sleep(TICK_SECONDS)

    async def _look(self, client: Client, waiting: _Waiting) -> None:
        assert waiting.look is not None  # noqa: S101 - it is among those that look
        try:
            shown = waiting.look.shows((await client.request("GET", waiting.look.path)).json())
        except SoukError:
            shown = None
        self.shown(waiting, shown)

    def shown(self, waiting: _Waiting, shown: Any) -> None:
        """A look was taken: the story goes on, or looks again, less often."""
        now = self._clock()
        if shown is not None:
            self._go_on(waiting.scene, shown)
        elif now - waiting.since > LOOK_PATIENCE_SECONDS:
            self._abandon(waiting.scene, f"never seen: {waiting.look}")
        else:
            waiting.at, waiting.pause = now + waiting.pause, min(waiting.pause * 1.5, LOOK_MAX_SECONDS)
            heappush(self._looking, waiting)

    def _begin(self) -> None:
        scene = Scene(next(self._numbers), self._market, self._terms, self._opened, self._clock)
        [plot] = self._market.chance.choices(self._plots, cum_weights=self._weights)
        scene.plot, scene.story = plot, plot(scene)
        self._begun += 1
        self._go_on(scene, None)

    def _go_on(self, scene: Scene, came: Any) -> None:
        try:
            step = scene.story.send(came)
        except StopIteration:
            self.ended[scene.plot] += 1
            for item in scene.items:
                item.taken = False
            return
        except OffScript as error:
            self._abandon(scene, str(error))
            return
        now = self._clock()
        match step:
            case Rest(seconds):
                heappush(self._resting, _Waiting(now + seconds, scene.number, scene))
            case Look():
                heappush(self._looking, _Waiting(now, scene.number, scene, step, since=now))
            case commands:
                scene.awaited = len(commands)
                self._ready.extend(commands)

    def _abandon(self, scene: Scene, why: str) -> None:
        if scene.awaited >= 0:
            scene.awaited = -1
            scene.story.close()
            self.off_script.append(why)
