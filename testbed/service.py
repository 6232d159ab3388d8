"""Runs `extract-image serve` as a user does, and a web server with pictures."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60


def command_of(process: psutil.Process) -> list[str]:
    """The command line of a process, [] if it has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


class Service:
    """A running service and an API key with credits."""

    def __init__(
        self, folder: Path, process: subprocess.Popen[str], url: str, key: str, settings: dict[str, str] | None = None
    ) -> None:
        """`settings`: those of the service that its commands need too."""
        self.folder = folder
        self.settings = settings or {}
        self.process = process
        self.url = url
        self.key = key

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, timeout: float = 200
    ) -> tuple[int, dict[str, str], Any]:
        """Sends one request with the key. Returns status, headers (names in lower case) and the parsed JSON body."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
        try:
            sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(text)
        finally:
            connection.close()

    def extract(self, body: Any, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", "/api/v1/extract-image", data, headers)

    def follow(self, path: str) -> Any:
        """Waits until the job has ended and returns it."""
        while True:
            _, _, job = self.send("GET", f"{path}?wait=30")
            if job["finishedAt"]:
                return job

    def cli(self, *arguments: str) -> str:
        """Runs a command of the CLI with the service's data and returns its output."""
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=ROOT,
            env=environment(self.folder, **self.settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def scratch(self) -> list[Path]:
        """The files that are in scratch now."""
        return [path for path in (self.folder / "scratch").rglob("*") if path.is_file()]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.05)

    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    def balance(self) -> dict[str, int]:
        [row] = [row for row in json.loads(self.cli("keys", "list", "--json")) if not row["revoked"]]
        return {name: row[name] for name in ("available", "held", "charged")}


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Environment variables for a process of the service. Settings of the developer's shell are left out."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "DATA_DIR": str(folder), "PORT": "0", **settings}


@contextmanager
def serving(folder: Path, command: Sequence[str] = ("cli.main",), **settings: str) -> Iterator[Service]:
    """Starts the service. At the end of the block it sends Ctrl-C and checks that the service ends cleanly.

    `command`: the module with the `serve` command, and the module's arguments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "serve", "--ready-key"],
            cwd=ROOT,
            env=environment(folder, **settings),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        url, key = _ready(process, folder)
        database = {name: value for name, value in settings.items() if name == "DATABASE_URL"}
        service = Service(folder, process, url, key, database)
        yield service
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0, service.log()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _ready(process: subprocess.Popen[str], folder: Path) -> tuple[str, str]:
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    url = key = ""
    try:
        for line in process.stdout or ():
            url = url or (re.search(r"ready at (http://\S+)", line) or ["", ""])[1]
            key = key or (re.search(r"key +(xim_\w+)", line) or ["", ""])[1]
            if "Ctrl-C" in line:
                return url, key
    finally:
        timer.cancel()
    raise AssertionError(f"the service did not start:\n{(folder / 'serve.log').read_text()}")


class PictureServer(ThreadingHTTPServer):
    """Serves `pages` (path → bytes) over keep-alive connections, and counts the requests for each path."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Page)
        self.pages: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.url = f"http://{host}:{self.server_port}"
        self.allow = f"{host}/32:{self.server_port}"

    def page(self, name: str, data: bytes) -> str:
        self.pages[f"/{name}"] = data
        return f"{self.url}/{name}"


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: PictureServer

    def do_GET(self) -> None:
        data = self.server.pages.get(self.path)
        self.server.asked[self.path] += 1
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        """Logs nothing, to keep pytest's output readable."""


@contextmanager
def pictures(host: str = "127.0.0.1") -> Iterator[PictureServer]:
    server = PictureServer(host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
