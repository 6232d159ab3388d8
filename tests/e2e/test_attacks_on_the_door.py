"""Strangers and one customer hold every connection that they can get, and another account's request takes no longer for it."""

from __future__ import annotations

import base64
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from statistics import median
from urllib.parse import urlsplit

import pytest

from testbed import Service, serving
from tests.fakes.gemini import FakeGemini, numbered_picture

pytestmark = pytest.mark.xdist_group("serve")

TIMES = 15  #: requests of the victim, of which the median counts
IMAGE = {"inputMethod": "base64", "images": [base64.b64encode(numbered_picture(5)).decode()], "prompt": "p"}


def post(path: str, length: int, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", "{"]).encode()


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


#: What a stranger sends on how many connections. None of them is closed or read by its client.
STRANGERS: dict[str, tuple[int, bytes]] = {
    "declares a large body": (700, post("/api/v1/extract-image", 150_000_000)),
    "sends nothing": (1100, b""),
    "sends half a head": (300, b"GET /healthz HTTP/1.1\r\nX-Slow: "),
    "sends line breaks first": (300, b"\r\n\r\nGET /healthz"),
    "does not close": (200, get("/healthz", "Connection: close")),
    "keeps its connection": (200, get("/healthz")),
    "does not read": (300, get("/openapi.json") * 3),
}


def seconds_of_one_image(service: Service) -> float:
    """The median time of a request that waits for its answer."""
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        assert service.extract(IMAGE)[0] == 200
        taken.append(time.perf_counter() - began)
    return median(taken)


@contextmanager
def attack(service: Service, kinds: list[tuple[int, bytes]]) -> Iterator[list[socket.socket]]:
    """Opens the connections, and sends a byte on each now and then."""
    address = urlsplit(service.url)
    stop = threading.Event()
    with ExitStack() as stack:
        opened: list[socket.socket] = []
        for count, data in kinds:
            for _ in range(count):
                connection = stack.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(20)
                connection.connect((address.hostname or "", address.port or 0))
                with suppress(ConnectionError):
                    connection.sendall(data)
                opened.append(connection)

        def drip() -> None:
            while not stop.wait(0.5):
                for connection in opened:
                    with suppress(OSError):
                        connection.send(b"x", socket.MSG_DONTWAIT)

        thread = threading.Thread(target=drip)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield opened


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a shell often allows 1024
    folder = tmp_path_factory.mktemp("attacks") / "data"
    with FakeGemini() as fake, serving(folder, GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url) as started:
        seconds_of_one_image(started)  # warms it up
        yield started
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_strangers_who_hold_connections_in_every_way_do_not_slow_another_account_s_request(service):
    before = seconds_of_one_image(service)
    with attack(service, list(STRANGERS.values())):
        during = seconds_of_one_image(service)
    assert during <= 2 * max(before, seconds_of_one_image(service))


def test_a_customer_with_slow_bodies_and_waits_does_not_slow_another_account_s_request_nor_its_large_body(service):
    [key] = re.findall(r'"key": "(\w+)"', service.cli("keys", "create", "attacker", "--credits", "1000", "--json"))
    keyed = (f"Authorization: Bearer {key}", "Content-Type: application/json", "Prefer: respond-async")
    large = {**IMAGE, "other": "x" * 1_500_000}
    before = seconds_of_one_image(service)
    kinds = [(100, post("/api/v1/extract-image", 900_000, *keyed)), (50, post("/api/v1/extract-image", 90_000_000, *keyed))]
    with attack(service, kinds) as opened:
        during = seconds_of_one_image(service)
        assert service.extract(large)[0] == 200
        answers = []
        for connection in opened:
            connection.setblocking(False)
            with suppress(OSError):
                answers.append(connection.recv(12))
    refused = answers.count(b"HTTP/1.1 429")
    assert refused == len(answers) > 0  # the account has its share and no more
    assert during <= 2 * max(before, seconds_of_one_image(service))
