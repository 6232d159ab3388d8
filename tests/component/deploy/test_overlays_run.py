"""The overlays of docker-compose.yml run: PgBouncer with its own file, and Caddy before nginx, each with its own file."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from testbed import PostgresServer
from testbed.pgbouncer import MISSING, PGBOUNCER
from testbed.production import free_port
from tests.compose import ROOT, make_secrets, overlay

COMPOSE = ROOT / "deploy" / "compose"
CADDY = shutil.which("caddy")
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
KEY = "xim_known"
BIG = 64 << 20  #: bytes; far more than sockets and buffers hold between a client and a server that does not read


def wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.02)


@contextmanager
def started(
    folder: Path, port: int, command: list[str], environment: Mapping[str, str] | None = None, user: int | None = None
) -> Iterator[None]:
    """A server that listens on the port."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, user=user, start_new_session=True)
    try:
        wait_until_open(port, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# PgBouncer


def test_pgbouncer_serves_whoever_has_the_password_and_nobody_else(postgres_server: PostgresServer) -> None:
    if not PGBOUNCER:
        pytest.skip(MISSING)
    port = free_port()
    with postgres_server.database() as url, tempfile.TemporaryDirectory(prefix="ximg-pooler-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        secrets = make_secrets(folder / "secrets")
        secrets.chmod(0o755)  # PgBouncer runs as another user here
        password = (secrets / "database_password").read_text()
        database = url.rpartition("@/")[2].partition("?")[0]
        role = f"r_{database}"
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{password}'")
        users = folder / "users.txt"
        ini = (COMPOSE / "pgbouncer.ini").read_text()
        for before, after in (
            (
                "host=postgres port=5432 dbname=extract_image",
                f"host={postgres_server.socket_folder} dbname={database} user={role}",
            ),
            ("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1"),
            ("listen_port = 6432", f"listen_port = {port}"),
            ("/tmp/users.txt", str(users)),
        ):
            assert before in ini
            ini = ini.replace(before, after)
        (folder / "pgbouncer.ini").write_text(ini)
        (folder / "pgbouncer.ini").chmod(0o644)  # whatever the umask is: commands of ours that tests run in this process set it
        # As the service does it: the command of pgbouncer.yml writes the file of users.
        [script] = overlay("pgbouncer")["services"]["pgbouncer"]["command"]
        writes = script.replace("$$", "$").replace("/run/secrets", str(secrets)).replace("/tmp/users.txt", str(users))
        runs = writes.replace("pgbouncer /etc/pgbouncer/pgbouncer.ini", f"{PGBOUNCER} {folder}/pgbouncer.ini")
        user = postgres_server.socket_folder.stat().st_uid if os.geteuid() == 0 else None
        with started(folder, port, ["/bin/sh", "-c", runs], os.environ, user):
            assert users.stat().st_mode & 0o077 == 0

            def ask(word: str) -> Any:
                where = f"host=127.0.0.1 port={port} user=extract_image password={word} dbname=extract_image connect_timeout=20"
                with psycopg.connect(where, prepare_threshold=None) as connection:
                    return connection.execute("SELECT current_user, current_database()").fetchone()

            assert ask(password) == (role, database)
            with pytest.raises(psycopg.OperationalError, match=r"(?i)password|SASL"):
                ask("wrong")
        with psycopg.connect(postgres_server.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
            connection.execute(f"DROP ROLE {role}")
            connection.execute(f'CREATE DATABASE "{database}"')  # postgres_server.database drops it


# Caddy before nginx


@dataclass
class Web:
    """Stands for the web processes: it knows one key, and notes what it is asked."""

    seen: list[tuple[str, dict[str, str], int]] = field(default_factory=list)  #: method and path, headers, bytes of the body
    next_event: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[int]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                web.seen.append((f"GET {self.path}", {name.lower(): value for name, value in self.headers.items()}, 0))
                if self.path.endswith("/events"):
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.send_header("Connection", "close")
                    self.end_headers()
                    self.wfile.write(b"data: first\n\n")
                    web.next_event.wait(60)
                    self.wfile.write(b"data: second\n\n")
                    self.close_connection = True
                    return
                known = self.headers.get("Authorization") == f"Bearer {KEY}"
                self.answer(200 if known or not self.path.endswith("/key") else 401, b'{"error":"no key"}')

            def do_POST(self) -> None:
                if self.headers.get("Authorization") != f"Bearer {KEY}":
                    web.seen.append((f"POST {self.path}", {}, 0))
                    self.answer(401, b'{"error":"the service refuses the key"}')
                    self.close_connection = True
                    return
                length = int(self.headers["Content-Length"])
                left = length
                while left:
                    left -= len(self.rfile.read(min(left, 1 << 20)))
                web.seen.append((f"POST {self.path}", {name.lower(): value for name, value in self.headers.items()}, length))
                self.answer(200, b'{"results":"read"}')

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            self.next_event.set()
            server.shutdown()
            server.server_close()


@dataclass(frozen=True)
class Door:
    """Caddy before nginx before `web`."""

    web: Web
    https: int
    http: int
    root: Path  #: the certificate of Caddy's own authority

    def connect(self) -> http.client.HTTPSConnection:
        trusted = ssl.create_default_context(cafile=str(self.root))
        return http.client.HTTPSConnection("localhost", self.https, context=trusted, timeout=60)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        connection = self.connect()
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()


def nginx_configuration(folder: Path, listens: int, web: int) -> str:
    """deploy/nginx.conf with this test's ports and folders. Debian's nginx does not know `resolve` of a server."""
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    changes = {
        "pid /tmp/nginx.pid;": f"pid {folder}/nginx.pid;",
        "error_log /dev/stderr warn;": f"error_log {folder}/error.log warn;",
        "access_log /dev/stdout combined;": f"access_log {folder}/access.log combined;",
        "resolver 127.0.0.11 valid=5s ipv6=off;": "",
        "server web:8000 resolve;": f"server 127.0.0.1:{web};",
        "listen 8080;": f"listen 127.0.0.1:{listens};",
        "/var/cache/nginx": str(folder),
        "/tmp/fastcgi": f"{folder}/fastcgi",
        "/tmp/uwsgi": f"{folder}/uwsgi",
        "/tmp/scgi": f"{folder}/scgi",
    }
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return text


def knows_full_duplex(caddy: str) -> bool:
    """Debian's Caddy 2.6 does not. It answers a refused body all the same, while more of the body comes."""
    said = subprocess.run([caddy, "version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:2])) >= (2, 7)


@contextmanager
def sending(connection: http.client.HTTPSConnection, most: int) -> Iterator[list[int]]:
    """Sends a body piece by piece, in a thread, until the block ends. Gives a list whose sum is what was sent; it stops at `most`."""
    sent: list[int] = []
    over = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(0.01) and sum(sent) < most:
                connection.send(b"x" * 16_384)
                sent.append(16_384)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


@pytest.fixture
def door() -> Iterator[Door]:
    for name, found in (("caddy", CADDY), ("nginx", NGINX)):
        if not found:
            pytest.skip(f"no {name} is installed here: `make proxies` installs Debian's package")
    assert CADDY is not None
    assert NGINX is not None
    web = Web()
    ports = {name: free_port() for name in ("UPSTREAM", "HTTP_PORT", "HTTPS_PORT", "HEALTH_PORT")}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ximg-door-")))
        folder.chmod(0o777)  # nginx that root starts runs as another user
        behind = stack.enter_context(web.running())
        (folder / "nginx.conf").write_text(nginx_configuration(folder, ports["UPSTREAM"], behind))
        command = [NGINX, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log", "-g", "daemon off;"]
        stack.enter_context(started(folder, ports["UPSTREAM"], command))
        given = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "tls"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "SITE": "localhost",
            **{name: str(port) for name, port in ports.items()},
            "UPSTREAM": f"127.0.0.1:{ports['UPSTREAM']}",
        }
        text = (COMPOSE / "Caddyfile").read_text()
        if not knows_full_duplex(CADDY):
            text = re.sub(r"^\s*enable_full_duplex.*\n", "", text, flags=re.MULTILINE)
        (folder / "Caddyfile").write_text(text)
        command = [CADDY, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
        stack.enter_context(started(folder, ports["HTTPS_PORT"], command, given))
        root = folder / "tls" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        found = Door(web, ports["HTTPS_PORT"], ports["HTTP_PORT"], root)
        ends = time.monotonic() + 30
        while True:  # the certificate is signed after the port is open
            try:
                assert found.ask("GET", "/api/v1/extract-image")[0] == 200
                break
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < ends, (folder / "caddy.log").read_text()
                time.sleep(0.05)
        health = http.client.HTTPConnection("127.0.0.1", ports["HEALTH_PORT"], timeout=20)
        health.request("GET", "/")
        assert health.getresponse().status == 204
        health.close()
        web.seen.clear()
        yield found


def test_plain_http_is_led_to_tls(door: Door) -> None:
    connection = http.client.HTTPConnection("localhost", door.http, timeout=30)
    connection.request("GET", "/docs?x=1")
    answer = connection.getresponse()
    assert answer.status == 308
    assert answer.getheader("Location", "").startswith("https://localhost")
    assert answer.getheader("Location", "").endswith("/docs?x=1")
    connection.close()
    assert door.web.seen == []


def test_a_body_with_a_known_key_arrives_whole_and_says_where_it_comes_from(door: Door) -> None:
    status, body, _ = door.ask(
        "POST", "/api/v1/extract-image", b"x" * (1 << 20), Authorization=f"Bearer {KEY}", X_Forwarded_For="9.9.9.9"
    )
    assert (status, json.loads(body)) == (200, {"results": "read"})
    (asked, _, none), (posted, headers, length) = door.web.seen
    assert (asked, none) == ("GET /api/v1/key", 0)
    assert (posted, length) == ("POST /api/v1/extract-image", 1 << 20)
    assert headers["x-forwarded-proto"] == "https"
    assert "9.9.9.9" not in headers["x-forwarded-for"]  # what a client says of itself is not believed
    assert headers["host"].startswith("localhost")


def test_a_stranger_is_refused_by_the_service_s_words_before_the_body_was_taken(door: Door) -> None:
    connection = door.connect()
    connection.putrequest("POST", "/api/v1/extract-image")
    connection.putheader("Authorization", "Bearer xim_stranger")
    connection.putheader("Content-Length", str(BIG))
    connection.endheaders()
    with sending(connection, BIG) as sent:
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (401, {"error": "the service refuses the key"})
    assert sum(sent) < BIG  # nobody waited for the rest
    connection.close()
    assert [line for line, _, _ in door.web.seen] == ["GET /api/v1/key", "POST /api/v1/extract-image"]


def test_a_body_over_the_limit_is_refused_in_json_before_it_was_taken(door: Door) -> None:
    connection = door.connect()
    connection.putrequest("POST", "/api/v1/extract-image")
    connection.putheader("Authorization", f"Bearer {KEY}")
    connection.putheader("Content-Length", str(321 << 20))
    connection.endheaders()
    with sending(connection, BIG) as sent:
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("X-Error-Code")) == (400, "body_too_large")
        assert "error" in json.loads(answer.read())
    assert sum(sent) < BIG
    connection.close()
    assert not [line for line, _, _ in door.web.seen if line.startswith("POST")]


def test_events_go_out_as_they_come(door: Door) -> None:
    connection = door.connect()
    connection.request("GET", "/api/v1/jobs/job_1/events", headers={"Authorization": f"Bearer {KEY}"})
    answer = connection.getresponse()
    assert answer.readline() == b"data: first\n"  # the second event is not sent before this one was read
    door.web.next_event.set()
    assert b"data: second" in answer.read()
    connection.close()


def test_a_head_that_is_too_large_is_refused(door: Door) -> None:
    assert door.ask("GET", "/api/v1/extract-image", Cookie="x" * 60_000)[0] in {400, 431}


def test_nothing_in_the_caddyfile_is_shorter_than_what_nginx_allows() -> None:
    text = re.sub(r"#.*", "", (COMPOSE / "Caddyfile").read_text())
    assert not re.search(r"\bwrite\b|response_header_timeout|read_timeout|write_timeout|request_buffers|max_size", text)
    assert "flush_interval -1" in text
