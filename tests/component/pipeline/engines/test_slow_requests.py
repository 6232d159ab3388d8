"""A call in the tier economy waits for minutes. Meanwhile its process holds the pictures once, and neither the request nor a copy."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pipeline.engines.gemini import GeminiEngine
from pipeline.engines.openai import OpenAiEngine
from pipeline.ports import ModelFault, ModelUnavailable
from pipeline.types import MB, Call, Form, Picture, Prepared, Tier

PICTURES, SIZE = 4, MB
ENGINES = {"gemini": GeminiEngine, "openai": OpenAiEngine}


class Holding(HTTPServer):
    """Throws each request away, and answers it with a 500 when it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Held)
        self.received = 0  #: bytes of the last request
        self.arrived, self.go_on = threading.Event(), threading.Event()


class _Held(BaseHTTPRequestHandler):
    server: Holding

    def do_POST(self) -> None:
        self.server.received = left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 10_000)))
        self.server.arrived.set()
        self.server.go_on.wait(30)
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def holding() -> Iterator[Holding]:
    with Holding() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


def as_jpeg(_data: bytes) -> Prepared:
    return Prepared(data=b"j" * SIZE, mime="image/jpeg", width=1, height=1, source_format="WEBP")


@pytest.mark.parametrize("mime", ["image/png", "image/webp"])
@pytest.mark.parametrize("name", ENGINES)
def test_a_slow_call_holds_no_copy_of_its_pictures(name, mime):
    with holding() as server:
        address = {"base_url": f"http://127.0.0.1:{server.server_port}", "api_key": "k", "model": "m"}
        engine = OpenAiEngine(**address, reencode=as_jpeg) if name == "openai" else GeminiEngine(**address)
        pictures = tuple(Picture(number=number, mime=mime, data=bytes([number]) * SIZE) for number in range(PICTURES))
        call = Call(prompt="p", form=Form.TEXT, json_mode=False, pictures=pictures, timeout=60, tier=Tier.ECONOMY)

        def ask() -> None:
            with suppress(ModelFault, ModelUnavailable):
                engine.ask(call)

        asking = threading.Thread(target=ask)
        tracemalloc.start()
        try:
            asking.start()
            assert server.arrived.wait(30)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            server.go_on.set()
            asking.join()
            engine.close()
        assert server.received > PICTURES * SIZE * 4 / 3
        assert held < PICTURES * SIZE / 4, "beside the pictures, which were there before"
