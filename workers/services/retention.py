"""Retention: what is old enough is let go, a step at a time, whichever worker looks first. How is in
storage/journal/retire.py."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from storage.journal.retire import STEP_MAX, Step, expire_keys, forget_calls, retire_commands
from storage.postgres.connection import Connection, Line, is_weather
from storage.settings import Settings

logger = logging.getLogger(__name__)

TURN_SECONDS = 300.0
PACE_SECONDS = 0.1
"""Between two steps, for the sake of the lanes."""
_STATEMENT_SECONDS = 10.0

Walk = Callable[[Connection, Settings, int], Awaitable[Step]]

_WALKS: tuple[Walk, ...] = (expire_keys, retire_commands, forget_calls)


class Retention:
    """That of one worker: a turn every so often, which goes on until there is nothing more to let go."""

    def __init__(
        self,
        settings: Settings,
        *,
        turn_seconds: float = TURN_SECONDS,
        pace_seconds: float = PACE_SECONDS,
        step_max: int = STEP_MAX,
    ) -> None:
        self._settings = settings
        self._turn_seconds = turn_seconds
        self._pace_seconds = pace_seconds
        self._step_max = step_max
        self._line = Line(settings, "retention", timeout_seconds=_STATEMENT_SECONDS, pinned_plans=True)

    async def run(self) -> None:
        """Let go until cancelled. Nothing here is worth a worker: what fails is tried again at the next turn."""
        while True:
            try:
                await self.turn()
            except Exception as error:
                logger.warning("what is old is kept for now: %r", error, exc_info=None if is_weather(error) else error)
            await asyncio.sleep(self._turn_seconds)

    async def turn(self) -> None:
        """Go through all there is to let go. Between turns there is no connection."""
        try:
            for walk in _WALKS:
                await self._go(walk)
        finally:
            await self._line.close()

    async def _go(self, walk: Walk) -> None:
        looked_at = self._step_max
        while looked_at == self._step_max:
            looked_at, _ = await walk(await self._line.connected(), self._settings, self._step_max)
            await asyncio.sleep(self._pace_seconds)
