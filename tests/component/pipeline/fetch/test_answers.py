"""The guarded client against servers that lie, stall, flood, break off and recover; its limits; and what it leaves behind."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.ports import TotalTooLarge
from pipeline.types import MB, Fetched, ItemCode
from tests.fakes import loopback_web
from tests.fakes.loopback_web import BODY, answer, is_failure, is_unreachable, one, redirect, run

serve, make_fetcher = loopback_web.serve, loopback_web.make_fetcher  # fixtures


def in_turn(*answers):
    """Each request gets the next answer; the last one stays."""
    left = list(answers)

    def serve(connection):
        step = left.pop(0) if len(left) > 1 else left[0]
        if callable(step):
            step(connection)
        else:
            connection.sendall(step)

    return serve


def break_off(sent=b""):
    """Sends this and resets the connection."""

    def serve(connection):
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()

    return serve


def hang_up(sent):
    """Sends this and ends the connection in good order."""

    def serve(connection):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_RDWR)

    return serve


def flood(head, piece):
    """Sends pieces until the other side has had enough."""

    def serve(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return serve


# ---- statuses and bodies


@pytest.mark.parametrize(
    "status", ["204 No Content", "300 Multiple", "304 Not Modified", "400 Bad", "404 Not Found", "418 ?", "501 Oops"]
)
def test_an_answer_without_an_image_is_told_by_its_status(serve, make_fetcher, status):
    server = serve({"/": f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()})
    result = one(make_fetcher(), f"http://a.test:{server.port}/")
    if status.startswith("204"):
        assert is_failure(result, ItemCode.IMAGE_EMPTY)
    else:
        assert is_failure(result, ItemCode.FETCH_FAILED, f"The server answered HTTP {status[:3]}.")
    assert len(server.requests) == 1


def test_an_empty_body_is_an_empty_image(serve, make_fetcher):
    server = serve({"/": answer(b"")})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.IMAGE_EMPTY)


def test_an_endless_error_page_is_told_by_its_status(serve, make_fetcher):
    server = serve({"/": flood(b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 65536)})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED, "HTTP 404")


def test_a_redirect_with_an_endless_body_is_followed(serve, make_fetcher):
    server = serve({"/": flood(b"HTTP/1.1 302 Found\r\nLocation: /image\r\n\r\n", b"x" * 65536), "/image": answer()})
    assert one(make_fetcher(), f"http://a.test:{server.port}/") == Fetched(index=0, data=BODY)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ],
)
def test_an_endless_body_is_cut_at_the_limit(serve, make_fetcher, head, piece):
    server = serve({"/": flood(head, piece)})
    assert is_failure(one(make_fetcher(max_bytes=MB), f"http://a.test:{server.port}/"), ItemCode.IMAGE_TOO_LARGE, "1 MB")


def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not(serve, make_fetcher):
    server = serve({"/at": answer(b"x" * MB), "/over": answer(b"x" * (MB + 1))})
    at, over = run(make_fetcher(max_bytes=MB), f"http://a.test:{server.port}/at", f"http://a.test:{server.port}/over")
    assert at == Fetched(index=0, data=b"x" * MB)
    assert is_failure(over, ItemCode.IMAGE_TOO_LARGE, str(MB))


@pytest.mark.parametrize("length", [str(20 * MB + 1), "9" * 18])
def test_a_declared_length_over_the_limit_is_refused_before_the_body(serve, make_fetcher, length):
    server = serve({"/": f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()})
    assert is_failure(one(make_fetcher(deadline=5.0), f"http://a.test:{server.port}/"), ItemCode.IMAGE_TOO_LARGE, "20 MB")


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 99,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
    ],
)
def test_an_answer_that_ends_too_soon_is_asked_for_three_times_and_then_failed(serve, make_fetcher, sent):
    server = serve({"/": hang_up(sent)})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED)
    assert len(server.requests) == 3


def test_what_follows_the_declared_length_is_not_part_of_the_image(serve, make_fetcher):
    server = serve({"/": answer(b"abc") + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz"})
    url = f"http://a.test:{server.port}/"
    fetcher = make_fetcher()
    assert one(fetcher, url) == Fetched(index=0, data=b"abc")
    assert one(fetcher, url) == Fetched(index=0, data=b"abc")


def test_a_body_of_single_bytes_is_given_up_before_it_eats_the_processor(serve, make_fetcher):
    server = serve({"/": flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000)})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED, "pieces")


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0" * 100,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nx",
    ],
)
def test_what_is_not_http_fails(serve, make_fetcher, sent):
    server = serve({"/": hang_up(sent)})
    result = one(make_fetcher(), f"http://a.test:{server.port}/")
    assert is_failure(result, ItemCode.FETCH_FAILED)
    assert not result.detail.startswith("The image's server could not be reached")


def test_endless_headers_end(serve, make_fetcher):
    server = serve({"/": flood(b"HTTP/1.1 200 OK\r\n", b"X-Padding: " + b"x" * 4000 + b"\r\n")})
    assert is_failure(one(make_fetcher(deadline=10.0), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED)


# ---- time


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n", b"x"),
    ],
)
def test_a_server_that_drips_is_out_of_time_at_the_deadline(serve, make_fetcher, head, piece):
    def drip(connection):
        connection.sendall(head)
        while not server.gone.wait(0.02):
            connection.sendall(piece)

    server = serve({"/slow": drip, "/fast": answer()})
    started = time.monotonic()
    slow, fast = run(make_fetcher(deadline=0.5), f"http://a.test:{server.port}/slow", f"http://a.test:{server.port}/fast")
    assert time.monotonic() - started >= 0.5
    assert is_failure(slow, ItemCode.FETCH_TIMEOUT, "0.5 seconds")
    assert isinstance(fast, Fetched)


def test_one_deadline_holds_for_all_redirects_and_tries_together(serve, make_fetcher):
    def slowly(sent):
        def serve_slowly(connection):
            if not server.gone.wait(0.3):
                connection.sendall(sent)

        return serve_slowly

    server = serve({"/0": slowly(redirect("/1")), "/1": slowly(redirect("/2")), "/2": slowly(answer())})
    assert is_failure(one(make_fetcher(deadline=0.7), f"http://a.test:{server.port}/0"), ItemCode.FETCH_TIMEOUT)


def test_a_tls_handshake_that_never_ends_is_out_of_time(serve, make_fetcher):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert is_failure(one(make_fetcher(deadline=0.6), url), ItemCode.FETCH_TIMEOUT)


def test_the_time_of_the_whole_call_ends_all_that_is_left(serve, make_fetcher):
    server = serve({"/slow": lambda _: server.gone.wait(), "/fast": answer()})
    urls = [f"http://a.test:{server.port}/{path}" for path in ("fast", "slow", "slow", "slow")]
    fast, *slow = run(make_fetcher(parallel=2), *urls, timeout=0.5)
    assert isinstance(fast, Fetched)
    assert all(is_failure(result, ItemCode.FETCH_TIMEOUT, "0.5 seconds") for result in slow)


def test_a_caller_that_takes_its_time_makes_no_server_late(serve, make_fetcher):
    server = serve({"/now": answer(), "/next": answer()})
    results = make_fetcher(deadline=0.5, parallel=1)(
        enumerate([f"http://a.test:{server.port}/now", f"http://a.test:{server.port}/next"]), total=MB, timeout=30.0
    )
    assert next(results) == Fetched(index=0, data=BODY)
    time.sleep(0.6)  # longer than the deadline: what is tested
    assert list(results) == [Fetched(index=1, data=BODY)]


def test_no_more_is_asked_for_while_much_waits_for_the_caller(serve, make_fetcher):
    server = serve({"*": answer(b"x" * 10 * MB)})
    results = make_fetcher(parallel=2)([(n, f"http://a.test:{server.port}/{n}") for n in range(9)], total=99 * MB, timeout=30.0)
    next(results)
    while len(server.requests) < 5:
        time.sleep(0.001)
    one(make_fetcher(), f"http://a.test:{server.port}/other")  # time enough to ask for more
    assert len(server.requests) <= 7
    assert len(list(results)) == 8


# ---- asking again


@pytest.mark.parametrize(
    "trouble",
    [
        *(answer(b"", f"{status} Busy") for status in (408, 429, 500, 502, 504, 520, 521, 522, 523, 524, 525, 526, 527, 529)),
        answer(b"", "503 Busy", "Retry-After: 0"),
    ],
)
def test_a_busy_server_is_asked_again(serve, make_fetcher, trouble):
    server = serve({"/": in_turn(trouble, trouble, answer())})
    assert one(make_fetcher(), f"http://a.test:{server.port}/") == Fetched(index=0, data=BODY)
    assert len(server.requests) == 3


def test_a_reset_connection_is_asked_again_and_its_bytes_are_not_counted_twice(serve, make_fetcher):
    half = answer()[: len(BODY) // 2]
    server = serve({"/": in_turn(break_off(half), break_off(half), answer())})
    assert one(make_fetcher(), f"http://a.test:{server.port}/", total=len(BODY)) == Fetched(index=0, data=BODY)


def test_a_server_that_stays_busy_is_asked_three_times(serve, make_fetcher):
    server = serve({"/": answer(b"", "503 Busy")})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED, "HTTP 503")
    assert len(server.requests) == 3


def test_the_servers_own_wish_for_when_to_ask_again_is_kept(serve, make_fetcher):
    server = serve({"/": in_turn(answer(b"", "429 Too Many", "Retry-After: 1"), answer())})
    started = time.monotonic()
    assert isinstance(one(make_fetcher(), f"http://a.test:{server.port}/"), Fetched)
    assert time.monotonic() - started >= 1.0


def test_a_wish_beyond_the_deadline_ends_the_fetch_with_the_status(serve, make_fetcher):
    server = serve({"/": answer(b"", "503 Busy", "Retry-After: 3600")})
    assert is_failure(one(make_fetcher(), f"http://a.test:{server.port}/"), ItemCode.FETCH_FAILED, "HTTP 503")
    assert len(server.requests) == 1


# ---- limits


def test_beyond_the_total_nothing_more_is_read(serve, make_fetcher):
    server = serve({"*": answer(b"x" * 1000)})
    urls = [f"http://a.test:{server.port}/{n}" for n in range(20)]
    results = make_fetcher(parallel=1)(enumerate(urls), total=5500, timeout=30.0)
    assert all(isinstance(next(results), Fetched) for _ in range(5))
    with pytest.raises(TotalTooLarge):
        next(results)
    assert len(server.requests) == 6


def test_a_total_that_is_just_reached_is_not_exceeded(serve, make_fetcher):
    server = serve({"*": answer(b"x" * 1000)})
    results = run(make_fetcher(), *[f"http://a.test:{server.port}/{n}" for n in range(20)], total=20_000)
    assert all(isinstance(result, Fetched) for result in results)


def test_what_is_no_image_takes_nothing_from_the_total(serve, make_fetcher):
    server = serve({"/bad": answer(b"x" * 5000, "404 Not Found"), "/big": answer(b"x" * 5000), "/good": answer(b"x" * 1000)})
    urls = [f"http://a.test:{server.port}/{path}" for path in ("bad", "big", "bad", "big", "good")]
    results = run(make_fetcher(parallel=1, max_bytes=2000), *urls, total=1000)
    assert isinstance(results[4], Fetched)


class Gauge:
    """Answers when `width` requests are there at once, or after a while; knows the most there were at once."""

    def __init__(self, width):
        self._there = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self._full = threading.Event()
        self._width = width

    def __call__(self, connection):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            if self._now == self._width:
                self._full.set()
        self._full.wait(10)
        with self._lock:
            self._now -= 1
        connection.sendall(answer())


def test_one_call_asks_no_more_than_its_number_at_once(serve, make_fetcher):
    gauge = Gauge(6)
    server = serve({"*": gauge})
    run(make_fetcher(parallel=6), *[f"http://host{n}.test:{server.port}/" for n in range(30)])
    assert gauge.most == 6


def test_all_calls_together_ask_one_host_no_more_than_its_number_at_once(serve, make_fetcher):
    gauge = Gauge(5)
    server = serve({"*": gauge})
    fetcher = make_fetcher(per_host=5)
    with ThreadPoolExecutor(4) as threads:
        urls = [f"http://a.test:{server.port}/{n}" for n in range(15)]
        for results in threads.map(lambda _: run(fetcher, *urls), range(4)):
            assert all(isinstance(result, Fetched) for result in results)
    assert gauge.most == 5


def test_a_host_without_a_free_place_holds_up_no_other(serve, make_fetcher):
    server = serve({"/slow": lambda _: server.gone.wait(), "/fast": answer()})
    urls = [f"http://slow.test:{server.port}/slow"] * 5 + [f"http://fast.test:{server.port}/fast"]
    results = make_fetcher(per_host=1)(enumerate(urls), total=MB, timeout=30.0)
    assert next(results) == Fetched(index=5, data=BODY)
    results.close()


def test_many_images_of_a_host_need_one_lookup(serve, make_fetcher):
    server = serve({"*": answer()})
    lookups = []
    fetcher = make_fetcher({"a.test": lambda: lookups.append(1) or ["127.0.0.1"]})
    for _ in range(2):
        run(fetcher, *[f"http://a.test:{server.port}/{n}" for n in range(100)])
    assert len(lookups) == 1


# ---- what stays


def test_a_later_call_uses_the_connections_of_an_earlier_one(serve, make_fetcher):
    server = serve({"*": answer(), "/404": answer(b"page", "404 Not Found")})
    fetcher = make_fetcher(parallel=1)
    for path in ("1", "404", "2"):
        one(fetcher, f"http://a.test:{server.port}/{path}")
    assert server.connections == 1


def test_an_abandoned_call_gives_back_what_it_held(serve, make_fetcher):
    closed = threading.Semaphore(0)

    def wait_for_the_end(connection):
        assert connection.recv(1) == b""
        closed.release()

    server = serve({"/slow": wait_for_the_end, "/fast": answer()})
    fetcher = make_fetcher(per_host=4, parallel=4)
    urls = [f"http://a.test:{server.port}/{path}" for path in ["fast"] + ["slow"] * 9]
    results = fetcher(enumerate(urls), total=MB, timeout=30.0)
    assert isinstance(next(results), Fetched)
    while server.asked("/slow") < 3:
        time.sleep(0.001)
    results.close()
    for _ in range(3):
        assert closed.acquire(timeout=10)
    results = run(fetcher, *[f"http://a.test:{server.port}/fast"] * 8)
    assert all(isinstance(result, Fetched) for result in results)


def test_many_threads_share_one_fetcher(serve, make_fetcher):
    server = serve({f"/{n}": answer(bytes([n]) * 5000) for n in range(200)})
    fetcher = make_fetcher()

    def chunk(first):
        urls = [f"http://a.test:{server.port}/{n}" for n in range(first, first + 20)]
        return [result.data for result in run(fetcher, *urls)] == [bytes([n]) * 5000 for n in range(first, first + 20)]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(chunk, list(range(0, 200, 20)) * 3))


def test_a_closed_fetcher_ends_its_connections_and_calls_under_way_end_well(serve, make_fetcher):
    server = serve({"*": answer()})
    fetcher = make_fetcher(parallel=1)
    results = fetcher([(n, f"http://a.test:{server.port}/{n}") for n in range(3)], total=MB, timeout=30.0)
    first = next(results)
    fetcher.close()
    assert [first.index, *(result.index for result in results)] == [0, 1, 2]


def test_the_log_has_the_reason_and_the_host_and_no_more_of_the_url(serve, make_fetcher, caplog):
    server = serve({"/": redirect("http://private.test/hop?signature=hush")})
    with caplog.at_level(logging.DEBUG):
        result = one(make_fetcher({"private.test": ["10.0.0.7"]}), f"http://a.test:{server.port}/?signature=hush")
    assert is_unreachable(result, redirected=True)
    assert "private.test" in caplog.text
    assert "10.0.0.7" in caplog.text
    assert "hush" not in caplog.text
    assert not any("hush" in str(vars(record)) for record in caplog.records)


def test_the_line_of_a_failed_fetch_belongs_to_the_caller_s_request_job_and_account(serve, make_fetcher, caplog):
    server = serve({"/": redirect("http://private.test/hop")})
    seen = []
    caplog.handler.addFilter(lambda _record: seen.append(structlog.contextvars.get_contextvars()) or True)
    facts = {"request": "req_1", "job": "job_1", "account": "acc_1"}
    with caplog.at_level(logging.INFO, logger="pipeline.fetch"), structlog.contextvars.bound_contextvars(**facts):
        one(make_fetcher({"private.test": ["10.0.0.7"]}), f"http://a.test:{server.port}/")
    assert seen == [facts]


# ---- TLS


@pytest.fixture
def certificate(tmp_path):
    """A certificate for a.test that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.test")]), critical=False)
    made = builder.sign(key, hashes.SHA256())
    pem, secret = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, secret, serialization.NoEncryption()))
    return path


@pytest.fixture
def serve_tls(serve, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return lambda paths: serve(paths, tls=context)


def test_a_certificate_nobody_vouches_for_is_refused(serve_tls, make_fetcher):
    server = serve_tls({"/": answer()})
    assert is_failure(one(make_fetcher(), f"https://a.test:{server.port}/"), ItemCode.FETCH_FAILED, "certificate")
    assert server.requests == []


def test_a_certificate_is_held_against_the_name_and_not_the_address(serve_tls, make_fetcher, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = serve_tls({"/": answer()})
    names = [f"https://{host}:{server.port}/" for host in ("a.test", "b.test", "127.0.0.1")]
    good, *others = run(make_fetcher(), *names)
    assert good == Fetched(index=0, data=BODY)
    assert all(is_failure(other, ItemCode.FETCH_FAILED, "certificate") for other in others)


def test_a_silent_answer_over_tls_holds_up_no_other_of_its_host(serve_tls, make_fetcher, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = serve_tls({"/slow": lambda _: server.gone.wait(), "/fast": answer()})
    urls = [f"https://a.test:{server.port}/{path}" for path in ("slow", "slow", "fast")]
    *slow, fast = run(make_fetcher(deadline=1.0), *urls)
    assert fast == Fetched(index=2, data=BODY)
    assert all(is_failure(result, ItemCode.FETCH_TIMEOUT) for result in slow)
