"""The queue of a process for the slots of a model's concurrent calls. Each tier of a model has slots and a queue of its own.

Calls whose caller waits for the answer go first. Among equals, the call that came first goes first.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Wait = Callable[[threading.Event, float], float]


def until_told(told: threading.Event, seconds: float) -> float:
    """Waits until the event is set, at most `seconds`. Returns how many seconds it waited."""
    began = time.monotonic()
    told.wait(seconds)
    return time.monotonic() - began


class QueuedCall:
    """A call that waits in the queue for a slot."""

    def __init__(self, wait: Wait, *, is_behind: bool) -> None:
        self.is_behind = is_behind  #: when it came, other calls were already waiting
        self.told = threading.Event()  #: set to notify it that a slot is free
        self.has_waited = False
        self.was_told = False  #: its last wait ended with a notification
        self.found = False  #: the user of the queue sets it when the call has a slot
        self._wait = wait

    def wait(self, seconds: float) -> float:
        """Waits until it is notified of a free slot, at most `seconds`. Returns how many seconds it waited."""
        self.has_waited = True
        took = self._wait(self.told, seconds)
        self.was_told = self.told.is_set()
        self.told.clear()
        return took


class CallQueue:
    """Queues the calls that wait for a slot. Thread-safe. It is not notified when a call of another process ends."""

    def __init__(self, wait: Wait = until_told) -> None:
        """Tests replace `wait`."""
        self._wait = wait
        self._lock = threading.Lock()
        self._lines: defaultdict[tuple[str, bool], deque[QueuedCall]] = defaultdict(deque)

    @contextmanager
    def in_line(self, lane: str, *, waited: bool) -> Iterator[QueuedCall]:
        """Keeps the call in the queue while it needs a slot.

        `lane`: the model in its tier (pipeline.engines.limiter). `waited`: a caller waits for its answer. Such calls have a queue of their own, which goes first.
        """
        with self._lock:
            line = self._lines[lane, waited]
            queued = QueuedCall(self._wait, is_behind=any(other.has_waited for other in line))
            line.append(queued)
        try:
            yield queued
        finally:
            with self._lock:
                line.remove(queued)
                # It was notified of a free slot and did not use it, because it got one before or gave up. So the next call
                # is notified instead.
                if queued.told.is_set() or (queued.was_told and not queued.found):
                    self._tell_next(lane)

    def leave(self, lane: str) -> None:
        """Notifies the next call, because a call of the lane has ended."""
        with self._lock:
            self._tell_next(lane)

    def _tell_next(self, lane: str) -> None:
        for waited in (True, False):
            for queued in self._lines[lane, waited]:
                if not queued.told.is_set():
                    queued.told.set()
                    return
