"""Notifications in memory. It does the same as `storage.redis.signals.Signals`, without Redis."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from contextlib import AbstractContextManager

from storage.queue.ringing import Ring
from storage.redis.watching import Watch, Watches


class MemorySignals:
    """Announced steps go to the queue `rung`. Notified waiters wake. `lose_rings` drops messages, as Redis may."""

    def __init__(self) -> None:
        # This is no SimpleQueue, because on CPython 3.11 its get(timeout=...) can block for ever: it does so if another getter
        # takes the item close to the timeout.
        self.rung: queue.Queue[int] = queue.Queue()
        self.lose_rings = False
        self._watches = Watches()
        self._published: dict[str, str] = {}

    def ring(self, rings: Iterable[Ring]) -> None:
        for ring in rings:
            if not self.lose_rings:
                self.rung.put(ring.step)

    def ping(self) -> None:
        """Does nothing, because the fake is always available."""

    def queue_is_empty(self) -> bool:
        return self.rung.empty()

    def tell(self, job: str, *, ended: bool = True) -> None:
        self._watches.tell(job, ended=ended)

    def watch(self, job: str, *, end_only: bool = False) -> AbstractContextManager[Watch]:
        return self._watches.watch(job, end_only=end_only)

    def publish(self, process: str, text: str) -> None:
        self._published[process] = text

    def published(self) -> dict[str, str]:
        return dict(self._published)

    def close(self) -> None:
        """Does nothing, because the fake holds no resources."""
