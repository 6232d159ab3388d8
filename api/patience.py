"""Limits how long a client may take to send, because each connection that sends holds a thread.

A client that is too slow is treated as if it had disconnected. Its body then counts as cut short, or its request as not sent.
"""

from __future__ import annotations

import select
import socket
import time
from errno import ECONNRESET
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

HEAD_SECONDS = 20.0  #: for the request line and headers
IDLE_SECONDS = 30.0  #: between two bytes
LEAST_RATE = 20_000  #: bytes per second of a body or an answer, on average
REFUSED_SECONDS = 5.0  #: for the rest of a refused request's body
REFUSED_RATE = 500_000


class PatientSocket(socket.socket):
    """Reads until a deadline. After it, reads return no bytes, as if the client had disconnected."""

    _deadline = float("inf")
    _late = False

    def allow(self, seconds: float) -> None:
        """Sets the deadline to `seconds` from now. It holds for all reads until the next call."""
        self._deadline = time.monotonic() + seconds

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        before = self.gettimeout()
        if before == 0:
            return super().recv(size, flags)
        left = min(IDLE_SECONDS if before is None else before, self._deadline - time.monotonic())
        if left <= 0 or self._late:
            self._late = True
            return b""
        self.settimeout(left)
        try:
            return super().recv(size, flags)
        except TimeoutError:
            self._late = True
            return b""
        finally:
            self.settimeout(before)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        before = self.gettimeout()
        self.settimeout(IDLE_SECONDS + len(data) / LEAST_RATE)
        try:
            super().sendall(data, flags)
        except TimeoutError:
            raise ConnectionResetError(ECONNRESET, "the client does not read its answer") from None
        finally:
            self.settimeout(before)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker with time limits. Without them, gunicorn waits for ever for the rest of a request."""

    def handle(self, conn: TConn) -> Any:
        if not isinstance(conn.sock, PatientSocket):
            conn.sock = PatientSocket(fileno=conn.sock.detach())
        conn.sock.allow(HEAD_SECONDS)
        return super().handle(conn)


def expect_body(environ: dict[str, Any], length: int, *, refused: bool = False) -> None:
    """Gives the client time to send `length` more bytes. It gets less time if the request is refused."""
    connection = environ.get("gunicorn.socket")
    if isinstance(connection, PatientSocket):
        connection.allow(REFUSED_SECONDS + length / REFUSED_RATE if refused else IDLE_SECONDS + length / LEAST_RATE)


def hung_up(environ: dict[str, Any]) -> bool:
    """Whether the client has closed its connection, or at least its side of it."""
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return False
    readable = select.poll()
    try:
        readable.register(connection, select.POLLIN)
        return bool(readable.poll(0)) and socket.socket.recv(connection, 1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
