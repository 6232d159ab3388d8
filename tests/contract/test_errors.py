"""Each adapter says what its vendor's errors mean: Transient where waiting helps, Permanent where it does not.

The database's OutcomeUnknown is a Transient after which a commit may have succeeded.
"""

from __future__ import annotations

import errno
import io
import os
import resource
import socket
import sqlite3
import ssl
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from botocore import exceptions as of_botocore
from botocore.exceptions import ClientError
from kombu.exceptions import EncodeError
from kombu.exceptions import OperationalError as KombuAway
from redis import exceptions as of_redis
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, ProgrammingError

from pipeline.decode.pool import DecoderPool
from pipeline.engines.ocr.engine import OcrEngine
from pipeline.errors import FULL, NOT_ALLOWED, Permanent, StorageFull, Transient, os_errors
from pipeline.ports import ModelUnavailable
from storage.database import Database
from storage.redis.errors import redis_errors
from storage.scratch.files import FileScratch
from storage.scratch.s3 import S3Scratch
from storage.sql_errors import ConstraintViolated, NoConnectionFree, OutcomeUnknown, sql_errors
from tests.fakes.picture_files import native

MENDED = "mended by a person"  #: Transient, with a notice for the job's owner


def meaning(action) -> object:
    """What the action raises: its class, or MENDED."""
    with pytest.raises(Exception) as caught:
        action()
    error = caught.value
    if isinstance(error, StorageFull):
        assert error.notice == FULL
    return MENDED if type(error) is Transient and error.notice == NOT_ALLOWED else type(error)


def translated(errors, error) -> object:
    """What the error becomes in the block of `errors`."""

    def action():
        with errors():
            raise error

    return meaning(action)


# The operating system


@pytest.mark.parametrize(
    ("number", "means"),
    [
        *((number, StorageFull) for number in (errno.ENOSPC, errno.EDQUOT)),
        *((number, MENDED) for number in (errno.EACCES, errno.EPERM, errno.EROFS)),
        *((number, Transient) for number in (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
        *((number, Transient) for number in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH)),
        *((number, Permanent) for number in (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)),
        (errno.ENOENT, FileNotFoundError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_an_errno_says_whether_waiting_helps(number, means):
    assert translated(os_errors, OSError(number, os.strerror(number))) is means


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), TimeoutError("late")])
def test_a_connection_that_broke_without_an_errno_is_transient(error):
    assert translated(os_errors, error) is Transient


@pytest.mark.parametrize("error", [OSError("a library's"), ssl.SSLError(1, "handshake"), socket.gaierror(-3, "no name")])
def test_what_the_operating_system_did_not_raise_is_left_as_it_is(error):
    assert translated(os_errors, error) is type(error)


# Scratch as files


@pytest.fixture
def files(tmp_path):
    scratch = FileScratch(tmp_path / "scratch")
    scratch.put("job_1/a", io.BytesIO(b"a"))
    (tmp_path / "scratch" / "job_1" / "folder").mkdir()
    (tmp_path / "scratch" / "job_1" / "broken").symlink_to("/proc/self/mem")  # a read of its first page is an EIO
    return scratch


def read(files: FileScratch, key: str, size: int) -> bytes:
    with files.open(key) as file:
        return file.read(size)


@pytest.mark.parametrize(
    ("action", "means"),
    [
        (lambda files: files.open("job_1/none"), FileNotFoundError),
        (lambda files: files.open("job_1/folder"), Permanent),
        (lambda files: files.open("job_1/a/below-a-file"), Permanent),
        (lambda files: files.open(f"job_1/{'a' * 300}"), Permanent),
        (lambda files: files.put("job_1/folder", io.BytesIO(b"x")), Permanent),
        (lambda files: files.put("job_1/a/below-a-file", io.BytesIO(b"x")), Permanent),
        (lambda files: files.delete(["job_1/a/below-a-file"]), Permanent),
        (lambda files: read(files, "job_1/broken", -1), Transient),
        (lambda files: read(files, "job_1/broken", 10), Transient),
    ],
)
def test_a_folder_of_objects_says_whether_waiting_helps(files, action, means):
    assert meaning(lambda: action(files)) is means


# SQLite


@pytest.fixture
def lite(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'lite.db'}")
    run(database, "CREATE TABLE t (a INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    yield database
    database.close()


def run(database: Database, *statements: str) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statements", "means"),
    [
        (["SELECT gone FROM t"], Permanent),
        (["SELECT a FROM gone"], Permanent),
        (["INSERT INTO t VALUES (1)"], ConstraintViolated),
        (["PRAGMA query_only=ON", "INSERT INTO t VALUES (2)"], MENDED),
        (["PRAGMA max_page_count=2", "CREATE TABLE u AS SELECT zeroblob(100000)"], StorageFull),
    ],
)
def test_a_real_sqlite_says_whether_waiting_helps(lite, statements, means):
    assert meaning(lambda: run(lite, *statements)) is means


def test_a_file_that_is_no_database_is_permanent_and_one_that_can_not_be_opened_is_for_a_person(tmp_path):
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database, but text" * 100)
    assert meaning(lambda: run(Database(f"sqlite:///{garbage}"), "SELECT 1")) is Permanent
    assert meaning(lambda: run(Database(f"sqlite:///{tmp_path}"), "SELECT 1")) is MENDED


@pytest.mark.parametrize(
    ("code", "means"),
    [
        (sqlite3.SQLITE_BUSY, Transient),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Transient),
        (sqlite3.SQLITE_LOCKED, Transient),
        (sqlite3.SQLITE_NOMEM, Transient),
        (sqlite3.SQLITE_IOERR, OutcomeUnknown),
        (sqlite3.SQLITE_IOERR_FSYNC, OutcomeUnknown),
        (sqlite3.SQLITE_FULL, StorageFull),
        (sqlite3.SQLITE_CANTOPEN, MENDED),
        (sqlite3.SQLITE_READONLY, MENDED),
        (sqlite3.SQLITE_ERROR, Permanent),
        (sqlite3.SQLITE_CORRUPT, Permanent),
        (sqlite3.SQLITE_NOTADB, Permanent),
        (sqlite3.SQLITE_TOOBIG, Permanent),
        (sqlite3.SQLITE_MISMATCH, Permanent),
    ],
)
def test_a_result_code_of_sqlite_says_whether_waiting_helps(code, means):
    fault = sqlite3.OperationalError("as SQLite says it")
    fault.sqlite_errorcode = code
    assert translated(sql_errors, OperationalError("statement", {}, fault)) is means


@pytest.mark.parametrize(
    ("kind", "means"),
    [
        (OperationalError, OutcomeUnknown),
        (InterfaceError, OutcomeUnknown),
        (ProgrammingError, Permanent),
        (DatabaseError, Permanent),
    ],
)
def test_without_a_code_a_driver_that_lost_its_server_is_transient(kind, means):
    assert translated(sql_errors, kind("statement", {}, Exception("gone"))) is means


def test_a_process_whose_connections_are_all_in_use_waits(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'busy.db'}")
    database.close()
    database.engine = create_engine(database.engine.url, pool_size=1, max_overflow=0, pool_timeout=0)
    with database.read():
        assert meaning(lambda: database.read().__enter__()) is NoConnectionFree
    database.close()


# Postgres


@pytest.fixture(scope="module")
def postgres(postgres_server):
    with postgres_server.database() as url:
        database = Database(url)
        run(database, "CREATE TABLE t (a INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        yield database
        database.close()


@pytest.mark.parametrize(
    ("state", "means"),
    [
        ("08006", OutcomeUnknown),  # the connection
        ("08P01", OutcomeUnknown),  # what poolers between say
        ("25006", Transient),  # read-only: a standby
        ("40001", Transient),  # serialization
        ("40P01", Transient),  # deadlock
        ("53000", Transient),
        ("53100", StorageFull),
        ("53200", Transient),  # memory
        ("53300", Transient),  # connections
        ("55P03", Transient),  # a lock
        ("57P01", OutcomeUnknown),  # shutting down
        ("57P03", OutcomeUnknown),  # starting up
        ("58030", OutcomeUnknown),  # its disk
        ("28P01", MENDED),  # a wrong password
        ("42501", MENDED),  # a privilege
        ("57014", Permanent),  # it took too long
        ("22001", Permanent),  # too long a text
        ("23514", ConstraintViolated),
        ("42703", Permanent),  # no such column
        ("42P01", Permanent),  # no such table
        ("XX001", Permanent),  # damaged data
    ],
)
def test_a_sqlstate_says_whether_waiting_helps(postgres, state, means):
    raising = f"DO $$ BEGIN RAISE EXCEPTION 'as Postgres says it' USING ERRCODE = '{state}'; END $$"
    assert meaning(lambda: run(postgres, raising)) is means


@pytest.mark.parametrize(
    ("statements", "means"),
    [
        (["SELECT gone FROM t"], Permanent),
        (["SELECT a FROM gone"], Permanent),
        (["INSERT INTO t VALUES (1)"], ConstraintViolated),
        (["SET LOCAL statement_timeout = 10", "SELECT pg_sleep(20)"], Permanent),
        (["SELECT pg_terminate_backend(pg_backend_pid())"], OutcomeUnknown),
        (["SET TRANSACTION READ ONLY", "INSERT INTO t VALUES (2)"], Transient),
    ],
)
def test_a_real_postgres_says_whether_waiting_helps(postgres, statements, means):
    assert meaning(lambda: run(postgres, *statements)) is means


def test_a_postgres_that_nobody_answers_for_is_transient(tmp_path):
    assert meaning(lambda: run(Database(f"postgresql+psycopg://u@/d?host={tmp_path}"), "SELECT 1")) is OutcomeUnknown


# S3


def s3_that_raises(error: Exception) -> S3Scratch:
    def fail(**_: object) -> None:
        raise error

    meta = SimpleNamespace(endpoint_url="http://s3.example", events=SimpleNamespace(register=lambda *_: None))
    return S3Scratch(lambda: SimpleNamespace(meta=meta, get_object=fail), bucket="bucket")


@pytest.mark.parametrize(
    ("status", "code", "means"),
    [
        (404, "NoSuchKey", FileNotFoundError),
        (404, "NoSuchBucket", MENDED),
        (404, "404", Transient),  # a proxy before a server that is away
        (403, "AccessDenied", MENDED),
        (403, "RequestTimeTooSkewed", MENDED),
        (400, "ExpiredToken", MENDED),
        (301, "PermanentRedirect", MENDED),
        (400, "RequestTimeout", Transient),
        (409, "OperationAborted", Transient),
        (429, "TooManyRequests", Transient),
        (500, "InternalError", Transient),
        (503, "SlowDown", Transient),
        (507, "InsufficientStorage", StorageFull),
        (403, "XMinioStorageFull", StorageFull),
        (400, "InvalidRequest", Permanent),
        (400, "EntityTooLarge", Permanent),
        (405, "MethodNotAllowed", Permanent),
        (501, "NotImplemented", Permanent),
    ],
)
def test_an_answer_of_s3_says_whether_waiting_helps(status, code, means):
    error = ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")
    assert meaning(lambda: s3_that_raises(error).open("job_1/a")) is means


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (of_botocore.EndpointConnectionError(endpoint_url="http://s3.example"), Transient),
        (of_botocore.ReadTimeoutError(endpoint_url="http://s3.example"), Transient),
        (of_botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2), Transient),
        (of_botocore.NoCredentialsError(), MENDED),
        (of_botocore.NoRegionError(), MENDED),
        (of_botocore.ParamValidationError(report="no such parameter"), Permanent),
        (OSError(errno.ENOSPC, "of the temporary file"), StorageFull),
        (OSError(errno.EMFILE, "of the temporary file"), Transient),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_boto_says_whether_waiting_helps(error, means):
    assert meaning(lambda: s3_that_raises(error).open("job_1/a")) is means


# Redis


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (of_redis.ConnectionError("gone"), Transient),
        (of_redis.BusyLoadingError("loading"), Transient),
        (of_redis.TimeoutError("late"), Transient),
        (of_redis.ReadOnlyError("a replica"), Transient),
        (of_redis.OutOfMemoryError("maxmemory"), Transient),
        (KombuAway("gone"), Transient),
        (ConnectionRefusedError(errno.ECONNREFUSED, "nobody"), Transient),
        (ssl.SSLError(1, "handshake"), Transient),
        (of_redis.AuthenticationError("WRONGPASS"), MENDED),
        (of_redis.NoPermissionError("NOPERM"), MENDED),
        (of_redis.ResponseError("WRONGTYPE"), Permanent),
        (of_redis.DataError("no text"), Permanent),
        (EncodeError("no JSON"), Permanent),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_redis_says_whether_waiting_helps(error, means):
    assert translated(redis_errors, error) is means


# Processes that are started


@contextmanager
def no_descriptor_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_decoder_for_which_no_descriptor_is_left_is_transient_and_the_next_one_starts():
    picture = native()["PNG"]
    with DecoderPool(1) as pool:
        with no_descriptor_left():
            means = meaning(lambda: list(pool([picture])))
        assert means is Transient
        assert len(list(pool([picture]))) == 1


def test_an_ocr_server_for_which_no_descriptor_is_left_is_asked_again_later(tmp_path):
    engine = OcrEngine(tmp_path / "ocr")
    with no_descriptor_left():
        means = meaning(engine.server_pid)
    assert means is ModelUnavailable
    engine.close()


def test_an_ocr_server_that_can_never_be_started_is_permanent(tmp_path):
    engine = OcrEngine(tmp_path / "ocr")
    (tmp_path / "ocr").rmdir()
    assert meaning(engine.server_pid) is Permanent
    engine.close()
