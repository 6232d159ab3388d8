"""A real nginx with deploy/nginx.conf says what became of a request whose web process it lost."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from testbed.production import eventually, free_port
from tests.hosts.proxy import configuration

pytestmark = pytest.mark.skipif(not shutil.which("nginx"), reason="no nginx: apt-get install nginx-light")
KEY_IS_VALID = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
POST, GET = ("POST", "/api/v1/extract-image"), ("GET", "/api/v1/jobs")


class Dying:
    """A web process that says that the key is valid, reads each other request, and dies of it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self.listener.accept()
                with accepted:
                    if b" /api/v1/key " in accepted.recv(1 << 16):
                        accepted.sendall(KEY_IS_VALID)

    def close(self) -> None:
        self.listener.close()


@contextmanager
def nginx(folder: Path, *ports: int) -> Iterator[int]:
    """Gives its port."""
    port = free_port()
    file = folder / "nginx.conf"
    (folder / "cache").mkdir()
    file.write_text(configuration([f"127.0.0.1:{port}" for port in ports], folder, port=port))
    user = "" if os.geteuid() else "user root;"  # the default user may not enter the folder
    process = subprocess.Popen(
        ["nginx", "-c", str(file), "-g", f"daemon off; {user}"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens)
        yield port
    finally:
        process.terminate()
        process.wait()


def asked(port: int, method: str, path: str) -> tuple[int, str | None, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, b"{}" if method == "POST" else None)
        answer = connection.getresponse()
        return answer.status, answer.headers["X-Error-Code"], json.loads(answer.read())["error"]
    finally:
        connection.close()


@pytest.fixture
def dying() -> Iterator[Dying]:
    web = Dying()
    yield web
    web.close()


def test_a_request_that_reached_a_web_process_may_have_made_a_job(tmp_path, dying):
    with nginx(tmp_path, dying.port) as port:
        status, code, text = asked(port, *POST)
    assert (status, code) == (503, "maybe_accepted")
    assert "Idempotency-Key" in text


def test_a_request_that_only_reads_has_made_nothing(tmp_path, dying):
    with nginx(tmp_path, dying.port) as port:
        assert asked(port, *GET)[:2] == (503, "unavailable")


def test_a_request_that_reached_no_web_process_has_made_nothing(tmp_path):
    with nginx(tmp_path, free_port()) as port:
        assert asked(port, *POST)[:2] == (503, "unavailable")
