"""How long a client may take to send, on a pair of connected sockets."""

from __future__ import annotations

import select
import socket
from contextlib import suppress

import pytest

from api import patience
from api.patience import PatientSocket, expect_body, hung_up


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with PatientSocket(fileno=ours.detach()) as server, theirs as client:
        yield server, client


def received(server, size):
    return server.recv(size)


def received_into(server, size):
    buffer = bytearray(size)
    return bytes(buffer[: server.recv_into(buffer)])


either_way = pytest.mark.parametrize("receive", [received, received_into])


@either_way
def test_what_has_arrived_is_read(ends, receive):
    server, client = ends
    server.allow(5)
    client.sendall(b"a request")
    assert receive(server, 100) == b"a request"


@either_way
def test_a_client_that_sends_nothing_in_its_time_reads_as_one_that_hung_up(ends, receive):
    server, _ = ends
    server.allow(0.05)
    assert receive(server, 100) == b""


@either_way
def test_a_client_that_was_too_slow_once_is_not_listened_to_again(ends, receive):
    server, client = ends
    server.allow(0)
    assert receive(server, 100) == b""
    client.sendall(b"too late")
    server.allow(5)
    assert receive(server, 100) == b""


@either_way
def test_a_socket_that_does_not_block_keeps_its_own_rules(ends, receive):
    server, client = ends
    server.allow(0)
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        receive(server, 100)
    client.sendall(b"x")
    assert receive(server, 100) == b"x"


@either_way
def test_the_time_for_a_body_begins_when_it_is_expected(ends, receive):
    server, client = ends
    server.allow(0)
    expect_body({"gunicorn.socket": server}, 1000)
    client.sendall(b"the body")
    assert receive(server, 100) == b"the body"


def test_an_answer_that_is_read_is_sent_whole(ends):
    server, client = ends
    server.sendall(b"an answer")
    assert client.recv(100) == b"an answer"


def test_a_client_that_waits_has_not_hung_up(ends):
    server, _ = ends
    assert not hung_up({"gunicorn.socket": server})


def test_a_client_that_has_sent_its_next_request_has_not_hung_up_and_the_request_stays(ends):
    server, client = ends
    client.sendall(b"next")
    assert not hung_up({"gunicorn.socket": server})
    server.allow(5)
    assert server.recv(100) == b"next"


def test_a_client_that_closes_has_hung_up(ends):
    server, client = ends
    client.close()
    assert hung_up({"gunicorn.socket": server})


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells it")
def test_a_client_that_closes_after_it_has_sent_its_next_request_has_hung_up(ends):
    server, client = ends
    client.sendall(b"next")
    client.close()
    assert hung_up({"gunicorn.socket": server})


def test_where_there_is_no_socket_nobody_hangs_up():
    assert not hung_up({})


@either_way
def test_the_time_for_a_body_grows_with_what_arrives_and_not_with_what_was_announced(ends, monkeypatch, receive):
    server, client = ends
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    expect_body({"gunicorn.socket": server}, 1_000_000)
    for _ in range(10):  # as fast as it must be
        now[0] += 1.0
        client.sendall(bytes(patience.LEAST_RATE))
        assert len(receive(server, patience.LEAST_RATE)) == patience.LEAST_RATE
    for _ in range(int(patience.IDLE_SECONDS) - 1):  # a byte a second
        now[0] += 1.0
        client.sendall(b"x")
        assert receive(server, 100) == b"x"
    now[0] += 1.5
    client.sendall(b"x")
    assert receive(server, 100) == b""


@either_way
def test_what_came_fast_is_no_credit_for_later(ends, monkeypatch, receive):
    server, client = ends
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    expect_body({"gunicorn.socket": server}, 150_000_000)
    for _ in range(100):
        client.sendall(bytes(100_000))
        assert receive(server, 100_000)
    now[0] += patience.IDLE_SECONDS + 0.1
    client.sendall(b"x")
    assert receive(server, 100) == b""


def test_an_answer_that_is_not_read_is_left_to_the_loop_and_comes_out_whole(ends, monkeypatch):
    monkeypatch.setattr(patience, "SEND_SECONDS", 0.05)
    server, client = ends
    large = bytes(range(256)) * 8192
    assert server.send(large) == len(large)  # a socket that blocks leaves it too, as gunicorn sends a 100 so
    assert server.gettimeout() is None
    assert server.unsent > 0
    server.settimeout(0)
    got = b""
    while server.unsent:
        got += client.recv(1 << 16)
        with suppress(BlockingIOError):
            server.send_some()
    client.settimeout(5)
    while len(got) < len(large):
        got += client.recv(1 << 16)
    assert got == large


def test_a_stream_whose_client_does_not_read_ends(ends, monkeypatch):
    monkeypatch.setattr(patience, "SEND_SECONDS", 0.05)
    monkeypatch.setattr(patience, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(patience, "LEAST_RATE", 1 << 40)
    server, _ = ends
    server.sendall(bytes(4 << 20))
    with pytest.raises(ConnectionResetError):
        server.sendall(b"the next piece")
