"""The service's commands, with every trip to SQL, S3 and Redis written down: `python -m bench.counted web`, for bench/one_image.py.

Each process appends its trips to a file in DATA_DIR/trips, one JSON line each: time by the system's monotonic clock, kind, name.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "trips"
WRITE_SECONDS = 0.2
#: Commands with which a process waits for messages. They are sent whether or not there is a request.
WAITING = frozenset({"BRPOP", "BLPOP", "PING"})
_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+(\w+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trip:
    """One round trip of a process."""

    at: float  #: time.monotonic() when it began, for commits when it ended
    role: str  #: web, worker or supervisor
    kind: str  #: transaction, statement, commit, ping, s3, redis
    name: str  #: of the statement with its table, of the method of HTTP, or of the command


class _Book:
    """Writes the trips of this process. A thread writes, so that a request does not wait for the disk."""

    def __init__(self, role: str, folder: Path) -> None:
        self._role = role
        self._folder = folder
        self._lines: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._start()
        os.register_at_fork(after_in_child=self._start)  # gunicorn forks, and threads do not live on in a fork

    def _start(self) -> None:
        self._path = self._folder / f"{self._role}-{os.getpid()}"
        threading.Thread(target=self._run, name="trips", daemon=True).start()

    def note(self, kind: str, name: str) -> None:
        self._lines.append(json.dumps([time.monotonic(), kind, name]))

    def _run(self) -> None:
        while True:
            time.sleep(WRITE_SECONDS)
            lines, self._lines = self._lines, []
            if lines:
                with self._path.open("a") as file:
                    file.write("\n".join(lines) + "\n")


def trips(folder: Path) -> Iterator[Trip]:
    """All trips that the processes of this DATA_DIR have written down, each process's in order."""
    for path in sorted((folder / FOLDER).glob("*")):
        role = path.name.partition("-")[0]
        for line in path.read_text().splitlines():
            at, kind, name = json.loads(line)
            yield Trip(at=at, role=role, kind=kind, name=name)


def _count_sql(book: _Book) -> None:
    from sqlalchemy import Engine, event
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    def began(connection: Any) -> None:
        """Without autocommit, Postgres gets a BEGIN and a COMMIT, which are two round trips more."""
        book.note("transaction", "autocommit" if getattr(connection.connection.driver_connection, "autocommit", False) else "")

    event.listen(Engine, "begin", began)
    event.listen(Engine, "commit", lambda _connection: book.note("commit", ""))
    ping = PGDialect_psycopg.do_ping

    def pinged(self: Any, connection: Any) -> bool:
        book.note("ping", "")
        return ping(self, connection)

    PGDialect_psycopg.do_ping = pinged  # type: ignore[method-assign]

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        verb = statement.split(None, 1)[0].upper()
        table = _TABLE.search(statement.replace("epoch FROM clock_timestamp", ""))
        book.note("statement", f"{verb} {table[1]}" if table else verb)

    event.listen(Engine, "after_cursor_execute", executed)


def _count_s3(book: _Book) -> None:
    from botocore.httpsession import URLLib3Session

    from storage.scratch.s3_quick import QuickRequests

    real = URLLib3Session.send

    def send(self: Any, request: Any) -> Any:
        book.note("s3", f"{request.method}{' ?delete' if request.url.endswith('?delete') else ''}")
        return real(self, request)

    URLLib3Session.send = send
    quick = QuickRequests._ask

    def send_quickly(self: Any, method: str, *values: Any) -> Any:
        book.note("s3", method)
        return quick(self, method, *values)

    QuickRequests._ask = send_quickly  # type: ignore[method-assign]


def _count_redis(book: _Book) -> None:
    from redis.connection import AbstractConnection

    real = AbstractConnection.send_packed_command

    def send(self: Any, command: Any, *values: Any, **options: Any) -> Any:
        packed = command if isinstance(command, bytes) else b"".join(bytes(part) for part in command)
        name = packed.split(b"\r\n", 3)[2].decode("ascii", "replace").upper()
        if name not in WAITING:
            book.note("redis", name)
        return real(self, command, *values, **options)

    AbstractConnection.send_packed_command = send  # type: ignore[method-assign]


def main() -> None:
    import cli.serve
    from cli.main import main as command

    role = sys.argv[1]
    if role in {"web", "worker", "supervisor"}:
        book = _Book(role, Path(os.environ["DATA_DIR"]) / FOLDER)
        _count_sql(book)
        _count_s3(book)
        _count_redis(book)
    cli.serve.COMMAND = (sys.executable, "-m", "bench.counted")
    command()


if __name__ == "__main__":
    main()
