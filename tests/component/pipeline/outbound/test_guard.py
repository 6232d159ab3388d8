"""The guard in front of images and webhooks alike: no connection to a forbidden address, and no memory for a hostile body."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.outbound.webhook_call import WebhookCaller
from pipeline.types import MB, Failure, ItemCode
from tests.fakes import loopback_web
from tests.fakes.loopback_web import ALLOW, answer, one, redirect

serve, forbidden, make_fetcher = loopback_web.serve, loopback_web.forbidden, loopback_web.make_fetcher  # fixtures

#: Ways to write 127.0.0.2, and names that lead there or to more of this machine's own network.
PLACES = [
    "127.0.0.2", "127.2", "127.0.2", "2130706434", "0x7f000002", "0x7f.0.0.2", "0177.0.0.2", "017700000002", "127.0.0.2.",
    "127.0.0.02", "0x7f.1.2", "00000177.0.0.2", "127.0.0.0x2", "%31%32%37.0.0.2", "127。0。0。2", "①②⑦.0.0.2",
    "[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "[0:0:0:0:0:ffff:127.0.0.2]", "[::127.0.0.2]", "[64:ff9b::7f00:2]", "[::1]",
    "[::]", "[fe80::1%25lo]", "[fe80::1%lo]", "[2002:7f00:2::]", "[::1%lo]", "user@127.0.0.2", "a.test@127.0.0.2",
    "127.0.0.2#@a.test", "127.0.0.2\\@a.test", "a.test\\@127.0.0.2", "127.0.0.2?@a.test", " 127.0.0.2", "127.0.0.2\t",
    "private.test", "PRIVATE.test.", "mixed.test", "mapped.test", "zoned.test", "0", "0.0.0.0", "localhost.private.test",
]  # fmt: skip
NAMES = {
    "private.test": ["127.0.0.2"],
    "private.test.": ["127.0.0.2"],
    "localhost.private.test": ["127.0.0.2"],
    "mixed.test": ["127.0.0.1", "127.0.0.2"],
    "mapped.test": ["::ffff:127.0.0.2"],
    "zoned.test": ["fe80::1%lo"],
}


@pytest.mark.parametrize("place", PLACES)
def test_an_image_is_fetched_from_no_forbidden_place_however_it_is_written(place, make_fetcher, forbidden):
    outcome = one(make_fetcher(NAMES, deadline=2.0), f"http://{place}:{forbidden}/")
    assert isinstance(outcome, Failure)
    assert outcome.code in {ItemCode.URL_NOT_ALLOWED, ItemCode.FETCH_FAILED}


@pytest.mark.parametrize("place", PLACES)
def test_a_redirect_leads_to_no_forbidden_place_however_it_is_written(place, make_fetcher, serve, forbidden):
    server = serve({"/": redirect(f"http://{place}:{forbidden}/")})
    outcome = one(make_fetcher(NAMES, deadline=2.0), f"http://a.test:{server.port}/")
    assert isinstance(outcome, Failure)
    assert outcome.code is ItemCode.FETCH_FAILED


@pytest.mark.parametrize("place", PLACES)
def test_a_webhook_calls_no_forbidden_place_however_it_is_written(place, forbidden):
    caller = WebhookCaller(ALLOW, seconds=2.0, resolve=lambda host, _: NAMES.get(host, ["127.0.0.1"]))
    assert caller(f"http://{place}:{forbidden}/", {}, b"{}").status is None


def test_a_name_that_changes_between_webhooks_is_judged_each_time_anew(serve, forbidden):
    server = serve({"*": answer(b"")})
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    callers = [WebhookCaller(ALLOW, seconds=2.0, resolve=lambda *_: answers.pop(0)) for _ in range(2)]
    assert callers[0](f"http://a.test:{server.port}/", {}, b"{}").status == 200
    assert callers[1](f"http://a.test:{forbidden}/", {}, b"{}").status is None
    assert answers == []


def flood(head: bytes, piece: bytes):
    def serve_it(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return serve_it


def drip(server):
    def serve_it(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
        while not server().gone.wait(0.05):
            connection.sendall(b"x")

    return serve_it


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_slow_endless_lying_and_compressed_bodies_leave_memory_within_30_mb_of_its_start(serve):
    ok = b"HTTP/1.1 200 OK\r\n"
    pages = {
        "/slow": (drip(lambda: server), "fetch_timeout"),
        "/endless": (flood(ok + b"\r\n", b"x" * 65536), "image_too_large"),
        "/chunks": (
            flood(ok + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
            "image_too_large",
        ),
        "/headers": (flood(ok, b"X-Padding: " + b"x" * 4000 + b"\r\n"), "fetch_failed"),
        "/one-header": (flood(ok + b"X-Padding: ", b"x" * 65536), "fetch_failed"),
        "/lying": (ok + b"Content-Length: 999999999999\r\n\r\n" + b"x" * 65536, "image_too_large"),
        "/compressed": (answer(gzip.compress(bytes(50 * MB)), "200 OK", "Content-Encoding: gzip"), "image_too_large"),
        "/error": (flood(b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 65536), "fetch_failed"),
        "/bytes": (flood(ok + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000), "fetch_failed"),
    }
    server = serve({"/good": answer(), **{path: page for path, (page, _) in pages.items()}})
    urls = [f"http://a.test:{server.port}{path}" for path in ("/good", *pages, *pages)]
    command = [sys.executable, "-m", "tests.fakes.fetching_child", *urls]
    root = Path(__file__).resolve().parents[4]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["outcomes"] == [code for _, code in pages.values()] * 2
    assert told["grown"] < 30 * MB
