"""A web server on loopback that sends exactly the answers a test wants, and fetchers that may reach it.

The fetchers' setting allows 127.0.0.1. The address 127.0.0.2 stands for all forbidden addresses. A test module gets the fixtures
by assigning them to its own names.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading

import pytest

from pipeline.fetch.faults import UNREACHABLE
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.redirects import after_redirect
from pipeline.outbound.addresses import parse_allow
from pipeline.types import MB, Failure, ItemCode

ALLOW = parse_allow("127.0.0.1/32:*")
BODY = bytes(range(256)) * 130  # 33 KB


def answer(body=BODY, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location, status="302 Found"):
    return answer(b"", status, f"Location: {location}")


class Server:
    """Answers each path with bytes, or calls a function with the connection. Records the requests.

    `backlog`: length of the listen queue. `small`: use one thread, and serve one connection at a time, with one request each.
    """

    def __init__(self, paths, *, tls=None, backlog=512, small=False):
        self.paths = paths
        self.requests = []
        self.bodies = []  # the bodies of the requests, in order
        self.connections = 0
        self.gone = threading.Event()
        self._open = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self._small = small
        self._tls = tls
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.add(connection)
                if self._small:
                    self._serve(connection)
                    continue
                thread = threading.Thread(target=self._serve, args=(connection,))
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            if self._tls is not None:
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    self._talk(secured)
            else:
                self._talk(connection)

    def _talk(self, connection):
        with contextlib.suppress(OSError):
            received = b""
            while piece := connection.recv(65536):
                received += piece
                while b"\r\n\r\n" in received:
                    request, _, received = received.partition(b"\r\n\r\n")
                    self.requests.append(request.decode())
                    length = int((re.search(r"(?i)\ncontent-length: (\d+)", request.decode()) or "00")[1])
                    while len(received) < length and (piece := connection.recv(65536)):
                        received += piece
                    self.bodies.append(received[:length])
                    received = received[length:]
                    path = request.split()[1].decode().partition("?")[0]
                    found = self.paths.get(path, self.paths.get("*"))
                    if callable(found):
                        found(connection)
                    else:
                        connection.sendall(found)
                    if self._small:
                        return

    def asked(self, path):
        return sum(request.split()[1].partition("?")[0] == path for request in self.requests)

    def close(self):
        self.gone.set()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def serve():
    servers = []

    def start(paths, **options):
        servers.append(Server(paths, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def forbidden():
    """The port of a listener on a forbidden address. The test fails if anything connects to it."""
    with socket.create_server(("127.0.0.2", 0)) as listener:
        yield listener.getsockname()[1]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.fixture
def make_fetcher():
    """Makes fetchers that resolve host names with `names`: host → addresses, or a function. Other hosts are 127.0.0.1."""
    fetchers = []

    def build(names=None, *, allow=ALLOW, **options):
        def resolve(host, port):
            found = (names or {}).get(host, ["127.0.0.1"])
            return found() if callable(found) else found

        fetchers.append(Fetcher(allow, resolve=resolve, **options))
        return fetchers[-1]

    yield build
    for fetcher in fetchers:
        fetcher.close()


def run(fetcher, *urls, total=100 * MB, timeout=30.0):
    results = list(fetcher(list(enumerate(urls)), total=total, timeout=timeout))
    assert sorted(result.index for result in results) == list(range(len(urls)))
    return sorted(results, key=lambda result: result.index)


def one(fetcher, url, **options):
    [result] = run(fetcher, url, **options)
    return result


def is_failure(result, code, word=""):
    assert isinstance(result, Failure), result
    assert result.code == code, result
    assert word in result.detail, result
    return True


def is_unreachable(result, *, redirected=False):
    detail = after_redirect(UNREACHABLE, number=1) if redirected else UNREACHABLE
    assert result == Failure(index=result.index, code=ItemCode.FETCH_FAILED, detail=detail)
    return True
