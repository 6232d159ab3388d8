"""How many connections a web process holds, whose they are, and where it listens."""

from __future__ import annotations

import resource
import socket

import pytest

from api import connections
from api.connections import Connection, most_connections
from api.patience import PatientSocket
from api.server import listen_address


@pytest.mark.parametrize(
    ("limit", "most"),
    [(resource.RLIM_INFINITY, connections.MOST_CONNECTIONS), (4096, 3584), (1024, 860), (256, 128)],
)
def test_a_web_process_leaves_files_for_itself_if_the_limit_is_low(monkeypatch, limit, most):
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _name: (limit, limit))
    monkeypatch.setattr(connections.resource, "setrlimit", lambda _name, _limits: None)
    assert most_connections(760) == most


@pytest.mark.parametrize(
    ("client", "owner"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
    ],
)
def test_connections_are_counted_by_the_address_of_a_user(client, owner):
    ours, theirs = socket.socketpair()
    with PatientSocket(fileno=ours.detach()) as server, theirs:
        assert Connection(None, server, client, None).address == owner


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:8000"), ("::1", "[::1]:8000"), ("::", "[::]:8000"), ("[::1]", "[::1]:8000"), ("name", "name:8000")],
)
def test_a_web_process_listens_on_ipv6_too(host, address):
    assert listen_address(host, 8000) == address
