"""The switch delivers a frame late, loses some, and keeps those of a host that is cut off."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.hosts.switch import BROADCAST, MAC_BYTES, Switch, mac_of
from tests.rows import eventually

ADDRESSES = {"a": "10.22.0.1", "b": "10.22.0.2", "c": "10.22.0.3"}
TO = {name: mac_of(address) for name, address in ADDRESSES.items()} | {"all": BROADCAST}


class Wired:
    """A switch with three hosts, whose cables are pairs of datagram sockets."""

    def __init__(self, stack: ExitStack, *, delay: float = 0.0, loss: float = 0.0) -> None:
        self.switch = Switch(delay=delay, loss=loss)
        self._ends = {}
        for name, address in ADDRESSES.items():
            end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            end.setblocking(False)
            stack.callback(end.close)
            stack.callback(other.close)
            self._ends[name] = end
            self.switch.plug(name, other.fileno(), address)

    def send(self, name: str, to: str, data: bytes) -> None:
        self.switch.take(name, TO[to] + data)

    def arrived(self) -> list[tuple[str, bytes]]:
        """What has come since the last look."""
        self.switch.deliver()
        found = []
        for name, end in self._ends.items():
            try:
                while True:
                    found.append((name, end.recv(1 << 16)[MAC_BYTES:]))
            except BlockingIOError:
                continue
        return found


@pytest.fixture
def wired() -> Iterator[Callable[..., Wired]]:
    with ExitStack() as stack:
        yield lambda **options: Wired(stack, **options)


def test_an_address_has_one_mac():
    assert mac_of("10.22.0.3") == bytes.fromhex("02000a160003")
    assert len(set(TO.values())) == len(TO)


def test_frames_arrive_in_their_order_but_not_at_once(wired):
    late = wired(delay=0.05)
    late.send("a", "b", b"first")
    late.send("a", "b", b"second")
    assert late.arrived() == []
    got: list[tuple[str, bytes]] = []

    def both() -> bool:
        got.extend(late.arrived())
        return len(got) == 2

    eventually(both)
    assert got == [("b", b"first"), ("b", b"second")]


def test_some_frames_are_lost(wired):
    bad = wired(loss=0.5)
    for _ in range(1000):
        bad.send("a", "b", b"frame")
    assert 300 < bad.switch.seen["lost"] < 700
    assert bad.switch.seen["frames"] == 1000


def test_a_host_that_is_cut_off_sends_and_gets_nothing(wired):
    good = wired()
    good.switch.obey({"do": "cut", "name": "b"})
    good.send("a", "b", b"to it")
    good.send("b", "a", b"of it")
    good.send("a", "all", b"to all")
    assert good.arrived() == [("c", b"to all")]
    assert good.switch.seen["cut b"] == 2
    good.switch.obey({"do": "mend", "name": "b"})
    good.send("a", "b", b"later")
    assert good.arrived() == [("b", b"later")]


def test_what_is_on_its_way_to_a_host_that_is_cut_off_does_not_arrive(wired):
    good = wired()
    good.send("a", "b", b"frame")
    good.switch.obey({"do": "cut", "name": "b"})
    assert good.arrived() == []
