"""Migrations of the schema, by Alembic; run by `souk migrate`."""
