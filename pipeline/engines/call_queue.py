"""Who of a process has the next place among a model's calls at once: whose caller waits, then who came first."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Wait = Callable[[threading.Event, float], float]


def until_told(told: threading.Event, seconds: float) -> float:
    """Waits until it is set, at most `seconds`; how many it took."""
    began = time.monotonic()
    told.wait(seconds)
    return time.monotonic() - began


class QueuedCall:
    """A call that looks for a place, in line with others."""

    def __init__(self, wait: Wait, *, is_behind: bool) -> None:
        self.is_behind = is_behind  #: others had found no place when it came
        self.told = threading.Event()
        self.has_waited = False
        self.was_told = False
        self.found = False  #: to be set by who has found a place
        self._wait = wait

    def wait(self, seconds: float) -> float:
        """Returns when a call of this process has ended and it is this one's turn, or after `seconds`; how many it took."""
        self.has_waited = True
        took = self._wait(self.told, seconds)
        self.was_told = self.told.is_set()
        self.told.clear()
        return took


class CallQueue:
    """Lets those who look for a place wait in line. Thread-safe. Of calls that other processes end it does not hear."""

    def __init__(self, wait: Wait = until_told) -> None:
        """`wait` is a test's to replace."""
        self._wait = wait
        self._lock = threading.Lock()
        self._lines: defaultdict[tuple[str, bool], deque[QueuedCall]] = defaultdict(deque)

    @contextmanager
    def in_line(self, model: str, *, waited: bool) -> Iterator[QueuedCall]:
        """For as long as the call looks for a place. `waited`: somebody waits for its answer, and it has a line of its own."""
        with self._lock:
            line = self._lines[model, waited]
            queued = QueuedCall(self._wait, is_behind=any(other.has_waited for other in line))
            line.append(queued)
        try:
            yield queued
        finally:
            with self._lock:
                line.remove(queued)
                # It had found one before it was told of this, or was sent away for another reason.
                if queued.told.is_set() or (queued.was_told and not queued.found):
                    self._tell_next(model)

    def leave(self, model: str) -> None:
        """A call of the model has ended."""
        with self._lock:
            self._tell_next(model)

    def _tell_next(self, model: str) -> None:
        for waited in (True, False):
            for queued in self._lines[model, waited]:
                if not queued.told.is_set():
                    queued.told.set()
                    return
