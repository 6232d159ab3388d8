"""One account, and strangers without a key, misbehave in all ways of which one could stop the service for the others."""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from testbed import PictureServer
from tests.fakes.gemini import numbered_picture
from tests.torture.entry import HANGING

EXTRACT, JOBS = "/api/v1/extract-image", "/api/v1/jobs"
CONNECTIONS = 60  #: of each kind that holds connections
DRIP_SECONDS = 0.5
PAUSE_SECONDS = 12.0  #: the longest time between two rounds of each kind of request
DEADLINE_SECONDS = 20  #: of its jobs
CHUNKS = 1_600_000
GONE = (OSError, http.client.HTTPException)

Row = dict[str, Any]


class Misbehaving:
    """The account's threads. `did` counts what it sent."""

    def __init__(self, *, ports: list[int], key: str, web: PictureServer) -> None:
        self.did: Counter[str] = Counter()
        self._ports = ports
        self._key = key
        self._web = web
        self._stop = threading.Event()
        self._holes = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2)]  # never answered; dripped at
        self._accepted: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._drip_pictures, daemon=True)]
        for act in (
            self._silent_connections,
            self._slow_bodies,
            self._hostile_schema,
            self._hanging_names,
            self._hanging_webhooks,
            self._large_prompt,
            self._waits,
            self._slow_servers,
            self._many_chunks,
        ):
            self._threads.append(threading.Thread(target=self._again, args=(act,), name=act.__name__, daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stops, closes its connections and cancels its jobs."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        for hole in (*self._holes, *self._accepted):
            hole.close()

    def cancel_all(self) -> None:
        """Cancels its open jobs. Some may have ended meanwhile."""
        for status in ("queued", "running"):
            answer = self._send("GET", f"{JOBS}?limit=100&status={status}")
            for job in json.loads(answer or b"{}").get("jobs", []):
                self._send("POST", f"{JOBS}/{job['id']}/cancel")

    def _again(self, act: Callable[[], None]) -> None:
        while not self._stop.wait(random.uniform(0.2, 1) * PAUSE_SECONDS):
            with suppress(*GONE):
                act()
                self.did[act.__name__.strip("_").replace("_", " ")] += 1

    # --- connections that are held

    def _hold(self, head: bytes, seconds: float) -> None:
        opened = []
        try:
            for _ in range(CONNECTIONS):
                opened.append(socket.create_connection(("127.0.0.1", random.choice(self._ports)), timeout=5))
                opened[-1].sendall(head)
            for _ in range(int(seconds / DRIP_SECONDS)):
                if self._stop.wait(DRIP_SECONDS):
                    return
                for connection in opened:
                    with suppress(OSError):
                        connection.send(b"x", socket.MSG_DONTWAIT) if head else None
        finally:
            for connection in opened:
                connection.close()

    def _silent_connections(self) -> None:
        self._hold(b"", 20)

    def _slow_bodies(self) -> None:
        key = random.choice([f"Authorization: Bearer {self._key}\r\n", ""])
        self._hold(f"POST {EXTRACT} HTTP/1.1\r\nHost: x\r\n{key}Content-Length: 90000000\r\n\r\n{{".encode(), 20)

    # --- requests

    def _post(self, images: list[str], *, wait: str = "respond-async", **fields: Any) -> None:
        method = "url" if images[0].startswith("http") else "base64"
        body = {"inputMethod": method, "images": images, "prompt": "p", "deadlineSeconds": DEADLINE_SECONDS, **fields}
        self._send("POST", EXTRACT, json.dumps({**body, "metadata": {"phase": "attack", "name": "attack"}}).encode(), wait)

    def _send(self, method: str, path: str, body: bytes | None = None, prefer: str = "respond-async") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", random.choice(self._ports), timeout=30)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Prefer": prefer}
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse().read()
        except GONE:
            return b""
        finally:
            connection.close()

    def _picture(self) -> str:
        return base64.b64encode(numbered_picture(900_000 + random.randrange(1000))).decode()

    def _hostile_schema(self) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"anyOf": [{"type": "null"}] * 1900}}}}
        self._post([self._picture()], jsonMode=True, schema=schema)

    def _hanging_names(self) -> None:
        self._post([f"http://n{random.randrange(10**9)}{HANGING}/x.png" for _ in range(200)])

    def _hanging_webhooks(self) -> None:
        for _ in range(5):
            self._post([self._picture()], webhookUrl=f"http://127.0.0.1:{self._holes[0].getsockname()[1]}/hook")

    def _large_prompt(self) -> None:
        self._post([self._picture()], prompt="x" * 40_000_000)
        self._post([self._picture()], prompt="x" * 100_000)

    def _waits(self) -> None:
        url = f"http://127.0.0.1:{self._holes[1].getsockname()[1]}/wait.png"
        threads = [threading.Thread(target=self._post, args=([url],), kwargs={"wait": "wait=15"}, daemon=True) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    def _slow_servers(self) -> None:
        port = self._holes[1].getsockname()[1]
        self._post([f"http://127.0.0.1:{port}/{random.randrange(10**9)}.png" for _ in range(100)])

    def _many_chunks(self) -> None:
        data = numbered_picture(900_000)
        at = 8 + 25  # the signature and the header
        empty = b"\0\0\0\0teSt" + zlib.crc32(b"teSt").to_bytes(4, "big")
        name = "attack-chunks.png"
        self._post([self._web.page(name, data[:at] + empty * CHUNKS + data[at:])])

    def _drip_pictures(self) -> None:
        """Answers requests for pictures with a byte now and then, and requests of webhooks with nothing."""
        for hole in self._holes:
            hole.setblocking(False)
        while not self._stop.wait(DRIP_SECONDS):
            for hole in self._holes:
                with suppress(OSError):
                    while True:
                        accepted, _ = hole.accept()
                        self._accepted.append(accepted)
                        if hole is self._holes[1]:
                            accepted.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            port = self._holes[1].getsockname()[1]
            for connection in self._accepted:
                with suppress(OSError):
                    if connection.getsockname()[1] == port:
                        connection.send(b"x", socket.MSG_DONTWAIT)
