"""Announces the steps that this process handed back when they are due, in case no supervisor runs.

A supervisor announces every due step within a second. Without one, steps that met a busy model would wait until it is back.
"""

from __future__ import annotations

import heapq
import threading
import time

import structlog

from pipeline.errors import PartError
from storage.database import Database
from storage.queue import ringing
from storage.redis.signals import Signals

log = structlog.get_logger(__name__)

SUPERVISOR_SECONDS = 3.0  #: so long after a step is due, a supervisor has announced it, and this process finds nothing to do
PAUSE_SECONDS = 1.0  #: between two looks, however many steps become due


class HandedBack:
    """Looks for due steps after those that were handed back are due. Thread-safe. Its thread starts with the first of them."""

    def __init__(self, database: Database, signals: Signals, stopping: threading.Event) -> None:
        self._database = database
        self._signals = signals
        self._stopping = stopping
        self._changed = threading.Condition()
        self._due: list[float] = []  # by time.monotonic; a heap
        self._thread: threading.Thread | None = None

    def expect(self, seconds: float) -> None:
        """A step was handed back, and is due in `seconds`."""
        with self._changed:
            heapq.heappush(self._due, time.monotonic() + seconds + SUPERVISOR_SECONDS)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="handed-back", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._wait_for_due():
                self._announce()
                self._stopping.wait(PAUSE_SECONDS)

    def _wait_for_due(self) -> bool:
        """Whether a step is due by now. Waits for that for a second at most, because nobody wakes it when the process stops."""
        with self._changed:
            now = time.monotonic()
            wait = min(max(self._due[0] - now, 0.0) if self._due else PAUSE_SECONDS, PAUSE_SECONDS)
            self._changed.wait(wait)
            now, due = time.monotonic(), False
            while self._due and self._due[0] <= now:
                heapq.heappop(self._due)
                due = True
            return due

    def _announce(self) -> None:
        try:
            with self._database.write() as connection:
                rings = ringing.to_ring(connection)
            self._signals.ring(rings)
        except PartError as error:
            log.warning("steps_not_announced", reason=str(error)[:300])
            return
        if rings:
            log.warning("announced_without_supervisor", steps=len(rings))
