"""Timers: scheduled commands become accepted when the database's clock says so, whichever worker looks first."""

import asyncio
import logging
from collections.abc import Callable, Collection
from uuid import UUID

from storage.journal.promote import promote
from storage.postgres.connection import Line, is_weather
from storage.settings import Settings

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.25
_DUE_MAX = 1_000
_STATEMENT_SECONDS = 10.0


class Timers:
    """Promotes what is due; `accepted` is told the (partition, id) pairs."""

    def __init__(self, settings: Settings, accepted: Callable[[Collection[tuple[int, UUID]]], None]) -> None:
        self._accepted = accepted
        self._line = Line(settings, "timers", timeout_seconds=_STATEMENT_SECONDS, pinned_plans=True)

    async def run(self) -> None:
        """Promote until cancelled."""
        try:
            await self._promote()
        finally:
            await self._line.close()

    async def _promote(self) -> None:
        while True:
            try:
                due = await promote(await self._line.connected(), _DUE_MAX)
                self._accepted(due)
                if len(due) == _DUE_MAX:
                    continue
            except Exception as error:
                if not is_weather(error):
                    raise
                logger.warning("timers are not promoted: %r", error)
                self._line.doubt(error)
            await asyncio.sleep(_TURN_SECONDS)
