"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog

from storage.database import Database, migrate
from storage.redis.embedded import EmbeddedRedis
from testbed import PostgresServer, S3Server, postgres, seaweedfs
from tests.harness import Harness, running
from tests.rows import quick_folder


def _drop(*_: object) -> dict[str, Any]:
    raise structlog.DropEvent


# What the code under test logs is its own affair; a test that reads it uses structlog's capture_logs, or a process.
structlog.configure(processors=[_drop])


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """A running service; at its end nothing may be left in scratch or held."""
    with running(tmp_path) as started:
        yield started


@pytest.fixture
def make_harness(tmp_path: Path) -> Iterator[Callable[..., Harness]]:
    """Starts services with other settings or engines; each ends like `harness`."""
    with ExitStack() as stack:
        count = 0

        def make(**options: Any) -> Harness:
            nonlocal count
            count += 1
            return stack.enter_context(running(tmp_path / str(count), **options))

        yield make


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real Postgres of this session's own."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with nothing in it, of each kind."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.database() as url:
            yield url
        return
    with quick_folder() as folder:
        yield f"sqlite:///{folder / 'test.db'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the schema and no rows."""
    made = Database(database_url)
    migrate(made)
    yield made
    made.close()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey of this session's own."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real SeaweedFS of this session's own, with an empty bucket. A test takes a prefix of its own."""
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server
