"""Who in this process waits for which job. One subscription to Redis serves all of them: a connection each would cost
this process and Redis more than all else about a waiter."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Watch:
    """One who waits for a job, or only for its end."""

    def __init__(self, *, end_only: bool) -> None:
        self.end_only = end_only
        self._told = threading.Event()

    def tell(self) -> None:
        self._told.set()

    def wait(self, seconds: float) -> bool:
        """Blocks until something is told of the job, or the time is over; at once if it was told since the last wait, or since
        the watch began. Also True where something may have gone unheard: whoever waits looks at SQL anyway."""
        told = self._told.wait(seconds)
        self._told.clear()
        return told


class Watches:
    """All of them, by job. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, set[Watch]] = {}

    @contextmanager
    def watch(self, job: str, *, end_only: bool = False) -> Iterator[Watch]:
        """Hears of the job from now on."""
        watch = Watch(end_only=end_only)
        with self._lock:
            self._of.setdefault(job, set()).add(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._of[job].discard(watch)
                if not self._of[job]:
                    del self._of[job]

    def tell(self, job: str, *, ended: bool = True) -> None:
        with self._lock:
            for watch in self._of.get(job, ()):
                if ended or not watch.end_only:
                    watch.tell()

    def tell_all(self) -> None:
        """Something may have gone unheard."""
        with self._lock:
            for watches in self._of.values():
                for watch in watches:
                    watch.tell()
