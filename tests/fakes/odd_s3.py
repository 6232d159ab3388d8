"""A server on loopback that answers S3 requests as a test wants. It is for answers that a real server seldom gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from config.settings import Settings, load_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request. The names of its headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer. `cut`: the number of bytes at the end of the body that are not sent. `headers`: more headers."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/xml"
    cut: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class OddS3:
    """Answers each request with the result of `answer`. Records the requests."""

    answer: Callable[[Asked], Answer]
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    def settings(self, **changed: str) -> Settings:
        """The settings of a service that uses this server for scratch."""
        given = {
            "SCRATCH_URL": "s3://bucket/prefix",
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key-of-a-test",
            "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
            "AWS_REGION": "eu-central-1",
        }
        return load_settings({**given, **changed})


def fault(status: int, code: str, message: str = "") -> Answer:
    """An error in S3's format."""
    return Answer(status=status, body=f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


@contextmanager
def odd_s3(answer: Callable[[Asked], Answer]) -> Iterator[OddS3]:
    odd = OddS3(answer=answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            odd.connections += 1
            super().setup()

        def handle_any(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            asked = Asked(method=self.command, path=self.path, headers=headers, body=body)
            odd.asked.append(asked)
            given = odd.answer(asked)
            self.send_response_only(given.status)
            for name, value in ({"Date": self.date_time_string()} | given.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Type", given.kind)
            self.send_header("Content-Length", str(len(given.body)))
            self.end_headers()
            self.wfile.write(given.body[: len(given.body) - given.cut])
            self.close_connection = given.cut > 0

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # the server does not wait for open connections when it closes
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        odd.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield odd
        finally:
            server.shutdown()
            thread.join()
