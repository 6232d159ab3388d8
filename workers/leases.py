"""Keeps the leases of a process alive: one thread, one short transaction a lease and beat."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from storage import steps
from storage.database import Database
from storage.steps import Lease

log = structlog.get_logger(__name__)


class LeaseKeeper:
    """Renews what it holds every quarter of a lease, but never past the step's hard limit."""

    def __init__(self, database: Database, *, lease_seconds: float, step_seconds: float) -> None:
        self._database = database
        self._lease_ms = int(lease_seconds * 1000)
        self._beat = lease_seconds / 4
        self._most_beats = int(step_seconds / self._beat)
        # The beats each may still have. By lease, not by step: a thread that lost a step must not drop its successor's.
        self._held: dict[Lease, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[None]:
        """Keeps the lease while the block runs."""
        with self._lock:
            self._held[lease] = self._most_beats
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(lease, None)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._beat):
            with self._lock:
                self._held = {lease: left - 1 for lease, left in self._held.items() if left > 0}
                leases = list(self._held)
            for lease in leases:
                self._renew(lease)

    def _renew(self, lease: Lease) -> None:
        """In a transaction of its own: who ends a job holds several steps, and must not wait for a step that waits for it."""
        try:
            with self._database.write() as connection:
                lost = steps.renew(connection, [lease], lease_ms=self._lease_ms)
        except SQLAlchemyError:
            log.warning("lease_not_renewed", job=lease.job, step=lease.step, exc_info=True)
            return
        if lost:  # its worker learns of it at its next write
            log.info("lease_lost", job=lease.job, step=lease.step)
            with self._lock:
                self._held.pop(lease, None)
