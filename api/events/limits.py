"""Places: how many streams, WebSockets among them, a credential has open at this process. Each costs memory for as long
as it is open, whether anything is told on it or not."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.problems import Problem
from storage.keys import Credential


class Places:
    """So many for each credential."""

    def __init__(self, places_max: int) -> None:
        self._max = places_max
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """By all."""
        return self._taken.total()

    @contextmanager
    def one(self, credential: Credential) -> Iterator[None]:
        """A place for as long as the context lasts. Raises Problem 429."""
        if self._taken[credential.id] >= self._max:
            raise Problem(429, "too_many_requests", "The key has too many open streams.", limit=self._max)
        self._taken[credential.id] += 1
        try:
            yield
        finally:
            self._taken[credential.id] -= 1
            if not self._taken[credential.id]:
                del self._taken[credential.id]
