"""A Redis whose host is gone answers nothing. One thread waits for it now and then, and the others go on without it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from limits import parse
from limits.strategies import SlidingWindowCounterRateLimiter

from api.wiring import rate_storage
from pipeline.errors import Transient
from storage.queue.ringing import Ring
from storage.redis import silent
from storage.redis.errors import AWAY
from storage.redis.signals import Signals
from testbed import valkey

ANSWER_SECONDS = 2.0  #: far below the time-out of a connection, 5 s, of which each attempt here would take one or more


class Gone:
    """A port at which nobody answers, as at a host that is gone: its queue is full, so the kernel drops what comes."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self._waiting = [socket.socket() for _ in range(3)]
        for each in self._waiting:
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(self._listener.getsockname())
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def close(self) -> None:
        for each in (*self._waiting, self._listener):
            each.close()


@pytest.fixture
def gone() -> Iterator[Gone]:
    port = Gone()
    yield port
    port.close()


def test_only_the_first_one_waits(gone, monkeypatch):
    monkeypatch.setattr(silent, "PAUSE_SECONDS", 60.0)
    signals = Signals(gone.url)
    rates = SlidingWindowCounterRateLimiter(rate_storage(gone.url))
    signals.tell("job")  # this one waits for its time-out
    began = time.monotonic()
    signals.tell("job")
    signals.ring([Ring(step=1, waited=False)])
    with pytest.raises(AWAY):
        rates.hit(parse("10/minute"), "key")
    with pytest.raises(Transient):
        signals.check()
    assert time.monotonic() - began < ANSWER_SECONDS
    signals.close()


def test_one_thread_tries_again_after_a_while_and_the_others_do_not_wait_for_it():
    silence = silent.Silence()
    silence.met()
    silence._until = time.monotonic() - 1
    silence.before()  # the one that tries
    with pytest.raises(silent.RedisAway):
        silence.before()
    silence.over()
    silence.before()


def test_a_redis_that_is_back_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(silent, "PAUSE_SECONDS", 0.05)
    with valkey(tmp_path) as url:
        host, port = "127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])
        silent._of(host, port).met()
        signals = Signals(url)
        with pytest.raises(Transient):
            signals.check()
        threading.Event().wait(0.1)  # longer than the pause
        signals.check()
        signals.close()
