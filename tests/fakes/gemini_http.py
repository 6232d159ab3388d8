"""The fake's HTTP server. It listens on loopback, speaks HTTP/1.1 with keep-alive, and has a thread for each connection."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from .gemini_contract import BODY_LIMIT, INPUT_TOKENS, OUTPUT_TOKENS
from .gemini_errors import ApiError, bad_key, bad_request
from .gemini_replies import HTML_TYPE, Reply, error_reply

if TYPE_CHECKING:
    from .gemini import FakeGemini

MODEL_PATH = re.compile(r"/v1beta/models/([^/:]+)")
GENERATE_PATH = re.compile(r"/v1beta/models/([^/:]+):generateContent")
FILE_PATH = re.compile(r"/v1beta/(files/[^/:]+)")
UPLOAD_PATH = "/upload/v1beta/files"
#: Most bytes of an upload's chunk. Google allows any size; the SDK sends 8 MB, so tests do not need more than this.
CHUNK_LIMIT = 64 * 1024 * 1024


class Server(ThreadingHTTPServer):
    """Serves until `stop`. That method ends every connection and waits for their threads."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, fake: FakeGemini, host: str) -> None:
        super().__init__((host, 0), Handler)
        self.fake = fake
        self._open: set[socket.socket] = set()
        self._changed = Condition()
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-gemini", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._changed:
            for connection in self._open:
                _shut(connection)
            if not self._changed.wait_for(lambda: not self._open, timeout=10):
                raise RuntimeError(f"{len(self._open)} connections of the fake did not end")

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that close their connection. Handler.serve records all other errors as faults."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def serve(self) -> None:
        fake = self.server.fake
        if fake._resets_unread():
            self._reset()
            return
        order: int | None = None
        try:
            order, reply = self._answered()
        except ApiError as error:
            reply = error_reply(error)
        except OSError:  # the client closed the connection while its body was read
            self.close_connection = True
            return
        except Exception as error:  # a bug in a test's script or in the fake; `faults` shows it to the test
            fault = f"the fake itself failed: {error!r}"
            fake.faults.append(fault)
            reply = error_reply(ApiError(500, fault))
        if reply.reset:
            self._reset()
            return
        try:
            self._send(reply)
        except OSError:
            self.close_connection = True
            if order is not None:
                fake._unsent(order, reply)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = serve  # noqa: N815  the names http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's own name
        """Logs nothing, because tests read `calls`."""

    def _answered(self) -> tuple[int | None, Reply]:
        """The reply, and the index in `calls` if the request is a generateContent call."""
        fake = self.server.fake
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        limit = BODY_LIMIT if url.path != UPLOAD_PATH else CHUNK_LIMIT
        body = self._body(limit)
        token = query.get("upload_id", [""])[0]
        if url.path == UPLOAD_PATH and token and self.command == "POST":  # the token replaces the API key here
            return None, fake._file_call("upload", "", lambda: self._uploaded(token, body))
        if self.headers.get("x-goog-api-key", "") != fake.key:
            fake.bad_keys += 1
            raise bad_key()
        found = GENERATE_PATH.fullmatch(url.path)
        if found and self.command == "POST":
            return fake._generate(found[1], body, self.headers.get("X-Server-Timeout"))
        return None, self._other(url.path, body)

    def _other(self, path: str, body: bytes) -> Reply:
        fake = self.server.fake
        model, file = MODEL_PATH.fullmatch(path), FILE_PATH.fullmatch(path)
        if path == UPLOAD_PATH and self.command == "POST":
            return fake._file_call("start", "", lambda: self._started(body))
        if path == "/v1beta/files" and self.command == "GET":
            return fake._file_call("list", "", lambda: _json(fake.files.list()))
        if file and self.command == "GET":
            return fake._file_call("get", file[1], lambda: _json(fake.files.get(file[1])))
        if file and self.command == "DELETE":
            return fake._file_call("delete", file[1], lambda: _json(fake.files.delete(file[1])))
        if path == "/v1beta/models" and self.command == "GET":
            return _json({"models": [_model(name) for name in fake.models]})
        if model and self.command == "GET":
            fake._check_model(model[1])
            return _json(_model(model[1]))
        fake._refuse(f"no such method: {self.command} {path}")
        return Reply(status=404, body=b"<html><title>Error 404 (Not Found)!!1</title></html>", content_type=HTML_TYPE)

    def _started(self, body: bytes) -> Reply:
        address = self.server.fake.files.start(self.headers, body)
        headers = {"X-Goog-Upload-URL": address, "X-Goog-Upload-Status": "active", "X-Goog-Upload-Chunk-Granularity": "262144"}
        return Reply(body=b"", headers=headers)

    def _uploaded(self, token: str, body: bytes) -> Reply:
        file = self.server.fake.files.add(token, self.headers, body)
        status = {"X-Goog-Upload-Status": "active" if file is None else "final"}
        return replace(_json(file), headers=status) if file else Reply(body=b"", headers=status)

    def _body(self, limit: int) -> bytes:
        if self.command in ("GET", "DELETE") and "Content-Length" not in self.headers:
            return b""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():  # the SDK never sends a chunked body
            self.close_connection = True
            raise ApiError(411, "A request needs a Content-Length.")
        left = int(length)
        if left <= limit:
            body = self.rfile.read(left)
            if len(body) < left:
                raise ConnectionError("the client ended its body early")
            return body
        while left > 0 and (some := self.rfile.read(min(left, 1024 * 1024))):
            left -= len(some)  # read the whole body, because the client reads the answer only after sending it
        raise bad_request(f"Request payload size exceeds the limit: {limit} bytes.")

    def _send(self, reply: Reply) -> None:
        """Sends head and body in one write. Raises OSError if the client has closed the connection."""
        if self._client_gone():
            raise ConnectionError("the client went away before its answer")
        head = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", f"Date: {self.date_time_string()}"]
        head += [f"Content-Type: {reply.content_type}", f"Content-Length: {len(reply.body)}"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        if self.close_connection or reply.cut:
            head.append("Connection: close")
            self.close_connection = True
        body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + body)

    def _client_gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False  # nothing to read, so the client still waits

    def _reset(self) -> None:
        """Ends the connection with a RST. It drops unread and unsent bytes."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # socketserver would send a FIN first


def _json(value: dict[str, Any]) -> Reply:
    return Reply(body=json.dumps(value).encode())


def _model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "inputTokenLimit": INPUT_TOKENS,
        "outputTokenLimit": OUTPUT_TOKENS,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
        "thinking": True,
    }


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # its own thread has already closed it
