"""Translates the database's errors, by the SQLSTATE classes of Postgres and the result codes of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pipeline.errors import PartError, Permanent, StorageFull, Transient, not_allowed

_FULL_STATE = "53100"
#: Prefixes of SQLSTATEs that an operator can fix while jobs wait.
_NOT_ALLOWED_STATES = (
    "28",  # a wrong user or password
    "3D000",  # no such database
    "42501",  # a privilege is missing
)
#: Prefixes of SQLSTATEs after which the same transaction may succeed. 57014 (query cancelled) is left out, because a statement
#: that hit the time limit once would hit it again.
_TRANSIENT_STATES = (
    "08",  # connection error
    "25006",  # read-only: a standby during a failover
    "25P03",  # the transaction was idle for too long
    "40001",  # serialization failure
    "40003",  # it is not known whether the statement was completed
    "40P01",  # deadlock
    "53",  # out of memory, connections or another resource
    "55006",  # object in use
    "55P03",  # lock not available
    "57P",  # the server shuts down, starts up or has crashed
    "58000",  # system error
    "58030",  # I/O error of the server's disk
)
#: Prefixes of SQLSTATEs after which nobody knows whether a commit that was under way has succeeded.
_UNKNOWN_STATES = ("08", "40003", "57P", "58030")
#: Primary result codes of SQLite. READONLY and CANTOPEN come from the folder's permissions or its mount, never from one row.
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
    """Every connection of this process is in use. The transaction did not begin."""


class OutcomeUnknown(Transient):
    """The connection broke, or the database's disk failed. If the commit was under way, it may have succeeded."""


class ConstraintViolated(Permanent):
    """The write violates a key or a check of the schema."""


def sql_error(error: DBAPIError) -> PartError:
    """Translates an error. The new text is the driver's, without the SQL statement; the log shows the statement as the cause."""
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
        if state.startswith(_UNKNOWN_STATES):
            return OutcomeUnknown(text)
        return Transient(text) if state.startswith(_TRANSIENT_STATES) else Permanent(text)
    if code is not None:
        primary = code & 0xFF
        if primary == sqlite3.SQLITE_FULL:
            return StorageFull(text)
        if primary in _NOT_ALLOWED_CODES:
            return not_allowed(text)
        if primary == sqlite3.SQLITE_IOERR:
            return OutcomeUnknown(text)
        return Transient(text) if primary in _TRANSIENT_CODES else Permanent(text)
    # There is no code if the driver itself noticed that the server or the connection is gone.
    away = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return OutcomeUnknown(text) if away else Permanent(text)


@contextmanager
def sql_errors() -> Iterator[None]:
    """Raises the database's errors as Transient or Permanent."""
    try:
        yield
    except DBAPIError as error:
        raise sql_error(error) from error
    except PoolTimeout as error:
        raise NoConnectionFree(str(error)) from error
