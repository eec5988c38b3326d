"""The tables, the documents and the migrations say the same."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from commands.document import STORED
from storage.postgres.connection import engine
from storage.postgres.schema import migrate
from storage.settings import Settings
from storage.tables import metadata


def test_every_document_and_record_fits_its_table() -> None:
    assert {"nfts", "accounts", "deposits", "postings", "events"} <= {stored.table for stored in STORED.values()}
    for kind, stored in STORED.items():
        table = metadata.tables[stored.table]
        assert set(stored.fields) <= set(table.columns.keys()), kind
        assert not stored.key or set(stored.key) == {column.name for column in table.primary_key}
        given = {name for name, column in table.columns.items() if column.identity or column.server_default is not None}
        required = {name for name, column in table.columns.items() if not column.nullable} - given
        only_a_lock = stored.fields == stored.key
        assert only_a_lock or required <= {*stored.fields, stored.moment}, kind


# Alembic reads the database back, where SQLAlchemy knows no such type as xid8.
@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
async def test_the_migrations_make_the_tables(settings: Settings) -> None:
    pool = engine(settings)
    async with pool.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    await pool.dispose()
    assert differences == []


async def test_migrating_again_changes_nothing(settings: Settings) -> None:
    pool = engine(settings)
    await migrate(pool, settings)
    await migrate(pool, settings)
    await pool.dispose()


def test_every_constraint_and_index_has_a_name_of_its_own() -> None:
    names = [index.name for table in metadata.tables.values() for index in table.indexes]
    assert len(names) == len(set(names))
    assert all(names)
