"""The webhook receiver. It records all calls. It can be down, or close the connection without an answer."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Hook)
        self.hits = 0  #: calls that were not answered with 204
        self.mode = "up"  #: up, down (answers 500) or lost (sends no answer)
        self.got: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Ignores errors, because the torture kills callers on purpose."""


class _Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mode = self.server.mode
        self.server.hits += mode != "up"
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower().startswith("webhook-")}
        self.server.got.append(
            {
                "at": time.time(),
                "answered": "500" if mode == "down" else "204",
                "mode": mode,
                "headers": headers,
                "body": body.decode(),
            }
        )
        if mode == "lost":
            self.close_connection = True
            return
        self.send_response(500 if mode == "down" else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""
