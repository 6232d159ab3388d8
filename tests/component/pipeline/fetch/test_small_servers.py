"""Servers with short listen queues, and those that reset connections, lose no image."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time

import pytest

from pipeline.fetch.hosts import HostSlots
from pipeline.types import MB, Fetched
from tests.component.pipeline.fetch.test_answers import break_off
from tests.fakes import loopback_web
from tests.fakes.loopback_web import BODY, answer, is_unreachable, one, run

serve, make_fetcher = loopback_web.serve, loopback_web.make_fetcher  # fixtures


def work(seconds):
    def serve(connection):
        time.sleep(seconds)  # the server's work: what is tested
        connection.sendall(answer())

    return serve


@pytest.mark.parametrize("backlog", [0, 1, 5])
def test_a_server_that_takes_one_connection_at_a_time_loses_no_image_and_is_asked_once_for_each(serve, make_fetcher, backlog):
    server = serve({"*": work(0.002)}, backlog=backlog, small=True)
    results = run(make_fetcher(), *[f"http://a.test:{server.port}/{n}" for n in range(200)])
    assert all(isinstance(result, Fetched) for result in results)
    assert len(server.requests) == 200


def test_a_server_that_resets_every_tenth_connection_loses_no_image(serve, make_fetcher):
    connections = []

    def answer_or_reset(connection):
        connections.append(connection)
        if len(connections) % 10 == 0:
            break_off()(connection)
        else:
            connection.sendall(answer())

    server = serve({"*": answer_or_reset}, small=True)
    results = run(make_fetcher(), *[f"http://a.test:{server.port}/{n}" for n in range(300)])
    assert all(isinstance(result, Fetched) for result in results)


def test_a_connection_that_breaks_is_tried_8_times_where_the_server_answers_others_meanwhile(serve, make_fetcher):
    server = serve({"/broken": break_off(), "*": answer(BODY, "200 OK", "Connection: close")})
    urls = [f"http://a.test:{server.port}/{n}" for n in range(9)]
    fetcher = make_fetcher(parallel=1)
    results = fetcher([(99, f"http://a.test:{server.port}/broken"), *enumerate(urls)], total=MB, timeout=30.0)
    assert sum(isinstance(result, Fetched) for result in results) == len(urls)
    assert server.asked("/broken") == 8


def wait_for_requests(server, count):
    ends = time.monotonic() + 20
    while len(server.requests) < count and time.monotonic() < ends:
        time.sleep(0.001)


def whole(*head):
    return answer(BODY, "200 OK", *head)


@pytest.mark.parametrize(
    ("page", "second"),
    [
        (whole(), 24),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 24),
        (whole("Connection: close"), 16),
        (whole("Connection: keep-alive, Close"), 16),
        (whole().replace(b"HTTP/1.1", b"HTTP/1.0"), 16),
        (answer(b"x" * 100_000, "404 Not Found"), 16),  # its connection is dropped, because the page is not read to its end
    ],
)
def test_a_server_that_keeps_its_connections_gets_three_times_as_many_in_the_second_round(serve, make_fetcher, page, second):
    first_8, rest = threading.Event(), threading.Event()
    numbers = iter(range(1000))

    def answer_in_rounds(connection):
        (first_8 if next(numbers) < 8 else rest).wait(20)
        connection.sendall(page)

    server = serve({"*": answer_in_rounds, "/other": answer()})
    fetcher = make_fetcher()
    results = fetcher([(n, f"http://a.test:{server.port}/{n}") for n in range(100)], total=8 * MB, timeout=30.0)
    thread = threading.Thread(target=list, args=(results,))
    thread.start()
    wait_for_requests(server, 8)
    time.sleep(0.3)  # the server's work; against it, a pause of a busy machine between two requests must not look like waiting
    first_8.set()
    wait_for_requests(server, 8 + second)
    one(make_fetcher(), f"http://b.test:{server.port}/other")  # time enough to ask for more
    assert len(server.requests) == 8 + second + 1
    rest.set()
    thread.join()


def test_the_first_round_is_8_requests_and_the_next_one_twice_as_many(serve, make_fetcher):
    go = threading.Event()
    server = serve({"*": lambda connection: go.wait(20) and connection.sendall(answer()), "/other": answer()})
    results = make_fetcher()([(n, f"http://a.test:{server.port}/{n}") for n in range(9)], total=MB, timeout=30.0)
    threading.Thread(target=list, args=(results,)).start()
    while len(server.requests) < 8:
        time.sleep(0.001)
    one(make_fetcher(), f"http://b.test:{server.port}/other")  # time enough to ask for more
    assert len(server.requests) == 8 + 1
    go.set()


@pytest.fixture
def full_listener():
    """A listener whose queue is full, so that the system drops what wants to connect; call `open` and it answers."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener


def serve_from(listener):
    """Answers everything that connects, until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(0.2)  # the fillers ask nothing
                if connection.recv(65536):
                    connection.sendall(answer(BODY, "200 OK", "Connection: close"))


def when_a_connection_fails(monkeypatch, act):
    """Acts at the first failure, and lets it take its course."""
    course, acted = HostSlots.connect_failed, []

    def connect_failed(self, server, begun):
        if not acted:
            acted.append(act())
        course(self, server, begun)

    monkeypatch.setattr(HostSlots, "connect_failed", connect_failed)


def test_a_connection_that_got_no_answer_is_tried_again_within_the_deadline(full_listener, make_fetcher, monkeypatch):
    port = full_listener.getsockname()[1]
    serving = threading.Thread(target=serve_from, args=(full_listener,))
    when_a_connection_fails(monkeypatch, serving.start)
    assert one(make_fetcher(), f"http://a.test:{port}/") == Fetched(index=0, data=BODY)
    full_listener.shutdown(socket.SHUT_RDWR)
    serving.join()


def test_a_refused_connection_is_tried_again(serve, make_fetcher, monkeypatch):
    with socket.socket() as closed:
        closed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        serving = threading.Thread(target=serve_from, args=(closed,))

        def open_():
            closed.listen()
            serving.start()

        when_a_connection_fails(monkeypatch, open_)
        assert one(make_fetcher(), f"http://a.test:{port}/") == Fetched(index=0, data=BODY)
        closed.shutdown(socket.SHUT_RDWR)
        serving.join()


def test_of_a_server_that_takes_no_connection_at_all_the_rest_is_not_tried(full_listener, make_fetcher, caplog):
    port = full_listener.getsockname()[1]
    with caplog.at_level(logging.INFO):
        results = run(make_fetcher(deadline=0.5), *[f"http://a.test:{port}/{n}" for n in range(100)])
    assert all(map(is_unreachable, results))
    untried = sum("the server takes no connections" in record.getMessage() for record in caplog.records)
    assert untried >= 80
