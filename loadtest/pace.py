"""What is sent when: commands of one chain stay in order, those of different chains go side by side.

A chain is what must keep its order on the client's side, usually an item. The closed loop keeps a fixed number of
bodies under way. The open loop sends at a fixed rate whatever the answers do, and counts each latency from the moment
the command was due, so that a slow server cannot slow down its own measurement.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, NamedTuple

PARKED_MAX = 20_000
"""Commands held back for busy chains before no more are drawn: bounds memory when one chain is far too hot."""

TICK_SECONDS = 0.001
"""The shortest pause of the open loop."""


@dataclass(frozen=True, slots=True)
class Command:
    """One submission: its JSON, what keeps order with it, and the outcome that the sender's own model foresees.

    Several foreseen outcomes are separated by |.
    """

    body: bytes
    chain: str
    foreseen: str = "succeeded"
    tag: Any = None
    """Whatever the sender wants to find again beside the answer."""


class Sending(NamedTuple):
    command: Command
    due: float
    """When it should go out, by `monotonic`; latencies start here."""


Submit = Callable[[Sequence[Sending]], Awaitable[None]]


class Dispatcher:
    """Hands out a stream of commands in bodies, never two bodies with commands of one chain at the same time.

    `due` tells the time before which the command with that index must not be sent; without it all are due at once.
    """

    def __init__(self, stream: Iterable[Command], due: Callable[[int], float] | None = None) -> None:
        self._stream = iter(stream)
        self._due = due
        self._drawn = 0
        self._ended = False
        self._busy: set[str] = set()
        self._parked: dict[str, deque[Sending]] = {}
        self._parked_count = 0
        self._freed: deque[str] = deque()
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def finished(self) -> bool:
        """Nothing is left to hand out, now or later."""
        return self._ended and not self._parked

    @property
    def next_due(self) -> float:
        if self._ended:
            return inf
        return self._due(self._drawn) if self._due is not None else 0.0

    def take(self, limit: int) -> list[Sending]:
        """Up to `limit` commands for one body, in order within each chain; empty when all that are due must wait."""
        body: list[Sending] = []
        owned: set[str] = set()
        while self._freed and len(body) < limit:
            chain = self._freed.popleft()
            self._busy.add(chain)
            owned.add(chain)
            self._unpark(chain, limit, body)
        now = monotonic()
        while len(body) < limit and not self._ended and self._parked_count < PARKED_MAX and self.next_due <= now:
            due = now if self._due is None else self._due(self._drawn)
            command = next(self._stream, None)
            if command is None:
                self._ended = True
                break
            self._drawn += 1
            chain = command.chain
            if chain in self._parked or (chain in self._busy and chain not in owned):
                self._parked.setdefault(chain, deque()).append(Sending(command, due))
                self._parked_count += 1
            else:
                self._busy.add(chain)
                owned.add(chain)
                body.append(Sending(command, due))
        return body

    def done(self, body: Iterable[Sending]) -> None:
        """The answers are in: the chains of this body may go on."""
        for chain in dict.fromkeys(sending.command.chain for sending in body):
            self._busy.discard(chain)
            if chain in self._parked:
                self._freed.append(chain)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def progress(self, timeout_seconds: float | None = None) -> None:
        """Waits until some body is done, or the time is over."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await asyncio.wait([waiter], timeout=timeout_seconds)

    def _unpark(self, chain: str, limit: int, body: list[Sending]) -> None:
        parked = self._parked[chain]
        now = monotonic()
        while parked and len(body) < limit:
            sending = parked.popleft()
            body.append(sending if self._due is not None else Sending(sending.command, now))
            self._parked_count -= 1
        if not parked:
            del self._parked[chain]


async def closed_loop(
    commands: Iterable[Command], submit: Submit, *, concurrency: int, batch: int, until: float = inf
) -> None:
    """Keeps `concurrency` bodies of up to `batch` commands under way until the commands or the time run out."""
    dispatcher = Dispatcher(commands)

    async def sender() -> None:
        while not dispatcher.finished and monotonic() < until:
            body = dispatcher.take(batch)
            if body:
                await submit(body)
                dispatcher.done(body)
            elif not dispatcher.finished:
                await dispatcher.progress()

    async with asyncio.TaskGroup() as senders:
        for _ in range(concurrency):
            senders.create_task(sender())


async def open_loop(
    commands: Iterable[Command], submit: Submit, *, rate: float, batch: int, until: float = inf
) -> None:
    """Sends `rate` commands a second, in bodies of `batch` at equal distances."""
    started, distance = monotonic(), batch / rate
    dispatcher = Dispatcher(commands, lambda index: started + index // batch * distance)

    async def send(body: list[Sending]) -> None:
        await submit(body)
        dispatcher.done(body)

    async with asyncio.TaskGroup() as bodies:
        while dispatcher.next_due < until or (dispatcher.next_due == inf and not dispatcher.finished):
            while body := dispatcher.take(batch):
                bodies.create_task(send(body))
            if dispatcher.finished:
                break
            pause = dispatcher.next_due - monotonic()
            await dispatcher.progress(None if pause == inf else max(pause, TICK_SECONDS))


def first(commands: Iterable[Command], count: int | None) -> Iterable[Command]:
    return commands if count is None else islice(commands, count)
