"""A worker whose marketplace knows a poison: `python -m tests.system.poisoned`."""

import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from commands.book import Book
from commands.command import SYSTEM, Command, Envelope
from commands.document import Need
from storage.settings import load_settings
from workers.worker import SoukWorker

KIND = "test.poison"


def declare() -> None:
    """In the worker alone: the tests' own process knows the marketplace's kinds and no other."""

    class Poison(Command, kind=KIND, sent_by=SYSTEM):
        """Kills the process that executes it."""

        nft_id: int

        def asset(self, envelope_id: UUID, actor: int | None) -> str:
            return f"nft:{self.nft_id}"

        def touches(self, book: Book, envelope: Envelope) -> Iterator[Need]:
            yield from ()

        def execute(self, book: Book, envelope: Envelope) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGKILL)
            return {}


if __name__ == "__main__":
    declare()
    SoukWorker(load_settings()).run()
