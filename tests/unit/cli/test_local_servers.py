"""A server of local models on this machine is found by its port, quickly, and never our own."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli.local_servers import local_servers


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.server.body if self.path == "/v1/models" else b"no"
            self.send_response(self.server.status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.status = 200
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def found(server, **options):
    return local_servers(ports={server.server_port: "Ollama"}, **options)


def listing(*names: str) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()


def test_the_advice_names_the_settings_to_paste_and_a_model_that_sees(server):
    server.body = listing("llama3:8b", "qwen2.5vl:7b")
    [one] = found(server)
    assert f"ENGINE=openai OPENAI_BASE_URL=http://127.0.0.1:{server.server_port}/v1 MODEL=qwen2.5vl:7b" in one.advice
    assert "Ollama" in one.advice


def test_a_server_without_a_model_is_named_too(server):
    server.body = listing()
    [one] = found(server)
    assert "MODEL=NAME" in one.advice


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data": 5}', b'{"data": [5]}', b'{"data": [{}]}'])
def test_what_lists_no_models_is_no_model_server(server, body):
    server.body = body
    assert found(server) == []


def test_a_refusal_our_own_port_and_a_port_that_never_answers_are_left_out(server):
    server.body = listing("m")
    assert found(server, without={server.server_port}) == []
    server.status = 401
    assert found(server) == []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert local_servers(ports={silent.getsockname()[1]: "vLLM"}) == []
