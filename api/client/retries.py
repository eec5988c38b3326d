"""When a request is sent again: after the time that the API asks for and a growing, random one, until patience ends."""

import random

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_before_delay

from api.client.errors import Problem, Unreachable

BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.1, 2.0


def backoff(number: int) -> float:
    """Seconds to wait before the next attempt, after so many."""
    return random.uniform(0, min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0**number))  # noqa: S311


def passes(error: BaseException) -> bool:
    """Whether the same request may be answered a little later."""
    return isinstance(error, Unreachable) or (isinstance(error, Problem) and error.passes)


def pause(state: RetryCallState) -> float:
    """Seconds before the next attempt; all who were told the same time do not come back at once."""
    error = state.outcome.exception() if state.outcome is not None else None
    return backoff(state.attempt_number) + (error.retry_after if isinstance(error, Problem) else 0.0)


def attempts(patience_seconds: float) -> AsyncRetrying:
    """Attempts for `async for`, each a context for `with`. The last error is raised."""
    return AsyncRetrying(
        retry=retry_if_exception(passes), wait=pause, stop=stop_before_delay(patience_seconds), reraise=True
    )
