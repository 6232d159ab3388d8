"""A real PgBouncer in transaction mode, in front of the tests' Postgres: each transaction may get another connection to the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from testbed.postgres import PostgresServer

#: Debian puts it where only root's PATH leads.
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
MISSING = "no pgbouncer is installed here: `make proxies` installs Debian's package"
FOLDER = "ximg-pgbouncer-"  #: in the URL of every database that is reached through PgBouncer
START_SECONDS = 20.0


def through_pgbouncer(url: str) -> bool:
    """Whether the URL is one of `Pooler.url`, so that its connections can keep no prepared statements."""
    return FOLDER in url


class Pooler:
    """A running PgBouncer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, direct: str) -> str:
        """The URL of the same database through PgBouncer. `direct`: a URL of PostgresServer."""
        name = direct.rpartition("@/")[2].partition("?")[0]
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}&port=6432"


@contextmanager
def pgbouncer(server: PostgresServer, *, connections: int = 8) -> Iterator[Pooler]:
    """Starts one that opens at most `connections` to each database.

    It refuses to run as root. So if we are root, it runs as the user of Postgres, whose socket only that user reaches.
    """
    assert PGBOUNCER, MISSING
    folder = Path(tempfile.mkdtemp(prefix=FOLDER))
    folder.chmod(0o777)
    ini, log = folder / "pgbouncer.ini", folder / "pgbouncer.log"
    ini.write_text(
        f"""[databases]
* = host={server.socket_folder} user=postgres
[pgbouncer]
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 400
server_login_retry = 1
query_wait_timeout = {START_SECONDS:.0f}
"""
    )
    ini.chmod(0o644)  # whatever the umask is: commands of ours that tests run in this process set it
    user = server.socket_folder.stat().st_uid if os.geteuid() == 0 else None
    with log.open("wb") as out:
        process = subprocess.Popen([PGBOUNCER, str(ini)], stdout=out, stderr=out, user=user, start_new_session=True)
    try:
        ends = time.monotonic() + START_SECONDS
        while not (folder / ".s.PGSQL.6432").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.02)
        psycopg.connect(f"host={folder} port=6432 user=postgres dbname=postgres").close()  # it reaches the server
        yield Pooler(folder)
    finally:
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)
