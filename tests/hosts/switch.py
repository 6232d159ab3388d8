"""A network switch in its own process. Its frames take some time, and some are lost: `python -m tests.hosts.switch`.

Each host has a TAP device, `eth0`, whose other end is here. Only frames are delayed or lost, so connections behave as the kernel's
TCP does on a bad network: it sends again, waits longer, and gives up by its own rules. `tc netem` would do the same, but not each
kernel has it, and the switch needs only /dev/net/tun.

Each line of standard input is an order, in JSON: {"do": "join", "name", "pid", "address"} makes `eth0` in the network namespace of
that process, and the others are {"do": "cut" | "mend" | "leave", "name"} and {"do": "look"}. Each answer is the numbers so far.
A host that is cut sends and receives nothing. Its link stays up, so nobody is told.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import select
import struct
import sys
import time
from collections import Counter, deque

DELAY_SECONDS = 0.005
LOSS = 0.01
MOST_WAITING = 20_000  #: frames; a real switch has a limit too
FRAME = 65_536
FRAMES_AT_ONCE = 64
MAC_BYTES = 6
BROADCAST = b"\xff" * MAC_BYTES
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
DEVICE = "eth0"

_libc = ctypes.CDLL(None, use_errno=True)


def mac_of(address: str) -> bytes:
    """A host that takes over an address takes over its MAC too."""
    return b"\x02\x00" + bytes(map(int, address.split(".")))


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Switch:
    def __init__(self, *, delay: float = DELAY_SECONDS, loss: float = LOSS) -> None:
        self.seen: Counter[str] = Counter()
        self._delay, self._loss = delay, loss
        self._taps: dict[str, int] = {}  # name → file descriptor
        self._names: dict[int, str] = {}
        self._ports: dict[bytes, str] = {}  # MAC → name
        self._cut: set[str] = set()
        self._waiting: deque[tuple[float, str, bytes]] = deque()  # due, to, frame
        self._poll = select.epoll()
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)

    def obey(self, order: dict[str, str]) -> None:
        name = order.get("name", "")
        match order["do"]:
            case "join":
                self._leave(name)
                self._join(name, int(order["pid"]), order["address"])
            case "cut":
                self._cut.add(name)
            case "mend":
                self._cut.discard(name)
            case "leave":
                self._leave(name)

    def _join(self, name: str, pid: int, address: str) -> None:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            _enter(there)
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TAP | IFF_NO_PI))
        finally:
            _enter(self._home)
            os.close(there)
        self.plug(name, tap, address)

    def plug(self, name: str, tap: int, address: str) -> None:
        """`tap`: a file descriptor, each read and write of which is one frame."""
        self._taps[name], self._names[tap], self._ports[mac_of(address)] = tap, name, name
        self._poll.register(tap, select.EPOLLIN)

    def _leave(self, name: str) -> None:
        self._cut.discard(name)
        tap = self._taps.pop(name, None)
        if tap is not None:
            del self._names[tap]
            self._ports = {mac: port for mac, port in self._ports.items() if port != name}
            self._poll.unregister(tap)
            os.close(tap)

    def run(self) -> None:
        self._poll.register(0, select.EPOLLIN)
        while True:
            left = self._waiting[0][0] - time.monotonic() if self._waiting else -1.0
            for ready, _ in self._poll.poll(max(left, 0) if self._waiting else None):
                if ready == 0:
                    line = sys.stdin.buffer.raw.readline()  # type: ignore[attr-defined]
                    if not line:
                        return
                    self.obey(json.loads(line))
                    print(json.dumps(self.seen), flush=True)  # noqa: T201
                elif ready in self._names:
                    self._take(ready)
            self.deliver()

    def _take(self, tap: int) -> None:
        name = self._names[tap]
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = os.read(tap, FRAME)
            except OSError:  # nothing is left, or the host is gone
                return
            self.take(name, frame)

    def take(self, name: str, frame: bytes) -> None:
        """Takes a frame from a host."""
        due = time.monotonic() + self._delay
        self.seen["frames"] += 1
        to = self._ports.get(frame[:MAC_BYTES], "")
        if name in self._cut or to in self._cut:
            self.seen[f"cut {name if name in self._cut else to}"] += 1
        elif random.random() < self._loss:
            self.seen["lost"] += 1
        elif len(self._waiting) >= MOST_WAITING:
            self.seen["dropped"] += 1
        elif to:
            self._waiting.append((due, to, frame))
        elif frame[:MAC_BYTES] == BROADCAST:
            self._waiting.extend((due, each, frame) for each in self._taps if each not in {name, *self._cut})

    def deliver(self) -> None:
        """Sends the frames whose time has come."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            due, to, frame = self._waiting.popleft()
            self.seen["late ms"] = max(self.seen["late ms"], round(1000 * (now - due)))
            tap = self._taps.get(to)
            if tap is not None and to not in self._cut:
                try:
                    os.write(tap, frame)
                except OSError:  # the device is not up yet, or the host ends
                    self.seen["not taken"] += 1


if __name__ == "__main__":
    Switch().run()
