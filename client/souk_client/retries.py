"""When a request is sent again: after the time that the API asks for and a growing, random one, until patience ends."""

import random

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from souk_client.errors import NoConnection, Problem, Unreachable

BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.1, 2.0
PATIENCE_SECONDS = 60.0
UNREACHED_SECONDS = 2.0
"""Patience with an address to which no connection was ever made: it is probably wrong, or nothing runs there."""


class Retries:
    """Decides for one client what is sent again, and for how many seconds; `patience` is as Client takes it."""

    def __init__(self, patience: float | None) -> None:
        self._seconds = PATIENCE_SECONDS if patience is None else patience
        self._unreached_seconds = UNREACHED_SECONDS if patience is None else patience
        self.reached = False
        """Whether a connection was ever made."""

    def attempts(self) -> AsyncRetrying:
        """Returns attempts for `async for`, each a context for `with`. The last error is raised."""
        return AsyncRetrying(retry=retry_if_exception(_passes), wait=_pause, stop=self._is_over, reraise=True)

    def _is_over(self, state: RetryCallState) -> bool:
        """Whether patience would be over at the next attempt."""
        if not isinstance(_error(state), NoConnection):
            self.reached = True
        seconds = self._seconds if self.reached else self._unreached_seconds
        return (state.seconds_since_start or 0.0) + state.upcoming_sleep >= seconds


def backoff(number: int) -> float:
    """Returns the seconds to wait before the next attempt, after so many."""
    return random.uniform(0, min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0**number))  # noqa: S311


def _passes(error: BaseException) -> bool:
    """Whether the same request may be answered a little later."""
    return isinstance(error, Unreachable) or (isinstance(error, Problem) and error.passes)


def _pause(state: RetryCallState) -> float:
    """Returns the seconds before the next attempt; all who were told the same time do not come back at once."""
    error = _error(state)
    return backoff(state.attempt_number) + (error.retry_after if isinstance(error, Problem) else 0.0)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
