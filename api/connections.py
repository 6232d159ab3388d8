"""The loop of a web process: it holds every connection that needs no thread, and gives a request to a thread once its head is whole.

gunicorn's own loop gives each new connection to a thread at once, holds at most 1000 connections, and waits in the loop itself while
it closes one. A stranger who sends nothing, or half a head, or does not read or close, then stops the door for everybody. Here such a
client costs a file descriptor and some kilobytes. Connections are many (`most_connections`). If they run out, those of the address
that has most of them are closed.
"""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from errno import EAGAIN, ECONNABORTED, EMFILE, ENFILE, EWOULDBLOCK
from functools import partial
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import structlog
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from api.patience import IDLE_SECONDS, LEAST_RATE, PatientSocket, body_left
from api.unreadable import INTERNAL, answer, refusal_of
from config.open_files import raise_open_files
from storage.account.accounts import random_id

log = structlog.get_logger(__name__)

HEAD_SECONDS = 10.0  #: for the request line and headers, from the first byte or from the connection
MOST_HEAD = 1 << 15  #: bytes of the request line and headers together, as in front of it nginx allows
LINGER_SECONDS = 10.0  #: for how long the rest of a refused body is read, so that the client sees the answer and no reset
SILENT_SECONDS = 2.0  #: for how long a client that is lingered for may send nothing
MOST_LINGERING = 64  #: connections; if there are more, the one that lingers longest is closed
MOST_UNSENT = (
    128 << 20
)  #: bytes of answers that clients have not read; if there are more, the client with most of them is cut off
MOST_HEADS = 64 << 20  #: bytes of heads that are not whole
MOST_CONNECTIONS = 10_000
OWN_FILES = 512  #: file descriptors for everything other than connections of clients
LEAST_OWN_FILES = 160  #: the same if the limit of open files is low
ACCEPTED_AT_ONCE = 64  #: new connections before the loop looks at the others again
PIECE = 1 << 18
LOOK_SECONDS = 0.25  #: how often connections are looked through for those whose time is over

_CLOSE: Future[bool] = Future()  #: the result of a request after which the connection is closed
_CLOSE.set_result(False)


def most_connections(threads: int) -> int:
    """How many connections a web process may hold. Raises the process's limit of open files as far as it may.

    There should be more connections than threads, because else held requests keep others out. But if the limit is very low, half of
    it is left for other files, because else the process can't open its database.
    """
    soft = raise_open_files(MOST_CONNECTIONS + OWN_FILES)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(min(MOST_CONNECTIONS, soft - OWN_FILES), min(threads + 100, max(soft - LEAST_OWN_FILES, soft // 2)))


class Connection(TConn):  # type: ignore[misc]
    """A client's connection. `timeout` is when the loop closes it, by time.monotonic()."""

    sock: PatientSocket

    def __init__(self, cfg: Any, sock: PatientSocket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.head = bytearray()  #: what has arrived of the next request
        self.lingers_until = 0.0  #: when lingering ends at the latest, by time.monotonic()
        self.address = _owner_of(client)  #: who it belongs to when connections run out


def _owner_of(client: Any) -> str:
    """The client's address, or its network of IPv6, because a single user has all of that.

    A socket that listens on `::` names IPv4 clients as `::ffff:192.0.2.1`. They share one IPv6 network, so the IPv4 address counts.
    """
    host = str(client[0]) if isinstance(client, tuple) else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv4Address):
        return host
    return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker with threads, where only a request whose head is whole gets a thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: dict[Connection, None] = {}  # those that the loop holds, in the order in which they came to it
        self._sending: dict[Connection, None] = {}  # those of them whose client has not read its answer
        self._lingering: dict[Connection, None] = {}  # those of them that are closed soon
        self._look_at = 0.0

    # What the loop does with a connection: hold it, read it, hand it over, go on after the answer, close it.

    def accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, address = listener.accept()
            except OSError as error:
                if error.errno in (EMFILE, ENFILE):
                    self._make_room()
                elif error.errno not in (EAGAIN, EWOULDBLOCK, ECONNABORTED):
                    raise
                return
            self.nr_conns += 1
            conn = Connection(self.cfg, PatientSocket(client.detach()), address, listener.getsockname())
            self._hold(conn, HEAD_SECONDS, self._read)
            self._read(conn)
            if self.nr_conns >= self.worker_connections:  # at the limit, gunicorn accepts nobody until somebody goes
                self._make_room()

    def _hold(self, conn: Connection, seconds: float, go_on: Any, events: int = selectors.EVENT_READ) -> None:
        conn.sock.settimeout(0)
        conn.timeout = time.monotonic() + seconds
        self._held[conn] = None
        # One event of a batch may close a connection that another event of the batch is about.
        self.poller.register(conn.sock, events, lambda _sock: go_on(conn) if conn in self._held else None)

    def _release(self, conn: Connection) -> None:
        del self._held[conn]
        self._sending.pop(conn, None)
        self._lingering.pop(conn, None)
        self.poller.unregister(conn.sock)

    def _read(self, conn: Connection) -> None:
        data = _received(conn, MOST_HEAD)
        if data is None:
            return
        if not data:
            self._drop(conn)
            return
        if not conn.head:
            conn.timeout = min(conn.timeout, time.monotonic() + HEAD_SECONDS)
        conn.head += data
        self._look_at_head(conn)

    def _look_at_head(self, conn: Connection) -> None:
        """Gives the request to a thread if its head is whole, or so wrong that it will never be."""
        # Some clients send an empty line after a body. gunicorn would refuse the next request because of it.
        head = conn.head = conn.head.lstrip(b"\r\n")
        is_wrong = head.count(b"\n") != head.count(b"\r\n") or (b"\n" not in head and len(head) > self.cfg.limit_request_line + 2)
        if b"\r\n\r\n" in head or is_wrong:
            self._release(conn)
            self.enqueue_req(conn)
        elif len(conn.head) >= MOST_HEAD:
            self._release(conn)
            self.handle_error(None, conn.sock, conn.client, LimitRequestHeaders("limit request headers size"))
            self.finish_request(conn, _CLOSE)

    def finish_request(self, conn: Connection, future: Future[Any]) -> None:
        """Takes the connection back after its answer. It lies with the loop until the client has read all of it."""
        try:
            keep = bool(future.result())
        except Exception:  # noqa: BLE001 - gunicorn has logged it
            keep = False
        if conn.sock.fileno() < 0:
            self.nr_conns -= 1
        elif conn.sock.unsent:
            self._hold(conn, IDLE_SECONDS, partial(self._send, keep=keep), selectors.EVENT_WRITE)
            self._sending[conn] = None
            self._cut_off_slowest_reader()
        else:
            self._go_on(conn, keep=keep)

    def _send(self, conn: Connection, *, keep: bool) -> None:
        try:
            sent = conn.sock.send_some()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(conn)
            return
        conn.timeout = min(conn.timeout + sent / LEAST_RATE, time.monotonic() + IDLE_SECONDS)
        if not conn.sock.unsent:
            self._release(conn)
            self._go_on(conn, keep=keep)

    def _cut_off_slowest_reader(self) -> None:
        unsent = {conn: conn.sock.unsent for conn in self._sending}
        while sum(unsent.values()) > MOST_UNSENT:
            slowest = max(unsent, key=lambda conn: unsent[conn])
            del unsent[slowest]
            self._drop(slowest)

    def _go_on(self, conn: Connection, *, keep: bool) -> None:
        if not keep:
            self._close(conn)
            return
        conn.head = bytearray(conn.parser.unreader.take_buffered())
        self._hold(conn, HEAD_SECONDS if conn.head else self._kept_seconds(), self._read)
        if conn.head:
            self._look_at_head(conn)

    def _kept_seconds(self) -> float:
        return float(self.cfg.keepalive if self.alive else min(self.cfg.keepalive, STOP_KEEPALIVE_LINGER))

    def _close(self, conn: Connection) -> None:
        """Closes a connection after its answer.

        A client that still sends is listened to for a while. If its connection were closed while bytes of it are unread, it would
        get a reset, and might never see the answer.
        """
        conn.sock.settimeout(0)
        if not _may_still_send(conn):
            self.nr_conns -= 1
            conn.close()
            return
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)
        if len(self._lingering) >= MOST_LINGERING:
            self._drop(next(iter(self._lingering)))
        conn.lingers_until = time.monotonic() + LINGER_SECONDS
        self._lingering[conn] = None
        self._hold(conn, SILENT_SECONDS, self._linger)

    def _linger(self, conn: Connection) -> None:
        data = _received(conn, PIECE)
        if data is None:
            return
        if data:
            conn.timeout = min(conn.lingers_until, time.monotonic() + SILENT_SECONDS)
        else:
            self._drop(conn)

    def _drop(self, conn: Connection) -> None:
        """Closes a connection that the loop holds, at once."""
        self._release(conn)
        self.nr_conns -= 1
        conn.close()

    def _make_room(self) -> None:
        """Closes connections of the address that has most of those without a request in work, the oldest first."""
        counted = Counter(conn.address for conn in self._held)
        if not counted:
            return
        [(address, count)] = counted.most_common(1)
        oldest = [conn for conn in self._held if conn.address == address]
        for conn in oldest[: max(1, count // 8)]:
            self._drop(conn)

    # What gunicorn's loop calls.

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        super().wait_for_and_dispatch_events(min(timeout, LOOK_SECONDS) if self._held else timeout)

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        now = time.monotonic()
        if now < self._look_at and not force:
            return
        self._look_at = now + LOOK_SECONDS
        for conn in [conn for conn in self._held if force or conn.timeout <= now]:
            self._drop(conn)
        while sum(len(conn.head) for conn in self._held) > MOST_HEADS:
            self._make_room()

    def _cap_keepalive(self, deadline: float) -> None:
        for conn in self._held:
            if conn not in self._sending:
                conn.timeout = min(conn.timeout, deadline)

    # What a thread does.

    def handle(self, conn: Connection) -> Any:
        conn.sock.allow(0)  # the head has arrived in whole, so what is missing of it does not come
        conn.sock.target = bytes(conn.head[:300].partition(b" ")[2].partition(b" ")[0].partition(b"?")[0])
        conn.init()
        conn.parser.unreader.unread(bytes(conn.head))
        conn.head.clear()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: Connection) -> Any:
        conn.sock.request = req
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: Connection, keepalive: Any) -> bool:
        return bool(keepalive) and body_left(conn.parser.mesg) == 0

    def handle_error(self, _req: Any, client: PatientSocket, _addr: Any, exc: BaseException) -> None:
        """Answers a request that gunicorn can't read. Everything else is a fault of ours and is logged."""
        if (text := refusal_of(exc, client.target)) is None:
            log.error("request_failed", code=INTERNAL.code, exc_info=exc)
            text = answer(INTERNAL, random_id("req_", 16), client.target)
        with suppress(OSError):
            client.leave(text)


def _received(conn: Connection, most: int) -> bytes | None:
    """What the client has sent, `most` bytes at most. None: nothing now. Empty: nothing more will come."""
    try:
        return conn.sock.recv(most)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


def _may_still_send(conn: Connection) -> bool:
    """Whether bytes of this client are unread, or are sure to come."""
    request = conn.parser.mesg if conn.parser else None
    if request is None or body_left(request) != 0:
        return True
    try:
        return bool(socket.socket.recv(conn.sock, 1, socket.MSG_PEEK))
    except OSError:
        return False
