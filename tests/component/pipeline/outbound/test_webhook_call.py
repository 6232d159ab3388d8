"""Calling a webhook: behind the same guard as images, bounded in time, and never an exception."""

from __future__ import annotations

import socket
import threading

import pytest

from pipeline.outbound.addresses import parse_allow
from pipeline.outbound.webhook import WebhookResponse
from pipeline.outbound.webhook_call import WebhookCaller
from tests.fakes.loopback_web import Server, answer, redirect

ALLOW = parse_allow("127.0.0.1/32:*")


@pytest.fixture
def receiver():
    made = []

    def start(paths):
        made.append(Server(paths))
        return made[-1]

    yield start
    for server in made:
        server.close()


def call(url, *, allow=ALLOW, **options):
    return WebhookCaller(allow, **options)(url, {"Content-Type": "application/json", "webhook-id": "evt_1"}, b'{"type":"x"}')


def url(server, path="/hook"):
    return f"http://127.0.0.1:{server.port}{path}"


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "410 Gone", "500 Oops"])
def test_the_status_is_what_counts(receiver, status):
    server = receiver({"/hook": answer(b"", status)})
    assert call(url(server)) == WebhookResponse(status=int(status[:3]))


def test_the_body_and_the_headers_arrive_as_they_are(receiver):
    got = []

    def read(connection):
        data = connection.recv(65536)
        while b'{"type":"x"}' not in data:
            data += connection.recv(65536)
        got.append(data)
        connection.sendall(answer(b""))

    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            read(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    assert call(f"http://127.0.0.1:{listener.getsockname()[1]}/hook?a=b").accepted
    thread.join()
    listener.close()
    head, _, body = got[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hook?a=b HTTP/1.1")
    assert b"webhook-id: evt_1" in head
    assert b"Content-Type: application/json" in head
    assert b"Expect" not in head
    assert body == b'{"type":"x"}'


def test_when_to_come_back_is_read(receiver):
    server = receiver({"/hook": answer(b"", "503 Busy", "Retry-After: 120")})
    assert call(url(server)) == WebhookResponse(status=503, retry_after=120)


def test_a_redirect_is_not_followed(receiver):
    other = receiver({"/": answer(b"")})
    server = receiver({"/hook": redirect(f"http://127.0.0.1:{other.port}/")})
    assert call(url(server)).status == 302
    assert other.connections == 0


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/", "http://[::1]:{port}/", "http://0x7f.1:{port}/", "ftp://127.0.0.1:{port}/"]
)
def test_a_forbidden_address_sees_no_connection(receiver, target):
    server = receiver({"/": answer(b"")})
    answered = call(target.format(port=server.port), allow=())
    assert answered.status is None
    assert server.connections == 0


def test_a_name_that_leads_to_a_forbidden_address_sees_no_connection(receiver):
    server = receiver({"/": answer(b"")})
    answered = call(f"http://hook.example:{server.port}/", resolve=lambda *_: ["127.0.0.2"])
    assert answered == WebhookResponse(status=None, error="not reachable")
    assert server.connections == 0


def test_a_proxy_in_the_environment_is_not_used(receiver, monkeypatch):
    proxy, server = receiver({}), receiver({"/hook": answer(b"")})
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert call(url(server)).accepted
    assert proxy.connections == 0


def test_nobody_there_is_an_error_and_not_an_exception():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert call(f"http://127.0.0.1:{port}/").error == "not reachable"


def test_a_receiver_that_never_answers_is_given_up(receiver):
    def hang(connection):
        connection.recv(65536)
        server.gone.wait()

    server = receiver({"/hook": hang})
    answered = call(url(server), seconds=0.3)
    server.gone.set()
    assert answered == WebhookResponse(status=None, error="timed out")


def test_an_answer_without_an_end_counts_by_its_status(receiver):
    server = receiver({"/hook": answer(b"x" * 1_000_000)})
    assert call(url(server)) == WebhookResponse(status=200)
