"""What an error of the database means: SQLSTATE classes of Postgres, result codes of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pipeline.errors import PartError, Permanent, StorageFull, Transient, not_allowed

_FULL_STATE = "53100"
#: SQLSTATEs, by their beginnings, of what a person can mend while jobs wait.
_NOT_ALLOWED_STATES = (
    "28",  # a wrong user or password
    "3D000",  # no such database
    "42501",  # a privilege that is missing
)
#: SQLSTATEs, by their beginnings, after which the same transaction may succeed. 57014 is not among them: a statement that
#: is cancelled for its length would be cancelled again.
_TRANSIENT_STATES = (
    "08",  # the connection
    "25006",  # read-only: a standby, as long as a failover lasts
    "25P03",  # idle for too long in a transaction
    "40001",  # serialization failure
    "40003",  # it is not known whether the statement was completed
    "40P01",  # deadlock
    "53",  # out of memory, of connections, of other room
    "55006",  # in use
    "55P03",  # a lock was not to be had
    "57P",  # shut down, starting up, crashed
    "58000",
    "58030",  # its disk fails
)
#: Primary result codes of SQLite. READONLY and CANTOPEN are the folder's permissions or its mount, never one row.
_NOT_ALLOWED_CODES = frozenset({sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
_TRANSIENT_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PROTOCOL,
    }
)


class NoConnectionFree(Transient):
    """Every connection of this process is in use: the transaction has not begun."""


class ConstraintViolated(Permanent):
    """A key or a check of the schema forbids what was to be written."""


def sql_error(error: DBAPIError) -> PartError:
    """What the error means. Its text is the driver's, without the statement: that stands in the log, as its cause."""
    text = str(error.orig)
    if isinstance(error, IntegrityError):
        return ConstraintViolated(text)
    state: str | None = getattr(error.orig, "sqlstate", None)
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    if state is not None:
        if state == _FULL_STATE:
            return StorageFull(text)
        if state.startswith(_NOT_ALLOWED_STATES):
            return not_allowed(text)
        return Transient(text) if state.startswith(_TRANSIENT_STATES) else Permanent(text)
    if code is not None:
        primary = code & 0xFF
        if primary == sqlite3.SQLITE_FULL:
            return StorageFull(text)
        if primary in _NOT_ALLOWED_CODES:
            return not_allowed(text)
        return Transient(text) if primary in _TRANSIENT_CODES else Permanent(text)
    # No code: the driver itself found the server or the connection gone.
    away = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return Transient(text) if away else Permanent(text)


@contextmanager
def sql_errors() -> Iterator[None]:
    """Raises the database's errors as Transient or Permanent."""
    try:
        yield
    except DBAPIError as error:
        raise sql_error(error) from error
    except PoolTimeout as error:
        raise NoConnectionFree(str(error)) from error
