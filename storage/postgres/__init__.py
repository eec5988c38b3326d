"""Connections to PostgreSQL, what they share, and the schema."""
