"""What model servers have taught this process, in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

KEPT_SECONDS = 3_600.0  #: a lesson is forgotten after this time, so that an upgraded server is tried anew
MOST_TOPICS = 4_096  #: more topics than this are not remembered


class LocalLessons:
    """The lessons of this process alone. Implements pipeline.ports.Lessons. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that never go back."""
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Mapping[str, Any]]] = {}  # when it is forgotten, and what was learnt

    def known(self, *topics: str, fresh: bool = False) -> list[Mapping[str, Any]]:  # noqa: ARG002 - nobody else learns here
        now = self._clock()
        with self._lock:
            found = [self._known.get(topic) for topic in topics]
        return [kept[1] if kept and now < kept[0] else {} for kept in found]

    def learn(self, topic: str, lesson: Mapping[str, Any]) -> None:
        with self._lock:
            if len(self._known) >= MOST_TOPICS:
                self._known.clear()
            self._known[topic] = (self._clock() + KEPT_SECONDS, dict(lesson))
