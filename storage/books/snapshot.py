"""A transaction that sees one moment of the database and can write nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from storage.database import READ_ONLY, Database
from storage.sql_errors import sql_errors

ROWS = 1000  #: that a query of the snapshot has in memory at once


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """A block whose statements all see the database as it is at the first of them. No writer waits for it, and it waits for none.

    The database refuses every write in the block. Rows are read in pieces, so a query with a million rows needs little memory.
    """
    options: dict[str, object] = {"yield_per": ROWS}
    sqlite = database.engine.dialect.name == "sqlite"
    options |= {READ_ONLY: True} if sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with sql_errors(), database.engine.connect().execution_options(**options) as connection, connection.begin():
        if sqlite:
            connection.exec_driver_sql("PRAGMA query_only=ON")
        try:
            yield connection
        finally:
            if sqlite:  # the connection goes back to the pool
                connection.exec_driver_sql("PRAGMA query_only=OFF")
