"""The tables, the documents and the migrations say the same."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from commands.book import Account
from commands.command import KINDS, SYSTEM
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


def test_documents_with_a_held_amount_or_a_deadline_declare_it() -> None:
    held = {(kind, field) for kind, stored in STORED.items() for field in stored.fields if field.endswith("held_nano")}
    declared = {(kind, hold.amount) for kind, stored in STORED.items() for hold in stored.holds}
    assert declared == held - {(Account, "held_nano")}
    for kind, stored in STORED.items():
        assert {hold.user for hold in stored.holds} <= set(stored.fields), kind
        ends = {"expires_at", "ends_at", "deadline_at"} & set(stored.fields)
        assert ends == ({stored.deadline.at} if stored.deadline else set()), kind
        assert stored.deadline is None or KINDS[stored.deadline.timer].sent_by & SYSTEM, kind


async def test_the_view_of_holds_shows_what_documents_declare_that_they_hold(settings: Settings) -> None:
    holds = " UNION ALL ".join(
        f"SELECT '{hold.kind}' AS document_kind, id::text AS document_id, {hold.user} AS user_id, "
        f"{hold.amount} AS amount_nano FROM {stored.table} WHERE {hold.amount} > 0"
        for stored in STORED.values()
        for hold in stored.holds
    )
    pool = engine(settings)
    async with pool.connect() as connection:
        await connection.execute(text(f"CREATE TEMP VIEW declared AS {holds}"))
        views = [
            (await connection.scalar(text(f"SELECT pg_get_viewdef('{view}'::regclass)"))).rstrip(";").split("UNION ALL")
            for view in ("holds", "declared")
        ]
        await connection.rollback()
    await pool.dispose()
    ours, declared = ({" ".join(part.split()) for part in view} for view in views)
    assert len(ours) == 7
    assert ours == declared


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
