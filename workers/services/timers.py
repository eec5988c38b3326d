"""Timers: scheduled commands become accepted when the database's clock says so, whichever worker looks first."""

import asyncio
import logging
from collections.abc import Callable, Collection
from uuid import UUID

from storage.postgres.connection import Line, is_weather
from storage.settings import Settings

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.25
_DUE_MAX = 1_000
_STATEMENT_SECONDS = 10.0


def promotion(due_at: str, accepted_at: str) -> str:
    """Returns the statement that accepts up to $1 of the commands that were due at `due_at`, in the order of `run_at`
    and then of submission; the two are SQL.

    A command takes its place in the journal when it is accepted, so it gets its number now. Numbers are drawn from rows
    that have been sorted, because an UPDATE alone meets its rows in any order. And nobody passes over a row that is
    locked: of several workers the one that locks the first command that is due has the turn, and the others wait for
    its commit behind that command.
    """
    return f"""
WITH due AS MATERIALIZED (
    SELECT id, run_at, seq FROM commands WHERE status = 'scheduled' AND run_at <= {due_at}
    ORDER BY run_at, seq LIMIT $1 FOR UPDATE
), numbered AS MATERIALIZED (
    SELECT id, nextval(pg_get_serial_sequence('commands', 'seq')) AS number, {accepted_at} AS accepted_at
    FROM (SELECT id FROM due ORDER BY run_at, seq) AS sorted
)
UPDATE commands SET status = 'accepted', accepted_at = numbered.accepted_at, seq = numbered.number
FROM numbered WHERE commands.id = numbered.id
RETURNING partition, commands.id
"""  # noqa: S608 - of our own words


# The time of the statement is one for all of it, so the index finds what is due; clock_timestamp() would be compared
# with every timer there is.
_PROMOTE = promotion("statement_timestamp()", "clock_timestamp()")


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
                due = await (await self._line.connected()).fetch(_PROMOTE, _DUE_MAX)
                self._accepted([(row["partition"], row["id"]) for row in due])
                if len(due) == _DUE_MAX:
                    continue
            except Exception as error:
                if not is_weather(error):
                    raise
                logger.warning("timers are not promoted: %r", error)
                self._line.doubt(error)
            await asyncio.sleep(_TURN_SECONDS)
