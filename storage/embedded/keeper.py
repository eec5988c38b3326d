"""Keeps a child of ours running: one that ends by itself is started again, with a line on stderr.

    with EmbeddedRedis(data_dir) as redis, Keeper(redis):
        …

Within, the keeper's thread is the only one that touches the child; it wakes up when the child ends, and not before. A
child that ends soon after its start is started again after pauses that grow, and is told with what its log says.
"""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol, Self

from storage.embedded.child import EmbeddedError

STEADY_SECONDS = 10.0
"""Who lived so long is started again without a pause."""
PAUSE_SECONDS = 1.0
PAUSE_MAX_SECONDS = 30.0


class Child(Protocol):
    """What can be kept."""

    @property
    def title(self) -> str: ...

    @property
    def ended(self) -> Future[int]:
        """The exit status of the process started last, once it has ended."""
        ...

    def start_again(self, given_up: Callable[[], bool]) -> None:
        """Return when it works again. Raises EmbeddedError or OSError, soon when `given_up` comes true."""
        ...

    def why(self) -> str:
        """What it said before it ended, or where to find that."""
        ...


class Keeper:
    """Keeps one child, which works already, until the context ends; then the child is its owner's again.

    `ends` counts how often it ended; `works` is set unless it has ended and does not work again yet.
    """

    def __init__(self, child: Child) -> None:
        self.ends = 0
        self.works = threading.Event()
        self.works.set()
        self._child = child
        self._dismissed: Future[None] = Future()
        self._thread = threading.Thread(target=self._keep, name=f"keeper of {child.title}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._dismissed.set_result(None)
        self._thread.join()

    def _keep(self) -> None:
        started_at, in_a_row, failure = time.monotonic(), 0, ""
        while True:
            watched: tuple[Future[Any], ...] = (self._child.ended, self._dismissed)
            wait(watched, return_when=FIRST_COMPLETED)
            if self._dismissed.done():
                return
            if not failure:
                self.works.clear()
                self.ends += 1
                if time.monotonic() - started_at >= STEADY_SECONDS:
                    in_a_row = 0
            pause = min(PAUSE_SECONDS * 2 ** (in_a_row - 1), PAUSE_MAX_SECONDS) if in_a_row else 0.0
            sys.stderr.write(f"{self._told(pause, failure)}\n")
            wait((self._dismissed,), timeout=pause)
            in_a_row += 1
            try:
                self._child.start_again(self._dismissed.done)
            except (EmbeddedError, OSError) as error:
                failure = str(error)
            else:
                failure, started_at = "", time.monotonic()
                self.works.set()

    def _told(self, pause: float, failure: str) -> str:
        if failure:
            return f"{failure} It is tried again in {pause:g} s."
        told = f"{self._child.title} ended with status {self._child.ended.result()} and is started again"
        return f"{told} in {pause:g} s: {self._child.why()}" if pause else told
