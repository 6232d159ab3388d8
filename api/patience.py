"""Limits how long a client may take to send a body and to read an answer, because meanwhile it holds a thread.

A client that sends too slowly is treated as if it had disconnected, so its body counts as cut short. A client that reads too slowly
is left to the loop of `api/connections.py`, which needs no thread for it.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ECONNRESET
from typing import IO, Any

from gunicorn.http.body import ChunkedReader, LengthReader

IDLE_SECONDS = 30.0  #: a client that sends a body may be this far behind the least rate
LEAST_RATE = 20_000  #: bytes per second of a body or an answer
LARGE_BODY = 1 << 20  #: bytes; a larger body must arrive faster, because it takes room on the disk
LARGE_RATE = 100_000  #: bytes per second of a large body
SEND_SECONDS = 0.1  #: for how long a thread sends an answer; then the loop sends the rest
MOST_PIECES_UNSENT = 1 << 16  #: bytes of a streamed answer that may wait to be sent while its next piece is made

#: The event of a client that has closed its side while bytes of it are unread. Only Linux has it.
_CLOSED: int = getattr(select, "POLLRDHUP", 0)


class PatientSocket(socket.socket):
    """Reads until a deadline. After it, reads return no bytes, as if the client had disconnected.

    The deadline moves on with every byte that arrives, so what counts is what has arrived and not what was announced.
    """

    _deadline = float("inf")
    _rate = 0.0
    _late = False
    request: Any = None  #: the gunicorn request that is being answered
    target: bytes = b""  #: the path that the request names, as it was sent

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._unsent: deque[memoryview] = deque()

    def allow(self, seconds: float) -> None:
        """Sets the deadline to `seconds` from now. It holds for all reads until the next call."""
        self._deadline, self._rate = time.monotonic() + seconds, 0.0

    def expect(self, rate: float) -> None:
        """Reads while the client sends `rate` bytes per second. It may be up to `IDLE_SECONDS` behind."""
        self._deadline, self._rate = time.monotonic() + IDLE_SECONDS, rate

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if self.gettimeout() == 0:
            return super().recv(size, flags)
        with self._patiently() as late:
            if late:
                return b""
            data = super().recv(size, flags)
            self._move_deadline(len(data))
            return data
        return b""

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0, /) -> int:
        """As `recv`, without a copy."""
        if self.gettimeout() == 0:
            return super().recv_into(buffer, size, flags)
        with self._patiently() as late:
            if late:
                return 0
            received = super().recv_into(buffer, size, flags)
            self._move_deadline(received)
            return received
        return 0

    @contextmanager
    def _patiently(self) -> Iterator[bool]:
        """Whether the client is late. Meanwhile the socket waits until the deadline; if it passes, the block ends and the client is late."""
        before = self.gettimeout()
        left = min(IDLE_SECONDS if before is None else before, self._deadline - time.monotonic())
        if left <= 0 or self._late:
            self._late = True
            yield True
            return
        self.settimeout(left)
        try:
            yield False
        except TimeoutError:
            self._late = True
        finally:
            self.settimeout(before)

    def _move_deadline(self, received: int) -> None:
        if self._rate:
            self._deadline = min(self._deadline + received / self._rate, time.monotonic() + IDLE_SECONDS)

    @property
    def unsent(self) -> int:
        """How many bytes of the answer wait until the client reads."""
        return sum(map(len, self._unsent))

    def sendall(self, data: Any, _flags: int = 0, /) -> None:
        """Sends the data, or leaves the rest of it in `unsent` if the client does not read. A stream waits for its client longer."""
        is_stream = self.unsent > MOST_PIECES_UNSENT
        self._unsent.append(memoryview(data).cast("B"))
        before = self.gettimeout()
        deadline = time.monotonic() + (IDLE_SECONDS + self.unsent / LEAST_RATE if is_stream else SEND_SECONDS)
        try:
            while self._unsent and (left := deadline - time.monotonic()) > 0:
                self.settimeout(left)
                self.send_some()
        except TimeoutError:
            pass
        finally:
            self.settimeout(before)
        if is_stream and self.unsent > MOST_PIECES_UNSENT:
            raise ConnectionResetError(ECONNRESET, "the client does not read its answer")

    def send(self, data: Any, flags: int = 0, /) -> int:
        """As for any socket, but one that blocks sends all of the data, or leaves it, because else it could block for ever."""
        if self.gettimeout() is not None:
            return super().send(data, flags)
        self.sendall(data)
        return len(data)

    def leave(self, data: bytes) -> None:
        """Leaves the data to the loop, which sends it."""
        self._unsent.append(memoryview(data))

    def send_some(self) -> int:
        """Sends a piece of what is unsent. Returns how many bytes that was. Raises OSError."""
        piece = self._unsent[0]
        sent = self.send(piece[: 1 << 18])
        if sent == len(piece):
            self._unsent.popleft()
        else:
            self._unsent[0] = piece[sent:]
        return sent

    def has_whole_body(self) -> bool:
        """Whether all of the rest of the request's body has arrived."""
        left = body_left(self.request)
        return left is not None and left <= _buffered(self.request) + _arrived(self)


def body_left(request: Any) -> int | None:
    """How many bytes of the request's body have not been read. None: nobody knows, because the body is chunked."""
    reader = request.body.reader
    if isinstance(reader, LengthReader):
        return int(reader.length)
    return 0 if isinstance(reader, ChunkedReader) and reader.parser is None else None


def _buffered(request: Any) -> int:
    return int(request.unreader.buf.getbuffer().nbytes)


def _arrived(connection: socket.socket) -> int:
    """How many bytes can be read from the socket without waiting."""
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))
    return int(size)


def expect_body(environ: dict[str, Any], length: int) -> None:
    """Gives the client time to send a body of `length` bytes. The time is counted by the bytes that arrive."""
    connection = environ.get("gunicorn.socket")
    if isinstance(connection, PatientSocket):
        connection.expect(LARGE_RATE if length > LARGE_BODY else LEAST_RATE)


def read_body_into(environ: dict[str, Any], stream: IO[bytes], buffer: memoryview) -> int:
    """Reads the next bytes of the request's body to `buffer`, and returns how many. 0: it has ended, or the client is gone or late.

    They come from the socket without a copy, because gunicorn's own reader copies each byte three times. `stream` is read instead if
    the server is another one. A body must be read in one way only, because the stream does not learn what was read here.
    """
    connection = environ.get("gunicorn.socket")
    reader = connection.request.body.reader if isinstance(connection, PatientSocket) and connection.request is not None else None
    if not isinstance(connection, PatientSocket) or not isinstance(reader, LengthReader):
        piece = stream.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
    buffer = buffer[: reader.length]
    if _buffered(connection.request):
        piece = reader.unreader.take_buffered()
        received = min(len(piece), len(buffer))
        buffer[:received] = piece[:received]
        if len(piece) > received:
            reader.unreader.unread(piece[received:])
    else:
        received = connection.recv_into(buffer) if buffer else 0
    reader.length -= received
    return received


def body_is_here(environ: dict[str, Any]) -> bool:
    """Whether the request's body can be read without waiting for the client."""
    connection = environ.get("gunicorn.socket")
    return not isinstance(connection, PatientSocket) or connection.request is None or connection.has_whole_body()


def settle_body(environ: dict[str, Any]) -> None:
    """Reads the rest of the body if it is there already. Otherwise the connection is closed after the answer.

    So nobody waits for a body that is not wanted, and the answer goes out at once.
    """
    connection = environ.get("gunicorn.socket")
    if not isinstance(connection, PatientSocket) or connection.request is None:
        return
    if (left := body_left(connection.request)) and connection.has_whole_body():
        connection.allow(IDLE_SECONDS)
        while left > 0 and (piece := connection.request.body.read(min(left, 1 << 18))):
            left -= len(piece)
    if left != 0:
        connection.request.force_close()


def hung_up(environ: dict[str, Any]) -> bool:
    """Whether the client has closed its connection, or at least its side of it. What it sent before that may be unread."""
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return False
    readable = select.poll()
    try:
        readable.register(connection, select.POLLIN | _CLOSED)
        events = readable.poll(0)
        if not events:
            return False
        return bool(events[0][1] & _CLOSED) or socket.socket.recv(connection, 1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
