"""Connections to PostgreSQL: raw asyncpg for the two hot paths (accepting and executing), SQLAlchemy for reads and
operators; and which of its errors are weather."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from storage.settings import Settings

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

CONNECT_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_CHECK_INTERVAL = "500ms"
_ASLEEP = 0.8
"""Of a lock's life: how long a client may do nothing in a transaction."""

# Joins of short arrays with hot, bloated tables flip to whole-table plans at a factor of seven; these statements are
# written for index look-ups, planned once.
_PINNED_PLANS = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "plan_cache_mode": "force_generic_plan",
}


# What a read filters by is common or rare: each is planned for its own values.
_READING = {"jit": "off", "plan_cache_mode": "force_custom_plan"}

_SESSION_CLASSES = ("08", "25")
"""SQLSTATE classes that may be this session's own: a new one may lead to the new primary, or be writable."""


class Unavailable(Exception):
    """PostgreSQL cannot be used right now; nothing was decided."""


async def connect(
    settings: Settings,
    name: str,
    *,
    timeout_seconds: float,
    idle_seconds: float | None = None,
    pinned_plans: bool = False,
) -> Connection:
    """A connection of its own, at most one statement at a time, each bounded by the timeout on both sides.

    A transaction whose client falls asleep is ended by the server before a worker's locks would end, or within
    `idle_seconds`; one whose client is gone within a second, even while it waits for a lock: what it has locked is the
    next owner's.
    Raises Unavailable when the installation has another number of partitions by now.
    """
    session = {
        "jit": "off",
        "synchronous_commit": "on",  # what was acknowledged survives a crash, whatever the database's own default
        "statement_timeout": f"{int(timeout_seconds * 1000)}",
        "idle_in_transaction_session_timeout": f"{int((idle_seconds or settings.lock_seconds * _ASLEEP) * 1000)}",
        "client_connection_check_interval": _CHECK_INTERVAL,
    }
    connection: Connection = await asyncpg.connect(
        settings.database_url.get_secret_value(),
        timeout=CONNECT_SECONDS,
        command_timeout=timeout_seconds + 1,
        **_session(settings, {"application_name": f"souk {name}"}, session | (_PINNED_PLANS if pinned_plans else {})),
    )
    try:
        await _check(connection, settings)
    except BaseException:  # a cancellation too
        connection.terminate()
        raise
    return connection


async def _check(connection: Connection, settings: Settings) -> None:
    """Raises Unavailable when the database was given another number of partitions since this process began."""
    installed = await connection.fetchval("SELECT count(*) FROM partitions")
    if installed != settings.partitions:
        raise Unavailable(f"there are {installed} partitions by now, not {settings.partitions}: start anew")


class Line:
    """One connection for one loop: made when needed, made anew when broken."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        timeout_seconds: float,
        idle_seconds: float | None = None,
        pinned_plans: bool = False,
    ) -> None:
        self._settings = settings
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._idle_seconds = idle_seconds
        self._pinned_plans = pinned_plans
        self._connection: Connection | None = None

    async def connected(self) -> Connection:
        """The connection, in working order as far as anybody knows."""
        if self._connection is not None and self._connection.is_closed():
            self.drop()
        if self._connection is None:
            self._connection = await connect(
                self._settings,
                self._name,
                timeout_seconds=self._timeout_seconds,
                idle_seconds=self._idle_seconds,
                pinned_plans=self._pinned_plans,
            )
        return self._connection

    def doubt(self, error: BaseException) -> None:
        """Let go of the connection after this error, unless it is of the statement alone."""
        if not isinstance(error, asyncpg.PostgresError) or (error.sqlstate or "").startswith(_SESSION_CLASSES):
            self.drop()

    def drop(self) -> None:
        """Let go of a connection that cannot be trusted."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Take leave of the server, if it is there to hear it."""
        if self._connection is not None:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await self._connection.close(timeout=_CLOSE_SECONDS)
            self.drop()


def engine(
    settings: Settings, url: SecretStr | None = None, *, connect_seconds: float = CONNECT_SECONDS
) -> AsyncEngine:
    """The pool for reads and for operators' commands; connects when first used. `url`: to another server."""
    address = make_url((url or settings.database_url).get_secret_value()).set(drivername="postgresql+asyncpg")
    unnamed: dict[str, Any] = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
    return create_async_engine(
        address,
        pool_size=4,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=CONNECT_SECONDS,
        connect_args={
            "timeout": connect_seconds,
            "command_timeout": 60,
            **_session(settings, {}, _READING),
            **(unnamed if settings.pgbouncer else {}),
        },
    )


def _session(settings: Settings, name: Mapping[str, str], session: Mapping[str, str]) -> dict[str, Any]:
    """How a connection is made whose statements run under these session settings."""
    if not settings.pgbouncer:
        return {"server_settings": {**name, **session}}
    return {
        "server_settings": dict(name),
        "statement_cache_size": 0,
        "connection_class": _borrowed("".join(f" SET LOCAL {key} = '{value}';" for key, value in session.items())),
    }


def _borrowed(settings: str) -> type[Connection]:
    """The class of connections through PgBouncer in transaction mode, which lends another server connection to each
    transaction: so every statement is in one, the prepared ones too, and each begins with what sets its `settings`."""

    class Borrowed(asyncpg.Connection):  # type: ignore[type-arg, misc, unused-ignore]
        async def execute(self, query: str, *args: Any, **options: Any) -> Any:
            if query.startswith("BEGIN;"):
                return await super().execute(query.replace("BEGIN;", f"BEGIN;{settings}", 1), **options)
            async with self._lent():
                return await super().execute(query, *args, **options)

        async def fetch(self, *args: Any, **options: Any) -> Any:
            async with self._lent():
                return await super().fetch(*args, **options)

        async def fetchrow(self, *args: Any, **options: Any) -> Any:
            async with self._lent():
                return await super().fetchrow(*args, **options)

        async def fetchval(self, *args: Any, **options: Any) -> Any:
            async with self._lent():
                return await super().fetchval(*args, **options)

        @asynccontextmanager
        async def _lent(self) -> AsyncIterator[None]:
            if self.is_in_transaction():
                yield
            else:
                async with self.transaction():
                    yield

    return Borrowed


_WEATHER_CLASSES = ("08", "25", "40", "53", "55", "57", "58")
"""SQLSTATE classes: connection, read-only or broken transaction, rollback (serialization, deadlock), resources,
object state (lock timeout), operator intervention, system error."""


def is_weather(error: BaseException) -> bool:
    """Whether the same work may succeed when repeated: the fault is not in what we asked for."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_WEATHER_CLASSES)
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (
            error.orig is not None and is_weather(error.orig.__cause__ or error.orig)
        )
    # A terminated backend arrives as InterfaceError without a state, a killed postmaster as InternalClientError.
    return isinstance(
        error,
        asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | TimeoutError | PoolTimeout | Unavailable,
    )
