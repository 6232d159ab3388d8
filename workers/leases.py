"""Renews the leases of a process: one thread, and one short transaction for each renewal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from pipeline.errors import Transient
from storage.database import Database
from storage.queue import steps
from storage.queue.steps import Lease

log = structlog.get_logger(__name__)

STUCK_AFTER = 2.0  #: a thread that works on a step for this many times the hard limit is stuck


class LeaseKeeper:
    """Renews its leases every quarter of `lease_seconds`, but never past the step's hard limit of `step_seconds`.

    After each round of renewals, `on_stuck` is called if a thread is stuck in a step: see STUCK_AFTER.
    """

    def __init__(
        self, database: Database, *, lease_seconds: float, step_seconds: float, on_stuck: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._step_seconds = step_seconds
        self._on_stuck = on_stuck
        # Lease → when it was taken. The key is not the step, because a thread that lost a step must not drop the newer lease.
        self._held: dict[Lease, float] = {}
        self._lost: set[Lease] = set()  # held leases that are lost and not renewed any more
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[None]:
        """Renews the lease while the block runs."""
        with self._changed:
            self._held[lease] = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._held.pop(lease, None)
                self._lost.discard(lease)
                self._changed.notify_all()

    def held(self) -> list[Lease]:
        """The leases that are renewed."""
        with self._changed:
            return [lease for lease in self._held if lease not in self._lost]

    def busy(self) -> int:
        """How many threads work on steps. Threads that lost their lease count too."""
        return len(self._held)

    def wait_until_free(self, seconds: float) -> bool:
        """Waits at most `seconds` until no thread works on a step. Returns whether that happened."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, seconds)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._lease_seconds / 4):
            for lease in self.held():
                try:
                    self._renew(lease)
                except Transient as error:
                    log.warning("lease_not_renewed", job=lease.job, step=lease.step, reason=type(error).__name__)
                except Exception:  # the thread must survive any error
                    log.exception("lease_not_renewed", job=lease.job, step=lease.step)
            self._look_for_stuck()

    def _renew(self, lease: Lease) -> None:
        """Renews one lease in its own transaction.

        The transaction that ends a job locks several steps. If one transaction renewed several leases, the two could deadlock.
        """
        since = self._held.get(lease)
        if since is None:
            return
        seconds = min(self._lease_seconds, since + self._step_seconds - time.monotonic())
        if seconds > 0:
            with self._database.write() as connection:
                kept = steps.renew(connection, lease, lease_ms=int(seconds * 1000))
                lost = not kept and steps.is_lost(connection, lease)
            if not lost:
                return
        # The thread learns that the lease is lost at its next write.
        log.info("lease_lost", job=lease.job, step=lease.step)
        with self._changed:
            if lease in self._held:
                self._lost.add(lease)

    def _look_for_stuck(self) -> None:
        limit = time.monotonic() - STUCK_AFTER * self._step_seconds
        with self._changed:
            stuck = [lease for lease, since in self._held.items() if since < limit]
        for lease in stuck:
            log.error("step_stuck", job=lease.job, step=lease.step, kind=lease.kind.value)
        if stuck:
            self._on_stuck()
