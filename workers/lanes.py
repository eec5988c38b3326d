"""Read this first: the life of a batch.

A lane is one loop: take the ready partitions that no other lane has, run one batch over them, tell who waits, repeat.

    ready partitions ─▶ begin under their fences ─▶ claim ─▶ load ─▶ decide (pure) ─▶ write ─▶ COMMIT ─▶ finish

Doorbells and the sweeper make partitions ready; the journal says what there is to do in them. Whatever goes wrong, the
transaction is gone and the commands are still accepted, so the answer to bad weather is the same batch again. Only a
write that the database refuses, which is a bug of ours, is answered by going on command by command until the culprit is
found and set aside as failed.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from uuid import UUID

from commands.outcome import Status
from storage.journal.unit_of_work import Fenced
from storage.postgres.connection import Connection, Line, is_weather
from storage.settings import Settings
from workers.batch import Batch, Hand, clear, run_batch, run_isolated, run_suspect

logger = logging.getLogger(__name__)

STATEMENT_SECONDS = 30.0
_BACKOFF_SECONDS = (0.05, 2.0)
_FENCED_SECONDS = 0.02
"""In which the leases look which partitions of the batch are still ours; those go on."""


class Lanes:
    """The lanes of one worker.

    `fences` is what it may drain and `deaths` how many workers died with some of that, both kept true by its leases;
    `finished` is told of what is done; `fenced` is set when a lane lets go of what it may drain no more; `totals` are
    batches, commands and round trips so far, `endings` how the commands ended, `retried` how many commands were begun
    in vain, in batches that are repeated.
    """

    def __init__(self, settings: Settings, finished: Callable[[Batch], None]) -> None:
        self._settings = settings
        self._finished = finished
        self.fenced = asyncio.Event()
        self.fences: dict[int, int] = {}
        self.deaths: dict[int, int] = {}
        self.totals = (0, 0, 0)
        self.endings: Counter[Status] = Counter()
        self.retried = 0
        self._hands: dict[int, Hand] = {}
        self._ready: dict[int, None] = {}  # in the order in which they became ready
        self._rung = asyncio.Event()
        self._stopping = False
        self._passed: dict[int, int] = {}
        self.busy: set[int] = set()

    def ring(self, partitions: Iterable[int]) -> None:
        """There may be work in these partitions. Others' are passed over."""
        for partition in partitions:
            if partition in self.fences:
                self._ready.setdefault(partition)
        self._rung.set()

    def forget_others(self) -> None:
        """What was suspect here may be beyond doubt when it comes back."""
        for partition in self.deaths.keys() - self.fences.keys():
            del self.deaths[partition]
            self._passed.pop(partition, None)

    def in_hand(self) -> list[tuple[int, UUID]]:
        """The (partition, id) of the commands in the batches under way."""
        return list(chain.from_iterable(hand.commands for hand in self._hands.values()))

    @property
    def idle(self) -> bool:
        """Whether nothing is ready and no batch is under way."""
        return not self.busy and not any(partition in self.fences for partition in self._ready)

    def stop(self) -> None:
        """Finish the batches in hand and take no more."""
        self._stopping = True
        self._rung.set()

    def _take(self) -> dict[int, int]:
        """Ready partitions for one batch, and their fences: at most a lane's share, so that the others find some. A
        suspect one comes alone."""
        share = -(-len(self.fences) // self._settings.lanes)
        free = [partition for partition in self._ready if partition in self.fences and partition not in self.busy]
        suspects = [partition for partition in free if partition in self.deaths]
        if suspects:
            free = suspects[:1]
        taken = {partition: self.fences[partition] for partition in free[:share]}
        for partition in taken:
            del self._ready[partition]
        self.busy |= taken.keys()
        return taken

    async def _run(self, connection: Connection, fences: dict[int, int], hand: Hand, *, refused: bool) -> Batch:
        [partition, *others] = fences
        if partition not in self.deaths:
            run = run_isolated if refused else run_batch
            return await run(connection, self._settings, fences, self._settings.batch_max, hand=hand)
        assert not others  # noqa: S101 - a suspect comes alone
        fence = fences[partition]
        batch, empty = await run_suspect(connection, self._settings, partition, fence, self.deaths[partition], hand)
        self._passed[partition] = self._passed.get(partition, 0) + len(batch.finished)
        if empty or self._passed[partition] >= self._settings.batch_max:
            await clear(connection, partition, fence)
            self.deaths.pop(partition, None)
            self._passed.pop(partition, None)
        return batch

    async def run_lane(self, number: int) -> None:
        """One lane, until stopped."""
        line = Line(self._settings, f"lane {number}", timeout_seconds=STATEMENT_SECONDS, pinned_plans=True)
        pause, pause_max = _BACKOFF_SECONDS
        hand = self._hands[number] = Hand()
        refused = False
        while not self._stopping:
            fences = self._take()
            if not fences:
                self._rung.clear()
                await self._rung.wait()
                continue
            try:
                batch = await self._run(await line.connected(), fences, hand, refused=refused)
                refused, pause = False, _BACKOFF_SECONDS[0]
                batches, commands, round_trips = self.totals
                self.totals = batches + 1, commands + len(batch.finished), round_trips + batch.round_trips
                self.endings += batch.endings
                hand.empty()
                self._finished(batch)
                again: Iterable[int] = batch.unfinished
            except Fenced:
                hand.empty()
                self.fenced.set()
                again = fences
                await asyncio.sleep(_FENCED_SECONDS)
            except Exception as error:
                again = fences
                self.retried += hand.put_back()
                if is_weather(error) or not refused:
                    logger.warning("a batch is repeated: %r", error)
                else:
                    logger.exception("a batch fails again and again")
                # Two partitions may have inserted the same user at once: one plain repeat tells that from a bug.
                refused = not is_weather(error)
                line.doubt(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
                pause = min(2 * pause, pause_max)
            finally:
                self.busy -= fences.keys()
                if fences.keys() - self.fences.keys():
                    self.fenced.set()
            self.ring(again)
        await line.close()
