"""The waiters of this process, by job.

All of them share one subscription to Redis, because a connection for each would be the largest cost of a waiter.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from storage.redis.answers import Success


class Watch:
    """A waiter for any change of a job, or only for its end."""

    def __init__(self, *, end_only: bool) -> None:
        self.end_only = end_only
        self.answer: Success | None = None  #: of the ended job, if its worker has sent it
        self._told = threading.Event()

    def tell(self) -> None:
        self._told.set()

    def wait(self, seconds: float) -> bool:
        """Blocks until the job is notified or `seconds` have passed. Returns whether it was notified.

        It returns at once if a notification arrived since the last wait, or since the watch began. It also returns True if a
        notification may have been lost, so the caller must read the job's state from SQL.
        """
        told = self._told.wait(seconds)
        self._told.clear()
        return told


class Watches:
    """All watches of this process, by job. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, set[Watch]] = {}

    @contextmanager
    def watch(self, job: str, *, end_only: bool = False) -> Iterator[Watch]:
        """Receives the job's notifications from now on."""
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

    def answer(self, job: str, success: Success) -> None:
        """Wakes the job's watches, because it has ended with this answer."""
        with self._lock:
            for watch in self._of.get(job, ()):
                watch.answer = success
                watch.tell()

    def tell_all(self) -> None:
        """Wakes every watch, because notifications may have been lost."""
        with self._lock:
            for watches in self._of.values():
                for watch in watches:
                    watch.tell()
