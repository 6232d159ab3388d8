"""Runs the migrations on the connection that storage.database.migrate passes in."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from storage.schema import metadata

ADVISORY_LOCK = 7_302_114_001  #: an arbitrary number; with this lock, processes that migrate at once run one after the other


def run() -> None:
    connection: Connection = context.config.attributes["connection"]
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True)
    context.run_migrations()


run()
