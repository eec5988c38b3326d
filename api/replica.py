"""Where reads are read: on the replica, if there is one and it answers, else on the primary.

A replica is a little behind, so what must not be, receipts and keys, is never asked here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.postgres.connection import is_weather

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = 3.0
_AWAY_SECONDS = 5.0
"""How long a replica that did not answer is left alone; then one read tries it."""


class Reader:
    """Reads on the one or the other."""

    def __init__(self, primary: AsyncEngine, replica: AsyncEngine | None = None) -> None:
        self._primary = primary
        self._replica = replica
        self._away_until = float("-inf")

    async def read(self, view: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
        """What the view answers."""
        clock = asyncio.get_running_loop().time
        if self._replica is not None and clock() >= self._away_until:
            if self._away_until > 0:
                self._away_until = clock() + _AWAY_SECONDS  # the others go on without it while this one tries
            try:
                async with asyncio.timeout(_ANSWER_SECONDS), self._replica.connect() as connection:
                    answer = await view(connection)
            except Exception as error:
                if not is_weather(error):
                    raise
                logger.warning("the replica does not answer: %r", error)
                self._away_until = clock() + _AWAY_SECONDS
            else:
                self._away_until = float("-inf")
                return answer
        async with self._primary.connect() as connection:
            return await view(connection)
