"""Renews the leases of a process: one thread, and one short transaction for each renewal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from pipeline.errors import Transient
from storage.database import Database
from storage.queue import steps
from storage.queue.steps import Lease

log = structlog.get_logger(__name__)

STUCK_AFTER = 2.0  #: a thread that works on a step for this many times the hard limit is stuck


@dataclass(slots=True)
class _Held:
    """How long a held lease may be renewed. Times are those of `time.monotonic`."""

    since: float  #: when the step began; the time that it spent in slow calls is added, so that only its other time counts
    slow_until: float | None = None  #: it is in a slow call that ends by then; None: it is in none


class LeaseKeeper:
    """Renews its leases every quarter of `lease_seconds`, but never past the step's hard limit of `step_seconds`.

    The time of a slow call does not count towards that limit, because the call has a limit of its own. After each round of renewals, `on_stuck` is called if a thread is stuck in a step: see STUCK_AFTER.
    `on_rest` is called once no lease is held any more, if some were held since it was called last.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        step_seconds: float,
        on_stuck: Callable[[], None] = lambda: None,
        on_rest: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._step_seconds = step_seconds
        self._on_stuck = on_stuck
        self._on_rest = on_rest
        self._worked = False  # whether a lease was held since on_rest was called last
        # The key is not the step, because a thread that lost a step must not drop the newer lease.
        self._held: dict[Lease, _Held] = {}
        self._lost: set[Lease] = set()  # held leases that are lost and not renewed any more
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[None]:
        """Renews the lease while the block runs."""
        with self._changed:
            self._held[lease] = _Held(time.monotonic())
            self._worked = True
        try:
            yield
        finally:
            with self._changed:
                self._held.pop(lease, None)
                self._lost.discard(lease)
                self._changed.notify_all()

    @contextmanager
    def in_slow_call(self, lease: Lease, *, seconds: float) -> Iterator[None]:
        """Renews a held lease for up to `seconds` more, while its step waits for an answer in the tier `economy`.

        The end of the process does not wait for such a step. It is handed back at once, and its call is made again.
        """
        began = time.monotonic()
        with self._changed:
            held = self._held[lease]
            held.slow_until = began + seconds
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                held.slow_until = None
                held.since += time.monotonic() - began

    def held(self) -> list[Lease]:
        """The leases that are renewed."""
        with self._changed:
            return [lease for lease in self._held if lease not in self._lost]

    def busy(self) -> int:
        """How many threads work on steps. Threads that lost their lease count too. Those in a slow call do not."""
        with self._changed:
            return self._busy()

    def wait_until_free(self, seconds: float) -> bool:
        """Waits at most `seconds` until no thread works on a step. Returns whether that happened. A slow call is not waited for."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy(), seconds)

    def _busy(self) -> int:
        return sum(held.slow_until is None for held in self._held.values())

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
            self._look_for_rest()

    def _renew(self, lease: Lease) -> None:
        """Renews one lease in its own transaction.

        The transaction that ends a job locks several steps. If one transaction renewed several leases, the two could deadlock.
        """
        with self._changed:
            held = self._held.get(lease)
            if held is None:
                return
            ends = held.since + self._step_seconds if held.slow_until is None else held.slow_until + self._lease_seconds
        seconds = min(self._lease_seconds, ends - time.monotonic())
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
            stuck = [lease for lease, held in self._held.items() if (held.slow_until or held.since) < limit]
        for lease in stuck:
            log.error("step_stuck", job=lease.job, step=lease.step, kind=lease.kind.value)
        if stuck:
            self._on_stuck()

    def _look_for_rest(self) -> None:
        with self._changed:
            rests = self._worked and not self._held
            if rests:
                self._worked = False
        if rests:
            self._on_rest()
