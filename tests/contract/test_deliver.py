"""What every Deliver promises: the one in memory, and the real one against receivers on loopback.

In memory a receiver answers with what tests/fakes/deliver.py says that the real one makes of such a receiver.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.outbound.addresses import parse_allow
from pipeline.outbound.webhook import WebhookResponse
from pipeline.outbound.webhook_call import WebhookCaller
from tests.fakes import loopback_web
from tests.fakes.deliver import ACCEPTED, BUSY, FAILED, GONE, LATE, NOT_ALLOWED, REDIRECTED, UNREACHABLE, FakeDeliver
from tests.fakes.loopback_web import ALLOW, Server, answer, redirect
from tests.rows import at_once

serve = loopback_web.serve  # fixture

HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_1"}
BODY = b'{"type": "job.succeeded"}'


class MemoryReceivers:
    """The fake, and what its receivers were sent."""

    def __init__(self) -> None:
        self.deliver = FakeDeliver()

    def receiver(self, answered: WebhookResponse) -> str:
        self.deliver.script = lambda _number: answered
        return "https://hooks.test/hook"

    def received(self) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for _, headers, body in self.deliver.calls]


class LoopbackReceivers:
    """The real one, which can reach 127.0.0.1, and a server there that does what makes the wanted response."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.deliver = WebhookCaller(ALLOW, seconds=1.0, resolve=self._resolve)
        self._paths: dict[WebhookResponse, Any] = {
            ACCEPTED: answer(b"", "204 No Content"),
            FAILED: answer(b"oh no", "500 Internal Server Error"),
            GONE: answer(b"", "410 Gone"),
            BUSY: answer(b"", "503 Service Unavailable", "Retry-After: 120"),
            REDIRECTED: redirect("/elsewhere"),
            LATE: lambda _connection: server.gone.wait(),
        }

    def receiver(self, answered: WebhookResponse) -> str:
        if answered == UNREACHABLE:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                return f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
        self.server.paths["/hook"] = self._paths[answered]
        return f"http://hooks.test:{self.server.port}/hook"

    def received(self) -> list[tuple[dict[str, str], bytes]]:
        heads = [dict(line.split(": ", 1) for line in request.split("\r\n")[1:]) for request in self.server.requests]
        return list(zip(heads, self.server.bodies, strict=True))

    @staticmethod
    def _resolve(host: str, _port: int) -> list[str]:
        if host != "hooks.test":
            raise OSError("no such name")
        return ["127.0.0.1"]


Receivers = MemoryReceivers | LoopbackReceivers


@pytest.fixture(params=["memory", "loopback"])
def receivers(request: pytest.FixtureRequest, serve: Callable[..., Server]) -> Receivers:
    return MemoryReceivers() if request.param == "memory" else LoopbackReceivers(serve({"/elsewhere": answer(b"")}))


def test_a_call_is_one_post_with_the_headers_and_the_body_as_they_are(receivers):
    assert receivers.deliver(receivers.receiver(ACCEPTED), HEADERS, BODY) == ACCEPTED
    [(headers, body)] = receivers.received()
    assert body == BODY
    assert headers.items() >= HEADERS.items()


@pytest.mark.parametrize("body", [b"", b"\0\xff", b"x" * 20_000])
def test_a_body_of_any_bytes_arrives_whole(receivers, body):
    assert receivers.deliver(receivers.receiver(ACCEPTED), HEADERS, body).accepted
    assert [received for _, received in receivers.received()] == [body]


@pytest.mark.parametrize("answered", [ACCEPTED, FAILED, GONE, BUSY, REDIRECTED, LATE], ids=str)
def test_what_a_receiver_does_is_a_response_and_it_is_asked_once(receivers, answered):
    """A redirect is not followed; a receiver that asks for time is not asked again here."""
    assert receivers.deliver(receivers.receiver(answered), HEADERS, BODY) == answered
    assert len(receivers.received()) == 1


def test_a_receiver_that_is_not_there_is_a_response(receivers):
    assert receivers.deliver(receivers.receiver(UNREACHABLE), HEADERS, BODY) == UNREACHABLE


@pytest.mark.parametrize(
    "url", ["", "no url", "ftp://hooks.test/", "http://me:secret@hooks.test/", "http://10.0.0.1/", "http://[::1]/"]
)
def test_a_url_that_may_not_be_called_is_a_response_and_nobody_is_asked(receivers, url):
    receivers.receiver(ACCEPTED)
    assert receivers.deliver(url, HEADERS, BODY) == NOT_ALLOWED
    assert receivers.received() == []


def test_threads_that_deliver_at_once_get_each_their_own_response(receivers):
    url = receivers.receiver(ACCEPTED)
    bodies = [b"%d" % number for number in range(16)]
    assert at_once(*(lambda body=body: receivers.deliver(url, HEADERS, body) for body in bodies)) == [ACCEPTED] * 16
    assert sorted(body for _, body in receivers.received()) == sorted(bodies)


# ---- what only a network can do to the real one


@pytest.fixture
def deliver() -> WebhookCaller:
    return WebhookCaller(ALLOW, seconds=1.0, resolve=lambda _host, _port: ["127.0.0.1"])


def _reset(connection: Any) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


@pytest.mark.parametrize(
    "doing",
    [
        pytest.param(b"\x16\x03\x01 this is not HTTP\r\n\r\n", id="garbage"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", id="no status"),
        pytest.param(lambda connection: connection.shutdown(socket.SHUT_RDWR), id="ends"),
        pytest.param(_reset, id="resets"),
    ],
)
def test_a_receiver_that_gives_no_status_is_a_response_that_says_why(serve, deliver, doing):
    response = deliver(f"http://hooks.test:{serve({'/hook': doing}).port}/hook", HEADERS, BODY)
    assert response.status is None
    assert response.error


def test_an_answer_without_an_end_is_not_read_to_its_end_and_counts_by_its_status(serve, deliver):
    sent = []

    def endless(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent.append(connection.send(bytes(65536)))

    server = serve({"/hook": endless})
    assert deliver(f"http://hooks.test:{server.port}/hook", HEADERS, BODY) == WebhookResponse(status=200)
    assert sum(sent) < 100_000_000


@pytest.mark.parametrize("addresses", [[], ["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["10.0.0.1"], ["nonsense"]], ids=str)
def test_a_name_that_leads_nowhere_or_to_where_it_may_not_is_a_response(serve, addresses):
    server = serve({"*": answer(b"")})
    deliver = WebhookCaller(ALLOW, resolve=lambda _host, _port: addresses)
    assert deliver(f"http://hooks.test:{server.port}/hook", HEADERS, BODY) == UNREACHABLE
    assert server.connections == 0


def test_a_port_that_is_not_open_to_webhooks_is_not_called(serve):
    server = serve({"*": answer(b"")})
    deliver = WebhookCaller(parse_allow(""), resolve=lambda _host, _port: ["127.0.0.1"])
    assert deliver(f"http://hooks.test:{server.port}/hook", HEADERS, BODY) == NOT_ALLOWED
    assert server.connections == 0
