"""Strangers and one customer hold every connection that they can get, and another account's request takes no longer for it."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from statistics import median

import pytest

from testbed import Service, serving
from tests.e2e.neighbours import connections, many_files, one_image, request
from tests.fakes.gemini import FakeGemini

pytestmark = pytest.mark.xdist_group("serve")

TIMES = 15  #: requests of the victim, of which the median counts
IMAGE = one_image()


def post(path: str, length: int, *headers: str) -> bytes:
    return request(f"POST {path}", f"Content-Length: {length}", *headers, then=b"{")


def get(path: str, *headers: str) -> bytes:
    return request(f"GET {path}", *headers)


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


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks") / "data"
    with many_files(), FakeGemini() as fake, serving(folder, GEMINI_API_KEY=fake.key, GEMINI_BASE_URL=fake.base_url) as started:
        seconds_of_one_image(started)  # warms it up
        yield started


def test_strangers_who_hold_connections_in_every_way_do_not_slow_another_account_s_request(service):
    before = seconds_of_one_image(service)
    with connections(service, STRANGERS.values()):
        during = seconds_of_one_image(service)
    assert during <= 2 * max(before, seconds_of_one_image(service))


def test_a_customer_with_slow_bodies_and_waits_does_not_slow_another_account_s_request_nor_its_large_body(service):
    [key] = re.findall(r'"key": "(\w+)"', service.cli("keys", "create", "attacker", "--credits", "1000", "--json"))
    keyed = (f"Authorization: Bearer {key}", "Content-Type: application/json", "Prefer: respond-async")
    large = {**IMAGE, "other": "x" * 1_500_000}
    before = seconds_of_one_image(service)
    kinds = [(100, post("/api/v1/extract-image", 900_000, *keyed)), (50, post("/api/v1/extract-image", 90_000_000, *keyed))]
    with connections(service, kinds) as opened:
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
