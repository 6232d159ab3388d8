"""How many connections and threads a web process has, whose connections they are, and where it listens."""

from __future__ import annotations

import resource
import socket

import pytest
from structlog.testing import capture_logs

from api import connections
from api.connections import Connection, most_connections
from api.patience import PatientSocket
from api.places import Places
from api.previews import PREVIEW_PLACES
from api.server import SPARE_CONNECTIONS, SPARE_THREADS, TooFewFiles, listen_address, room_and_connections, threads_of
from api.wiring import LARGE_PLACES, room_of
from config.settings import load_settings


@pytest.fixture
def files_limit(monkeypatch):
    """Sets how many files the process may open, for those that ask."""

    def limit_to(files):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _name: (files, files))
        monkeypatch.setattr(connections.resource, "setrlimit", lambda _name, _limits: None)

    return limit_to


@pytest.mark.parametrize(
    ("limit", "most"),
    [(resource.RLIM_INFINITY, connections.MOST_CONNECTIONS), (4096, 3584), (1024, 860), (256, 128)],
)
def test_a_web_process_leaves_files_for_itself_if_the_limit_is_low(files_limit, limit, most):
    files_limit(limit)
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


@pytest.mark.parametrize("environ", [{}, {"MAX_WAITERS": "1"}, {"MAX_WAITERS": "2000", "MAX_LARGE_BODIES": "20"}])
def test_waits_and_bodies_and_previews_in_every_place_leave_threads_for_other_requests(environ, tmp_path):
    settings = load_settings({"DATA_DIR": str(tmp_path), **environ})
    room = room_of(settings)
    places = [Places(room.waiting), Places(room.arriving), Places(room.previews)]
    held = sum(each.take(f"account {number}") for each in places for number in range(3000))
    assert held >= settings.max_waiters + 128 + PREVIEW_PLACES
    assert threads_of(room) - held == SPARE_THREADS > 0


@pytest.mark.parametrize("limit", [256, 512, 1024, 20_000])
def test_requests_in_work_never_take_all_connections_however_few_files_the_process_may_open(files_limit, tmp_path, limit):
    files_limit(limit)
    settings = load_settings({"DATA_DIR": str(tmp_path)})
    with capture_logs() as logs:
        room, most = room_and_connections(settings)
    assert most - room.total >= SPARE_CONNECTIONS
    assert min(room.waiting, room.previews) > 0
    assert room.arriving >= LARGE_PLACES
    assert [line["event"] for line in logs] == (["few_open_files"] if room.waiting < settings.max_waiters else [])
    assert (room == room_of(settings)) == (limit >= 1024)


def test_a_web_process_that_may_open_too_few_files_to_serve_says_so_and_does_not_start(files_limit, tmp_path):
    files_limit(100)
    with pytest.raises(TooFewFiles, match="ulimit -n"):
        room_and_connections(load_settings({"DATA_DIR": str(tmp_path)}))
