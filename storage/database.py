"""One SQL database, SQLite or Postgres, and its clock."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    cast,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import InvalidatePoolError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from config.roles import CONNECTIONS, SIZED, Opener
from config.settings import Settings
from pipeline.numbers import read_json, write_json
from storage.prepared import QuickConnection
from storage.silent_peers import LIBPQ, SESSION
from storage.sql_errors import sql_errors

if TYPE_CHECKING:  # Alembic takes 10 MB of memory, and most processes never migrate
    from alembic.config import Config

BUSY_TIMEOUT_MS = 30_000
READ_ONLY = "extract_image_read_only"
#: A connection to Postgres that was used within this time is used again without asking the server whether it still is one.
FRESH_SECONDS = 1.0
KEPT = 16  #: connections that stay open when nothing uses them, at most
MIGRATIONS = Path(__file__).parent / "migrations"
_SESSION_STATEMENT = "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in SESSION.items())
_MIGRATING = threading.Lock()  # Alembic keeps the running migration in a global variable


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """Milliseconds since 1970 by the database's clock. Leases and deadlines are compared with this clock only.

    Postgres uses `clock_timestamp()`, because `now()` does not advance within a transaction. SQLite uses `julianday`, because
    SQLite 3.40 has no sub-second `unixepoch`.
    """

    name = "now_ms"
    type = BigInteger()
    # Without this, SQLAlchemy compiles each statement with the clock again, which took half of a step's CPU time.
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _sqlite_now(_element: now_ms, _compiler: Any, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(now_ms, "postgresql")
def _postgres_now(_element: now_ms, _compiler: Any, **_options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


def sum_of(column: ColumnElement[int]) -> ColumnElement[int]:
    """The sum of a column, 0 of no rows."""
    return cast(func.coalesce(func.sum(column), 0), BigInteger)  # Postgres sums BIGINT to NUMERIC


class Database:
    """Transactions on one database. Thread-safe; a process makes one.

    A transaction raises the database's errors as Transient or Permanent.
    """

    def __init__(self, url: str, *, connections: int = 80, prepares: bool = True) -> None:
        """`connections`: the most that are open at once; further threads wait for up to 30 s, and then get NoConnectionFree.

        `prepares`: see open_database.
        """
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        if sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine: Engine = create_engine(
            parsed,
            pool_size=min(connections, KEPT),
            max_overflow=max(connections - KEPT, 0),
            pool_use_lifo=True,  # the connections that are used most keep the statements that they have prepared
            hide_parameters=True,  # error texts are logged, and must not contain prompts, URLs or results
            json_serializer=write_json,  # records keep the digits of their numbers
            json_deserializer=read_json,
            connect_args=_sqlite_arguments() if sqlite else _postgres_arguments(parsed, prepares=prepares),
        )
        #: SQLite allows one writer at a time. SQLite's own wait sleeps up to 0.1 s at a time, and a later writer can take the
        #: lock meanwhile. So the threads of one process wait on this lock first.
        self._writer: AbstractContextManager[object] = threading.Lock() if sqlite else nullcontext()
        if sqlite:
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            if prepares:  # else the session is a pooler's, which has settings of its own: deploy/compose/pgbouncer.ini
                event.listen(self.engine, "connect", _give_up_silent_clients)
            _ask_idle_connections(self.engine)
        self.many_writers = not sqlite  #: a transaction that waits holds up no other one
        #: For `read`. On Postgres each statement is then a transaction, which saves the trips for BEGIN and COMMIT. Its level READ
        #: COMMITTED gives each statement its own view of the data anyway.
        self._reading: dict[str, Any] = {READ_ONLY: True} if sqlite else {"isolation_level": "AUTOCOMMIT"}

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction. It commits at the end of the block, and rolls back if the block raises."""
        with self._writer, sql_errors(), QuickConnection(self.engine) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A block that only reads. On SQLite it is one transaction, and does not wait for writers.

        On Postgres each of its statements sees what was committed before it.
        """
        with sql_errors(), QuickConnection(self.engine).execution_options(**self._reading) as connection, connection.begin():
            yield connection

    def statements(self) -> AbstractContextManager[Connection]:
        """A block whose statements may write. On Postgres each of them is a transaction, which saves the trips for BEGIN and COMMIT."""
        return self.read() if self.many_writers else self.write()

    def close(self) -> None:
        self.engine.dispose()


def open_database(settings: Settings, opener: Opener) -> Database:
    """The database of DATABASE_URL, for the process that `opener` names. The caller closes it.

    With `DATABASE_PREPARES=false` no statement is prepared on the server. Between this process and Postgres may then stand a pooler that
    gives each transaction another connection to the server, such as PgBouncer with pool_mode = transaction. Nothing else here needs to
    stay with one connection: there is no SET outside of a transaction, no LISTEN, no temporary table, and the only advisory lock ends
    with its transaction.
    """
    sized = settings.database_connections if opener in SIZED else 0
    return Database(settings.database_url, connections=sized or CONNECTIONS[opener], prepares=settings.database_prepares)


def _give_up_silent_clients(connection: Any, _record: Any) -> None:
    """Has the server end this session soon if its client has fallen silent, and with it the locks that it holds."""
    connection.autocommit = True
    connection.execute(_SESSION_STATEMENT)
    connection.autocommit = False


def _ask_idle_connections(engine: Engine) -> None:
    """Has a connection that was idle for FRESH_SECONDS tested before its use, and all of them replaced if the server has closed it.

    SQLAlchemy's own `pool_pre_ping` asks before every transaction, which is one more trip for each.
    """

    def note_use(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def ask(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", 0.0) <= FRESH_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # SQLAlchemy then connects again

    event.listen(engine, "connect", note_use)
    event.listen(engine, "checkin", note_use)
    event.listen(engine, "checkout", ask)


def _postgres_arguments(url: URL, *, prepares: bool) -> dict[str, Any]:
    given: dict[str, Any] = {name: value for name, value in LIBPQ.items() if name not in url.query}
    return given if prepares else {**given, "prepare_threshold": None}


def _sqlite_arguments() -> dict[str, Any]:
    # isolation_level None turns off the driver's implicit BEGIN. That one is deferred, and caused 24,732 lock errors in a
    # test in which BEGIN IMMEDIATE caused none.
    return {"isolation_level": None, "check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000}


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # If two connections switch a new file to WAL mode at once, SQLite refuses one of them without waiting. So we retry here.
    _when_free(partial(cursor.execute, "PRAGMA journal_mode=WAL"))
    for pragma in ("synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get(READ_ONLY, False):
        connection.exec_driver_sql("BEGIN")
        return
    # SQLite's own wait sleeps longer each time, up to 0.1 s, so a later writer often takes the lock first. We wait with short
    # sleeps instead. With the web process and a worker both writing, 32 clients reached 62 % of the answers that the model's
    # time allows with SQLite's wait, and 74 % with short sleeps.
    # The driver is asked directly, because SQLAlchemy takes several times as long for each of these short statements.
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    driver.execute("PRAGMA busy_timeout=0")
    try:
        _when_free(partial(driver.execute, "BEGIN IMMEDIATE"))
    except sqlite3.OperationalError as error:
        raise OperationalError("BEGIN IMMEDIATE", None, error) from error  # as SQLAlchemy does for its own statements
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


def _when_free(execute: Callable[[], object]) -> None:
    """Calls `execute` until SQLite is not busy. Raises SQLite's error once BUSY_TIMEOUT_MS have passed."""
    ends = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    nap = 0.001
    while True:
        try:
            execute()
        except (sqlite3.OperationalError, OperationalError) as error:
            code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
            if code & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                raise
        else:
            return
        time.sleep(nap)
        nap = min(nap * 1.05, 0.01)


def migrate(database: Database) -> None:
    """Upgrades the schema to this version. It may run again, and in two processes at once.

    A newer version's schema stays as it is, because it serves this version too: see `schema_serves`.
    """
    if schema_serves(database):
        return
    from alembic import command

    config = _alembic_config()
    with _MIGRATING, database.write() as connection:
        if _serves(connection):  # another process was first
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def schema_is_current(database: Database) -> bool:
    """Whether the schema is this version's. Unlike `migrate`, this check does not import Alembic."""
    with database.read() as connection:
        return _revision(connection) == newest_revision()


def schema_serves(database: Database) -> bool:
    """Whether this version can work with the schema: its own, or a newer version's.

    While a fleet is updated, or after its processes were put back, the schema is newer than some processes. It serves them, because a
    migration only adds: see docs/adr/0052-two-versions-side-by-side.md.
    """
    with database.read() as connection:
        return _serves(connection)


def _serves(connection: Connection) -> bool:
    present = _revision(connection)
    return present is not None and present >= newest_revision()


def _revision(connection: Connection) -> str | None:
    """The revision of the last migration that ran; None if none has run."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalars(text("SELECT version_num FROM alembic_version")).all()
    return found[0] if len(found) == 1 else None


def newest_revision() -> str:
    """The revision of a fully migrated database: the number at the start of the newest migration's file name."""
    return max(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*.py"))


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # Alembic interpolates "%"
    config.set_main_option("path_separator", "os")
    return config
