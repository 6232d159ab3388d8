"""Runs many transfers in one thread with libcurl's multi interface and the system's poller. Connections stay open between calls."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable

import pycurl

from pipeline.fetch.transfer import Transfer

_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


class Loop:
    """The transfers and their poller. Only one thread at a time may use it, but any thread may call `wake`.

    The poller is our own and calls socket_action, because pycurl's `select` is select(2), which cannot see a descriptor over 1023.
    """

    def __init__(self, make: Callable[[], Transfer], *, connections: int) -> None:
        self._make = make
        self._idle: list[Transfer] = []
        self._busy: dict[pycurl.Curl, Transfer] = {}
        self._due: float | None = None  # when libcurl wants to be called because of its own timer
        self._selector = selectors.DefaultSelector()
        self._watched: set[int] = set()  # the descriptors in the selector that belong to libcurl
        self._ear, self._mouth = socket.socketpair()
        self._ear.settimeout(0)
        self._mouth.settimeout(0)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)

    def lend(self) -> Transfer:
        """Returns a transfer. The caller aims it and calls `start`, or calls `give_back`."""
        return self._idle.pop() if self._idle else self._make()

    def give_back(self, transfer: Transfer) -> None:
        self._idle.append(transfer)

    def start(self, transfer: Transfer) -> None:
        self._multi.add_handle(transfer.curl)
        self._busy[transfer.curl] = transfer

    def stop(self, transfer: Transfer) -> None:
        """Takes the transfer out of the loop. If it was still running, its connection is closed."""
        del self._busy[transfer.curl]
        self._multi.remove_handle(transfer.curl)

    def poll(self, most: float) -> list[tuple[Transfer, int]]:
        """Waits up to `most` seconds for events and handles them. Returns the transfers that ended, each with libcurl's code."""
        wait = most if self._due is None else min(most, self._due - time.monotonic())
        for key, ready in self._selector.select(max(0.0, wait)):
            if key.fileobj is self._ear:
                self._ear.recv(4096)
                continue
            bits = 0
            if ready & selectors.EVENT_READ:
                bits |= pycurl.CSELECT_IN
            if ready & selectors.EVENT_WRITE:
                bits |= pycurl.CSELECT_OUT
            self._multi.socket_action(key.fd, bits)
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        return self._ended()

    def _ended(self) -> list[tuple[Transfer, int]]:
        more = 1
        ended: list[tuple[Transfer, int]] = []
        while more:
            more, good, bad = self._multi.info_read()
            ended += [(self._busy[curl], pycurl.E_OK) for curl in good]
            ended += [(self._busy[curl], code) for curl, code, _ in bad]
        for transfer, _ in ended:
            self.stop(transfer)
        return ended

    def wake(self) -> None:
        """Ends the wait of `poll`. Any thread may call it."""
        # If the socket is full, `poll` wakes anyway. If it is closed, nobody waits.
        with contextlib.suppress(OSError):
            self._mouth.send(b"\0")

    def close(self) -> None:
        for transfer in list(self._busy.values()):
            self.stop(transfer)
        self._multi.close()
        for transfer in self._idle:
            transfer.curl.close()
        self._selector.close()
        self._ear.close()
        self._mouth.close()

    def _watch(self, what: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            if fd in self._watched:
                self._watched.remove(fd)
                self._selector.unregister(fd)
        elif fd in self._watched:
            self._selector.modify(fd, _EVENTS[what])
        else:
            self._watched.add(fd)
            self._selector.register(fd, _EVENTS[what])

    def _set_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
