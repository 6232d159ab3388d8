"""The doorbell in memory: what `storage.signals.Signals` does, without Redis."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable

from storage.steps import Ring


class MemorySignals:
    """Rings go to `rung`; waiters wake when their job is told of. `lose_rings` drops messages, as Redis may."""

    def __init__(self) -> None:
        # Not SimpleQueue: on CPython 3.11 its get(timeout=...) waits for ever when another getter was faster near the end.
        self.rung: queue.Queue[int] = queue.Queue()
        self.lose_rings = False
        self._told: Counter[str] = Counter()
        self._published: dict[str, str] = {}
        self._changed = threading.Condition()

    def ring(self, rings: Iterable[Ring]) -> None:
        for ring in rings:
            if not self.lose_rings:
                self.rung.put(ring.step)

    def ping(self) -> None:
        """Is always there."""

    def queue_is_empty(self) -> bool:
        return self.rung.empty()

    def tell(self, job: str) -> None:
        with self._changed:
            self._told[job] += 1
            self._changed.notify_all()

    def wait(self, job: str, after: str, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        with self._changed:
            while str(self._told[job]) == after and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return str(self._told[job])

    def publish(self, process: str, text: str) -> None:
        self._published[process] = text

    def published(self) -> dict[str, str]:
        return dict(self._published)

    def close(self) -> None:
        """Holds nothing."""
