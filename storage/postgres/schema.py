"""The schema of the database: brought up to date by `souk migrate`, checked by every process at its start."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.settings import Settings, SettingsError
from storage.tables import partitions

# One migration at a time, whoever starts it: any number that nobody else locks.
_LOCK = text("SELECT pg_advisory_xact_lock(5079123)")


class SchemaError(Exception):
    """The database is not at the version this program needs; the text says what to do."""


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    config.attributes["connection"] = connection
    return config


async def migrate(engine: AsyncEngine, settings: Settings) -> None:
    """Bring the schema to the newest version, and install the partitions on the first run. Safe to run at any time, by
    any number of processes. Raises SettingsError when the partitions are installed in another number."""
    async with engine.begin() as connection:
        await connection.execute(_LOCK)
        await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), "head"))
        installed = await connection.scalar(select(func.count()).select_from(partitions))
        if not installed:
            await connection.execute(insert(partitions), [{"id": number} for number in range(settings.partitions)])
    await check(engine, settings)


async def check(engine: AsyncEngine, settings: Settings) -> None:
    """Raises SchemaError or SettingsError when the database is not the one these settings are for."""
    newest = ScriptDirectory.from_config(alembic_config()).get_current_head()
    async with engine.connect() as connection:
        present = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
        if present != newest:
            message = f"the database is at version {present}, this program needs {newest}: run `souk migrate`"
            raise SchemaError(message)
        installed = await connection.scalar(select(func.count()).select_from(partitions))
    if installed != settings.partitions:
        message = (
            f"SOUK_PARTITIONS is {settings.partitions}, but the database was installed with {installed}: "
            f"set SOUK_PARTITIONS={installed}"
        )
        raise SettingsError(message)
