"""Commits at their most delicate: kept waiting by the database, refused by it, or done without an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

from storage.settings import Settings
from tests.deadline import eventually
from tests.installation import connected, with_database

SOCKET = ".s.PGSQL.5432"
CHUNK = 65_536

_HELD = """
CREATE FUNCTION wait_to_commit() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER held AFTER {event} ON commands DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait_to_commit();
"""
_RELEASED = "DROP TRIGGER held ON commands; DROP FUNCTION wait_to_commit()"
_HELD_NOW = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'
"""
_REFUSED = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no outcome''; END';
CREATE TRIGGER refused BEFORE UPDATE ON commands FOR EACH ROW EXECUTE FUNCTION refuse();
"""
_PERMITTED = "DROP TRIGGER refused ON commands; DROP FUNCTION refuse()"


@asynccontextmanager
async def commits_held(
    settings: Settings, event: Literal["INSERT", "UPDATE"]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Within, a transaction that has accepted commands (INSERT) or finished some (UPDATE) waits in the middle of its
    COMMIT. Gives what waits until one does."""
    async with connected(settings) as holder, connected(settings) as observer:
        await holder.execute("SELECT pg_advisory_lock(1)")
        await observer.execute(_HELD.format(event=event))

        async def one_is_held() -> bool:
            return bool(await observer.fetchval(_HELD_NOW))

        try:
            yield lambda: eventually(one_is_held, claim="no transaction comes to its COMMIT")
        finally:
            await holder.execute("SELECT pg_advisory_unlock(1)")
            await observer.execute(_RELEASED)


@asynccontextmanager
async def outcomes_refused(settings: Settings) -> AsyncIterator[None]:
    """Within, the database refuses whatever outcome is written."""
    async with connected(settings) as connection:
        await connection.execute(_REFUSED)
        yield
        await connection.execute(_PERMITTED)


class Wire:
    """Between us and PostgreSQL: `settings` lead through it. `lost` counts the answers that it lost; `held` is set when
    it holds a COMMIT back."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        url = settings.database_url.get_secret_value()
        [sockets] = parse_qs(urlsplit(url).query)["host"]
        self._server = f"{sockets}/{SOCKET}"
        self.path = directory / SOCKET
        self.settings = with_database(settings, url.replace(f"host={quote(sockets, safe='/')}", f"host={directory}"))
        self._losing = False
        self.lost = 0
        self._holding = False
        self.held = asyncio.Event()
        self._released = asyncio.Event()

    def lose_the_answer_to_a_commit(self) -> None:
        """The next transaction is committed, and its client sees the connection break instead of hearing so."""
        self._losing = True

    def hold_a_commit_back(self) -> None:
        """The next COMMIT stays here until it is released, as if its client had fallen asleep before it."""
        self._holding = True

    def release(self) -> None:
        """What was held back goes on."""
        self._released.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._server)

        async def ask() -> None:
            while words := await reader.read(CHUNK):
                if self._holding and b"COMMIT" in words:
                    self._holding = False
                    self.held.set()
                    await self._released.wait()
                to_server.write(words)

        async def answer() -> None:
            while words := await from_server.read(CHUNK):
                if self._losing and b"COMMIT\0" in words:
                    self._losing = False
                    self.lost += 1
                    return
                writer.write(words)

        both = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        with suppress(OSError):
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        for end in (writer, to_server):
            end.close()


@asynccontextmanager
async def wire_to(settings: Settings) -> AsyncIterator[Wire]:
    with TemporaryDirectory() as directory:
        wire = Wire(settings, Path(directory))
        server = await asyncio.start_unix_server(wire.carry, wire.path)
        try:
            yield wire
        finally:
            server.close()
