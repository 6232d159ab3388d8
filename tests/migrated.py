"""Databases with the schema and no rows. Alembic makes the first one of a process, and the others are copies of it.

Alembic takes 55 ms of the processor for SQLite, which was a quarter of a small test of the harness. tests/contract/test_database.py
tests the migrations themselves.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from sqlalchemy import make_url

from storage.database import Database, migrate
from testbed.pgbouncer import through_pgbouncer


def migrated_database(url: str) -> Database:
    """The database of the URL with the schema. A SQLite file that is there already keeps its rows."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_empty_sqlite())
    database = opened(url)
    migrate(database)  # it only looks, if the schema is there
    return database


def opened(url: str) -> Database:
    """The database of the URL, as it is. Through PgBouncer it prepares no statements, as with DATABASE_PREPARES=false."""
    return Database(url, prepares=not through_pgbouncer(url))


@cache
def _empty_sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "empty.db")
        with closing(Database(f"sqlite:///{file}")) as database:
            migrate(database)
        return file.read_bytes()  # closing the last connection has moved everything from the WAL into the file
