"""Lets another step work while a step waits for slow image servers, so that they delay only the images of their own account.

A step that fetches needs its thread only when an image has come, because one thread fetches for all. So a step that has waited for
SLOW_SECONDS lends its place: a spare thread takes the next step of the queue. When an image comes, the step works on at once, and the
spare thread ends with the step that it has.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from pipeline.shares import may_take

SLOW_SECONDS = 0.2  #: a step that waits longer for its next image lends its place, and passes its turn to stage on
LOOK_SECONDS = 0.05  #: how often the waiting steps are looked at
IDLE_SECONDS = 5.0  #: how often `stopping` is checked while no step waits

T = TypeVar("T")


class LentPlaces:
    """The places that are lent now, for spare threads. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free = 0  # negative while more steps are worked on than places are lent

    def lend(self) -> None:
        """Lets one more spare thread work."""
        self.release()

    def take_back(self) -> None:
        """Lets one spare thread less work, as soon as one has ended its step."""
        with self._changed:
            self._free -= 1

    def acquire(self, *, timeout: float) -> bool:
        """Waits for a place at most `timeout` seconds. Returns whether there was one."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free > 0, timeout):
                return False
            self._free -= 1
            return True

    def release(self) -> None:
        """Gives a place back."""
        with self._changed:
            self._free += 1
            self._changed.notify()


@dataclass(eq=False, slots=True)
class _Wait:
    account: str
    since: float
    on_wait: Callable[[], None]
    lent: bool = False


class Lending:
    """The places that waiting steps have lent. Thread-safe.

    `places`: the most that are lent at once. Accounts share them by the rule of pipeline/shares.py. `clock`: returns seconds
    that never decrease. Without `spares`, nothing is lent.
    """

    def __init__(self, spares: LentPlaces | None = None, *, places: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._spares = spares
        self._left = places
        self._clock = clock
        self._lock = threading.Lock()
        self._waits: dict[_Wait, None] = {}
        self._lent: Counter[str] = Counter()
        self._some = threading.Event()  # set while a step waits

    def lend_to(self, spares: LentPlaces, *, places: int) -> None:
        """Lends places from now on. Nothing was lent before."""
        with self._lock:
            self._spares, self._left = spares, places

    def watched(self, values: Generator[T], *, account: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[T]:
        """Yields the values. While the next one does not come, the step's place is lent.

        `on_wait`: called if the next one has not come for SLOW_SECONDS, perhaps several times. It must not wait for anything.
        """
        if self._spares is None:
            yield from values
            return
        with closing(values):
            while True:
                wait = _Wait(account, self._clock(), on_wait)
                with self._lock:
                    self._waits[wait] = None
                    self._some.set()
                try:
                    value = next(values)
                except StopIteration:
                    return
                finally:
                    self._end(wait)
                yield value

    def look(self) -> None:
        """Lends the places of the steps that have waited too long."""
        now = self._clock()
        with self._lock:
            for wait in self._waits:
                if now - wait.since < SLOW_SECONDS:
                    break  # the others have waited for less
                wait.on_wait()
                if self._spares is None or wait.lent:
                    continue
                if may_take(held=self._lent[wait.account], free=self._left):
                    wait.lent = True
                    self._left -= 1
                    self._lent[wait.account] += 1
                    self._spares.lend()

    def wait_for_steps(self, seconds: float) -> bool:
        """Sleeps until a step waits, but at most `seconds`. Returns whether one does."""
        return self._some.wait(seconds)

    def _end(self, wait: _Wait) -> None:
        with self._lock:
            del self._waits[wait]
            if not self._waits:
                self._some.clear()
            if wait.lent and self._spares is not None:
                self._left += 1
                self._lent[wait.account] -= 1
                self._spares.take_back()


def look_always(lending: Lending, stopping: threading.Event) -> None:
    """Looks at the waiting steps until `stopping` is set. It runs in a thread of its own."""
    while not stopping.is_set():
        if lending.wait_for_steps(IDLE_SECONDS) and not stopping.wait(LOOK_SECONDS):
            lending.look()
