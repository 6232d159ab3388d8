"""The web process as it runs, asked over plain sockets: what only a real server shows."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from config.settings import load_settings
from storage.account import accounts, ledger
from storage.account.secret import secret_key
from storage.database import Database, migrate
from storage.redis.embedded import EmbeddedRedis
from storage.schema import jobs_table
from testbed import ROOT, environment
from tests.harness import URL, b64
from tests.rows import eventually

#: All tests run in one process, because a web process takes as long to start as they all take.
pytestmark = pytest.mark.xdist_group("sockets")

BODY = json.dumps({"inputMethod": "base64", "images": [b64(b"img")], "prompt": "p"}).encode()


@dataclass
class Web:
    """A web process alone: nobody works on what it accepts."""

    process: subprocess.Popen[bytes]
    address: tuple[str, int]
    database: Database
    key: str
    log: Path  #: of its standard error

    def exchange(self, *pieces: bytes, authorization: str | None = None, half_close: bool = False) -> tuple[int, dict, bytes]:
        """Sends a POST in pieces (the first: its headers, without the key's); status, headers and body of the answer."""
        with socket.create_connection(self.address, timeout=60) as connection:
            key = f"Authorization: {authorization if authorization is not None else f'Bearer {self.key}'}\r\n".encode()
            start = f"POST {URL} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n".encode() + key
            connection.sendall(start + pieces[0] + b"\r\n")
            for piece in pieces[1:]:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        named = (line.split(": ", 1) for line in lines)
        return int(status.split()[1]), {name.lower(): value for name, value in named}, body

    def jobs(self) -> int:
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(jobs_table)).scalar_one()


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Not the session's: what is rung here, nobody takes."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@contextmanager
def started(folder: Path, redis: str, module: str = "cli.main", **settings: str) -> Iterator[Web]:
    """A web process with its data in the folder."""
    with ExitStack() as stack:
        loaded = load_settings({"DATA_DIR": str(folder)})
        database = Database(loaded.database_url)
        stack.callback(database.close)
        migrate(database)
        with database.write() as connection:
            account = accounts.create_account(connection, "test")
            ledger.grant(connection, account, 1000)
            key = accounts.create_key(connection, account=account, name="test", secret_key=secret_key(loaded))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        log = folder / "web.log"
        process = subprocess.Popen(
            [sys.executable, "-m", module, "web", "--fd", str(listener.fileno())],
            cwd=ROOT,
            env=environment(folder, REDIS_URL=redis, **settings),
            pass_fds=(listener.fileno(),),
            stderr=stack.enter_context(log.open("wb")),
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        yield Web(process, listener.getsockname(), database, key, log)


@pytest.fixture
def start_web(tmp_path: Path, own_redis: str) -> Iterator[Callable[..., Web]]:
    with ExitStack() as stack:
        yield lambda *module, **settings: stack.enter_context(started(tmp_path, own_redis, *module, **settings))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, own_redis: str) -> Iterator[Web]:
    """One for all tests that change nothing in it. None of them may leave a job."""
    with started(tmp_path_factory.mktemp("web"), own_redis, MAX_BODY="3000000") as web:
        yield web


@pytest.fixture(autouse=True)
def _leaves_no_job(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "web" in request.fixturenames:
        assert request.getfixturevalue("web").jobs() == 0


def test_a_connection_that_is_closed_in_the_middle_of_a_body_gets_a_400_and_leaves_nothing(web):
    for length in (len(BODY) + 100, 2_000_000):
        status, headers, body = web.exchange(f"Content-Length: {length}\r\n".encode(), BODY, half_close=True)
        assert (status, headers["x-error-code"]) == (400, "body_cut_short")
        assert json.loads(body) == {"error": f"The body ended after {len(BODY)} of {length} bytes."}
    assert web.jobs() == 0


def test_who_follows_a_job_and_hangs_up_frees_the_place(start_web):
    web = start_web(MAX_WAITERS="1")
    sent = (b"Prefer: respond-async\r\n" + f"Content-Length: {len(BODY)}\r\n".encode(), BODY)
    path = json.loads(web.exchange(*sent)[2])["links"]["events"]

    def follow() -> tuple[bytes, socket.socket]:
        connection = socket.create_connection(web.address, timeout=60)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {web.key}\r\n\r\n".encode())
        return connection.recv(12), connection

    first, connection = follow()
    refused, other = follow()
    assert (first, refused) == (b"HTTP/1.1 200", b"HTTP/1.1 429")
    other.close()
    connection.close()

    def is_free() -> bool:
        status, again = follow()
        again.close()
        return status == b"HTTP/1.1 200"

    eventually(is_free)


def test_who_closes_only_its_own_side_is_answered_at_once_and_frees_the_place(start_web):
    web = start_web(MAX_WAITERS="1")
    length = f"Content-Length: {len(BODY)}\r\n".encode()
    for _ in range(3):
        status, _, body = web.exchange(b"Prefer: wait=60\r\n" + length, BODY, half_close=True)
        assert (status, json.loads(body)["status"]) == (202, "queued")


def test_requests_that_wait_leave_connections_for_others_if_the_process_may_open_few_files(start_web):
    web = start_web("tests.fakes.few_files")
    sent = (b"Prefer: respond-async\r\n" + f"Content-Length: {len(BODY)}\r\n".encode(), BODY)
    path = json.loads(web.exchange(*sent)[2])["links"]["self"]
    with ExitStack() as stack:
        waits = [stack.enter_context(socket.create_connection(web.address, timeout=60)) for _ in range(200)]
        for connection in waits:
            connection.sendall(f"GET {path}?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.key}\r\n\r\n".encode())
        assert web.exchange(*sent)[0] == 202


def test_a_chunked_body_is_a_411_in_json(web):
    chunk = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
    status, headers, body = web.exchange(b"Transfer-Encoding: chunked\r\n", chunk)
    assert (status, headers["x-error-code"]) == (411, "length_required")
    assert list(json.loads(body)) == ["error"]


def test_who_still_sends_a_large_body_gets_the_refusal_and_no_reset(web):
    large = b"x" * 5_000_000
    sent = (f"Content-Length: {len(large)}\r\n".encode(), large)
    status, headers, _ = web.exchange(*sent)
    assert (status, headers["x-error-code"]) == (400, "body_too_large")
    assert headers["x-ratelimit-limit"] == "600"
    status, headers, body = web.exchange(*sent, authorization="Bearer [object Object]")
    assert (status, body) == (401, b'{"error":"Invalid or missing Authorization header"}')
    assert headers["content-type"] == "application/json"


def test_a_web_process_that_is_told_to_stop_answers_its_waiters_with_the_job_and_ends(start_web):
    web = start_web()
    answers: list[tuple[int, dict, bytes]] = []
    sent = (f"Content-Length: {len(BODY)}\r\n".encode(), BODY)
    waiter = threading.Thread(target=lambda: answers.append(web.exchange(*sent)))
    waiter.start()
    pause = threading.Event()
    while web.jobs() == 0:
        pause.wait(0.02)
    web.process.send_signal(signal.SIGTERM)
    waiter.join()
    [(status, headers, body)] = answers
    assert (status, json.loads(body)["status"]) == (202, "queued")
    assert headers["location"] == f"/api/v1/jobs/{json.loads(body)['id']}"
    assert web.process.wait(timeout=60) == 0


def asked(web: Web, data: bytes) -> tuple[int, dict, bytes]:
    """The first answer to these bytes, and the rest of what came before the connection was closed."""
    with socket.create_connection(web.address, timeout=60) as connection:
        connection.sendall(data)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    named = (line.split(": ", 1) for line in lines)
    return int(status.split()[1]), {name.lower(): value for name, value in named}, body


def test_a_request_that_is_no_http_is_refused_in_json_and_its_bytes_are_not_logged(web):
    refusals = {
        b"secret-garbage\r\n\r\n": (400, "bad_request"),
        b"secret \n": (400, "bad_request"),
        b"GET / HTTP/1.1\r\nsecret-no-header\r\n\r\n": (400, "bad_request"),
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nX: secret\r\n\r\n": (400, "bad_request"),
        b"GET /" + b"secret" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n": (414, "uri_too_long"),
        b"GET /" + b"secret" * 1000: (414, "uri_too_long"),
        b"GET / HTTP/1.1\r\nX: " + b"secret" * 2000 + b"\r\n\r\n": (431, "headers_too_large"),
        b"GET / HTTP/1.1\r\n" + b"X: secret\r\n" * 101 + b"\r\n": (431, "headers_too_large"),
        b"GET / HTTP/1.1\r\n" + b"X: secret\r\n" * 5000: (431, "headers_too_large"),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: secret\r\n\r\n": (501, "not_implemented"),
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: secret\r\n\r\n": (417, "expectation_failed"),
    }
    for data, (status, code) in refusals.items():
        found, headers, body = asked(web, data)
        assert (found, headers["x-error-code"], headers["content-type"]) == (status, code, "application/json"), data[:60]
        assert json.loads(body)["code"] == code
        assert headers["x-request-id"].startswith("req_")
    _, _, body = asked(web, f"POST {URL} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: secret\r\n\r\n".encode())
    assert list(json.loads(body)) == ["error"]
    assert "secret" not in web.log.read_text()


def test_a_connection_goes_on_after_a_refusal_whose_body_has_arrived_and_is_closed_after_another(web):
    refused = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n".encode()
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    status, headers, rest = asked(web, refused + b"12345" + health + b"\r\n" + health + b"Connection: close\r\n\r\n")
    assert (status, headers["connection"]) == (401, "keep-alive")
    assert rest.count(b"HTTP/1.1 200 OK") == 2
    with socket.create_connection(web.address, timeout=60) as connection:
        connection.sendall(refused + b"123")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in answer


def test_a_head_may_come_in_pieces_and_two_requests_in_one(web):
    with socket.create_connection(web.address, timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r":
            connection.send(bytes([byte]))
        connection.sendall(b"\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.count(b'{"status":"ok"}') == 2


def test_large_bodies_may_follow_each_other_at_once_on_one_connection(start_web):
    """The head comes with the first bytes of the body, and the last bytes of the body with the next request."""
    web = start_web()
    body = json.dumps({"inputMethod": "base64", "images": [b64(bytes(900_000))] * 2, "prompt": "p"}).encode()
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.key}\r\nPrefer: respond-async\r\n"
    request = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    status, _, rest = asked(web, request * 3 + last)
    assert status == 202
    assert rest.count(b"HTTP/1.1 202 ") == 2
    assert rest.endswith(b'{"status":"ok"}')
    assert web.jobs() == 3


def test_an_empty_line_before_a_request_is_ignored(web):
    refused = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345\r\n".encode()
    status, _, rest = asked(web, b"\r\n" + refused + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status == 401
    assert rest.count(b"HTTP/1.1 200 OK") == 1


def test_a_client_that_reads_late_gets_all_of_its_answers(web):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(web.address)
        get = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n"
        connection.sendall((get + b"Expect: 100-continue\r\n\r\n") * 5 + get + b"Connection: close\r\n\r\n")
        pause = threading.Event()
        pause.wait(0.3)  # the client is late on purpose
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    _, _, document = asked(web, get + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == answer.count(document) == 6
