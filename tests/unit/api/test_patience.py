"""How long a client may take to send, on a pair of connected sockets."""

from __future__ import annotations

import socket

import pytest

from api.patience import PatientSocket, expect_body, hung_up


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with PatientSocket(fileno=ours.detach()) as server, theirs as client:
        yield server, client


def test_what_has_arrived_is_read(ends):
    server, client = ends
    server.allow(5)
    client.sendall(b"a request")
    assert server.recv(100) == b"a request"


def test_a_client_that_sends_nothing_in_its_time_reads_as_one_that_hung_up(ends):
    server, _ = ends
    server.allow(0.05)
    assert server.recv(100) == b""


def test_a_client_that_was_too_slow_once_is_not_listened_to_again(ends):
    server, client = ends
    server.allow(0)
    assert server.recv(100) == b""
    client.sendall(b"too late")
    server.allow(5)
    assert server.recv(100) == b""


def test_a_socket_that_does_not_block_keeps_its_own_rules(ends):
    server, client = ends
    server.allow(0)
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(100)
    client.sendall(b"x")
    assert server.recv(100) == b"x"


def test_the_time_for_a_body_begins_when_it_is_expected(ends):
    server, client = ends
    server.allow(0)
    expect_body({"gunicorn.socket": server}, 1000)
    client.sendall(b"the body")
    assert server.recv(100) == b"the body"


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


def test_where_there_is_no_socket_nobody_hangs_up():
    assert not hung_up({})
