"""The supervisor recovers steps and jobs from lost messages and dead processes, each second. Running two is safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from pipeline.errors import PartError
from pipeline.metrics import JOBS_OVERDUE, LEASES_EXPIRED
from pipeline.ports import Scratch
from pipeline.scratch_key import is_input, owner_of
from storage.account import answers
from storage.database import Database
from storage.job import closing, inputs, upkeep
from storage.job.upkeep import Owner
from storage.queue import ringing, steps
from storage.redis.signals import Signals

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
PURGE_SECONDS = 60.0
SWEEP_SECONDS = 300.0
OWNERS_AT_ONCE = 500  #: databases take about 30,000 values in one query
LONGEST_REASON = 300  #: characters of a part's own words in the log
UNKNOWN_SECONDS = 3600.0  #: a request that is being accepted may have objects but no job yet


@dataclass(kw_only=True)
class Supervisor:
    """Notifies workers of due steps, reclaims expired leases, ends overdue jobs, purges results, sweeps scratch."""

    database: Database
    scratch: Scratch
    signals: Signals
    show_alive: Callable[[], None] = lambda: None  #: called after each tick in which nothing failed
    clock: Callable[[], float] = time.monotonic  #: seconds; tells when errands are due and how long scratch has been unknown
    _due: dict[str, float] = field(default_factory=dict)  # errand → when it is due, by the process's clock
    _interrupted: set[str] = field(default_factory=set)  # errands that failed last because a part is away
    _unknown: dict[str, float] = field(default_factory=dict)  # scratch owner → when it was first seen without a job

    def run(self, stop: threading.Event) -> None:
        """Ticks until `stop` is set. An errand that fails is retried when it is next due."""
        while not stop.wait(TICK_SECONDS):
            self.tick()

    def tick(self) -> None:
        errands = (self.reclaim, self.end_overdue, self.finalize_stranded, self.expire_inputs, self.ring)
        went_well = [self._attempt(errand) for errand in errands]
        if all(went_well):
            self.show_alive()
        self._every(PURGE_SECONDS, self.purge)
        self._every(SWEEP_SECONDS, self.sweep)

    def reclaim(self) -> None:
        with self.database.write() as connection:
            expired = steps.reclaim_expired(connection)
        if expired:
            LEASES_EXPIRED.add(expired)
            log.warning("leases_expired", steps=expired)

    def ring(self) -> None:
        """Notifies workers of all due steps. If the queue is empty, earlier messages may be lost, so all of them are sent again."""
        lost = self.signals.queue_is_empty()
        with self.database.write() as connection:
            if lost:
                ringing.forget_rings(connection)
            rings = ringing.to_ring(connection)
        self.signals.ring(rings)

    def end_overdue(self) -> None:
        with self.database.read() as connection:
            late = upkeep.overdue(connection)
        for job in late:
            self._attempt(self._end, job)

    def _end(self, job: str) -> None:
        with self.database.write() as connection:
            closing.close_overdue(connection, job)
        JOBS_OVERDUE.add()
        log.info("job_overdue", job=job)
        self.signals.tell(job)

    def finalize_stranded(self) -> None:
        with self.database.write() as connection:
            stranded = upkeep.finalize_stranded(connection)
        for job in stranded:
            log.warning("job_was_stranded", job=job)

    def expire_inputs(self) -> None:
        """Adds the steps that delete the uploaded images whose time to be kept is over."""
        with self.database.read() as connection:
            if not inputs.expired(connection, limit=1):
                return
        with self.database.write() as connection:
            late = inputs.delete_expired(connection)
        log.info("inputs_expired", jobs=len(late))

    def purge(self) -> None:
        with self.database.write() as connection:
            purged = upkeep.purge_expired(connection)
            answers.forget_expired(connection)
        if purged:
            log.info("results_expired", jobs=len(purged))

    def sweep(self) -> None:
        """Deletes the scratch of jobs that have ended, and scratch that has belonged to no job for an hour.

        Uploaded images that are kept for a retry stay.
        """
        keys: dict[str, list[str]] = {}
        for key in self.scratch.list(""):
            keys.setdefault(owner_of(key), []).append(key)
        owners = list(keys)
        known: dict[str, Owner] = {}
        for first in range(0, len(owners), OWNERS_AT_ONCE):
            with self.database.read() as connection:
                known |= upkeep.scratch_owners(connection, owners[first : first + OWNERS_AT_ONCE])
        now = self.clock()
        self._unknown = {owner: self._unknown.get(owner, now) for owner in keys if owner not in known}
        idle = {owner: keys[owner] for owner, needs in known.items() if needs is Owner.DONE}
        idle |= {
            owner: [key for key in keys[owner] if not is_input(key)] for owner, needs in known.items() if needs is Owner.KEPT
        }
        idle |= {owner: keys[owner] for owner, since in self._unknown.items() if now - since > UNKNOWN_SECONDS}
        for owner, left in idle.items():
            if left:
                self._attempt(self._delete, owner, left)

    def _delete(self, owner: str, keys: list[str]) -> None:
        self.scratch.delete(keys)
        log.warning("scratch_swept", job=owner, objects=len(keys))

    def _every(self, seconds: float, errand: Callable[[], None]) -> None:
        now = self.clock()
        if now >= self._due.get(errand.__name__, 0.0):
            self._due[errand.__name__] = now + seconds
            self._attempt(errand)

    def _attempt(self, errand: Callable[..., None], *values: Any) -> bool:
        """Runs the errand and returns whether it succeeded. An errand that fails does not stop the others."""
        name = errand.__name__
        try:
            errand(*values)
        except PartError as error:
            # A part that is away fails every errand of every tick, so it is logged when that begins, without a traceback.
            if name not in self._interrupted:
                log.warning("errand_interrupted", errand=name, reason=" ".join(str(error).split())[:LONGEST_REASON])
            self._interrupted.add(name)
            return False
        except Exception:
            log.exception("errand_failed", errand=name)
            return False
        if name in self._interrupted:
            self._interrupted.remove(name)
            log.info("errand_works_again", errand=name)
        return True
