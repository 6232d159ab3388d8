"""Fixtures for all tests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from storage.database import Database
from storage.redis.embedded import EmbeddedRedis
from testbed import PostgresServer, S3Server, postgres, seaweedfs
from tests.harness import Harness, running
from tests.migrated import migrated_database
from tests.rows import quick_folder


def _drop(*_: object) -> dict[str, Any]:
    raise structlog.DropEvent


# Tests drop the logs of the code under test. A test that checks logs uses structlog's capture_logs, or starts a process.
structlog.configure(processors=[_drop])

# A slow machine must fail no property, so no example has a deadline. `make test` tries the same examples each time.
# `make properties` looks for new ones.
_UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("suite", **_UNTIMED, derandomize=True)
settings.register_profile("search", **_UNTIMED)
settings.load_profile("suite")

TEMPLATE = "migrated"


def pytest_collection_finish() -> None:
    """Keeps the garbage collector from looking through thousands of tests and all modules again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def harness() -> Iterator[Harness]:
    """A running service. At the end of the test, it checks that no scratch objects and no held credits are left."""
    with quick_folder() as folder, running(folder) as started:
        yield started


@pytest.fixture
def make_harness() -> Iterator[Callable[..., Harness]]:
    """Starts services with other settings or engines. Each one is checked at its end, like `harness`."""
    with ExitStack() as stack:
        folder = stack.enter_context(quick_folder())
        count = 0

        def make(**options: Any) -> Harness:
            nonlocal count
            count += 1
            return stack.enter_context(running(folder / str(count), **options))

        yield make


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real Postgres server for this test session."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a Postgres database with the schema, for copies. A copy takes a third of the time of the migrations."""
    migrated_database(postgres_server.create(TEMPLATE)).close()
    return TEMPLATE


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database, or of one with the schema in a test that uses `database`. The test runs for SQLite and Postgres."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        copied = {"template": request.getfixturevalue("postgres_template")} if "database" in request.fixturenames else {}
        with server.database(**copied) as url:
            yield url
        return
    with quick_folder() as folder:
        yield f"sqlite:///{folder / 'test.db'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the schema and no rows."""
    made = migrated_database(database_url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Valkey server for this test session."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real SeaweedFS server for this test session, with one bucket. Each test uses its own prefix in it."""
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server
