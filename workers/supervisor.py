"""The supervisor recovers steps and jobs from lost messages and dead processes, each second. Running two is safe.

A sweep of a slow S3 takes minutes, and a job that is to be ended may be locked by a process that was cut off. Steps of dead workers
must not wait for that. So one thread reclaims and announces steps, and another one runs all other errands.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from pipeline.errors import PartError
from pipeline.metrics import BOOKS_WRONG, JOBS_OVERDUE, LEASES_EXPIRED
from pipeline.ports import Scratch
from pipeline.scratch_key import is_input, owner_of
from pipeline.tracing import spans
from pipeline.tracing.spans import NOTHING, OpenSpan
from storage.account import answers
from storage.books import credits  # noqa: A004 - the field's word
from storage.books.snapshot import snapshot
from storage.database import Database
from storage.job import closing, inputs, totals, upkeep
from storage.job.traces import traceparent_of
from storage.job.upkeep import Owner
from storage.queue import ringing, steps
from storage.queue.steps import JobGone
from storage.redis.signals import Signals

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
IDLE_SECONDS = 5.0  #: between two looks for jobs to end or to go on with, while there is no step to work on
STOP_SECONDS = 5.0  #: for an errand to end when the supervisor stops; a later start does what is left
EXPIRE_SECONDS = 10.0
PURGE_SECONDS = 60.0
PURGED_AT_ONCE = 50  #: jobs; with one such transaction each minute, two million jobs a month would be the most
SWEEP_SECONDS = 300.0
CHECK_SECONDS = 300.0
CREDITS_SECONDS = 3600.0  #: between two checks of the credits, because they read the whole ledger
OWNERS_AT_ONCE = 500  #: databases take about 30,000 values in one query
LONGEST_REASON = 300  #: characters of a part's own words in the log
#: A request that is being accepted has objects but no job yet. So objects of no job stay until nothing was added to them for
#: this long. The longest wait between two objects is one upload to a slow S3.
UNKNOWN_SECONDS = 1800.0
UNKNOWN_FULL_SECONDS = 600.0  #: the same while storage is full, because then these objects may keep everybody from working
SWEEP_FULL_SECONDS = 60.0
#: A sweep of a large and slow S3 takes minutes. An errand that lasts longer than this hangs, and only a new process goes on.
HUNG_SECONDS = 1800.0
UPLOAD_SECONDS = 86_400.0  #: an upload in parts that began so long ago was cut off


@dataclass(kw_only=True)
class Supervisor:
    """Notifies workers of due steps, reclaims expired leases, ends overdue jobs, purges results, sweeps scratch."""

    database: Database
    scratch: Scratch
    signals: Signals
    #: Called each second if steps were reclaimed and announced, and if the last errands for jobs neither failed nor hang.
    show_alive: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic  #: seconds; tells when errands are due and how long scratch has been unknown
    _due: dict[str, float] = field(default_factory=dict)  # errand → when it is due, by the process's clock
    _interrupted: set[str] = field(default_factory=set)  # errands that failed last because a part is away
    #: Scratch owner without a job → how many objects it had, and when it was first seen with so many.
    _unknown: dict[str, tuple[int, float]] = field(default_factory=dict)
    _any_open: bool = True  # whether there was any step to work on, now or later, when it was last looked for
    _idle_until: float = 0.0  # until when jobs are not looked at while there is no step to work on
    _jobs_went_well: bool = True  # whether the last errands for jobs did not fail
    _errand_since: float | None = None  # since when an errand of `look_after_jobs` runs; None: none runs

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set. An errand that fails is retried when it is next due."""

        def look_after_jobs() -> None:
            while not stop.wait(TICK_SECONDS):
                self.look_after_jobs()

        thread = threading.Thread(target=look_after_jobs, name="jobs", daemon=True)
        thread.start()
        while not stop.wait(TICK_SECONDS):
            self.free_steps()
        thread.join(STOP_SECONDS)

    def tick(self) -> None:
        """Runs all errands once, in this thread."""
        self._any_open = True
        self.look_after_jobs()
        self.free_steps()

    def free_steps(self) -> None:
        """Reclaims the steps of dead workers and announces due steps."""
        went_well = [self._attempt(self.look_for_open_steps)]
        if self._any_open:
            went_well += [self._attempt(errand) for errand in (self.reclaim, self.ring)]
        if all(went_well) and self._jobs_went_well and not self._hangs():
            self.show_alive()

    def look_after_jobs(self) -> None:
        """Ends or continues jobs, and deletes what is not needed. This may take minutes."""
        if self._any_open or self.clock() >= self._idle_until:
            self._idle_until = self.clock() + IDLE_SECONDS
            went_well = [self._timed(errand) for errand in (self.end_overdue, self.finalize_stranded)]
            self._jobs_went_well = all(went_well)
        self._every(EXPIRE_SECONDS, self.expire_inputs)
        self._every(PURGE_SECONDS, self.purge)
        self._every(SWEEP_SECONDS, self.sweep)
        self._every(SWEEP_FULL_SECONDS, self.sweep_if_full)
        self._every(SWEEP_SECONDS, self.abort_uploads)
        self._every(CHECK_SECONDS, self.check_totals)
        self._every(CREDITS_SECONDS, self.check_credits)

    def look_for_open_steps(self) -> None:
        """Finds out whether there is any step to reclaim or announce, because most of the time there is none."""
        with self.database.read() as connection:
            self._any_open = steps.any_open(connection)

    def reclaim(self) -> None:
        began = time.time_ns()
        with self.database.write() as connection:
            expired = steps.reclaim_expired(connection)
        if expired:
            LEASES_EXPIRED.add(expired)
            if spans.active is not None:
                spans.active.record("supervisor.reclaim", began, {"steps": expired}, parent=None)
            log.warning("leases_expired", steps=expired)

    def ring(self) -> None:
        """Notifies workers of all due steps. If a queue is empty, earlier messages may be lost, so all of them are sent again."""
        lost = [slow for slow in (False, True) if self.signals.queue_is_empty(slow=slow)]
        with self.database.write() as connection:
            for slow in lost:
                ringing.forget_rings(connection, slow=slow)
            rings = ringing.to_ring(connection)
        self.signals.ring(rings)

    def end_overdue(self) -> None:
        with self.database.read() as connection:
            late = upkeep.overdue(connection)
        for job in late:
            self._attempt(self._end, job)

    def _end(self, job: str) -> None:
        try:
            with self._span_of(job), self.database.write() as connection:
                ended = closing.close_overdue(connection, job)
        except JobGone:
            ended = None
        if ended is None:  # another process ended or deleted the job after it was found late
            return
        JOBS_OVERDUE.add()
        log.info("job_overdue", job=job)
        self.signals.tell(job)

    def _span_of(self, job: str) -> OpenSpan:
        """The span of what the supervisor does to a job, in the trace of its request."""
        if spans.active is None:
            return NOTHING
        with self.database.read() as connection:
            parent = traceparent_of(connection, job)
        return spans.active.span("supervisor.end_overdue", "internal", {"job": job}, parent=parent)

    def finalize_stranded(self) -> None:
        with self.database.read() as connection:
            if not upkeep.any_stranded(connection):
                return
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
        """Deletes expired results, some jobs in each transaction, so that no lock is held for long."""
        ends, purged, more = self.clock() + PURGE_SECONDS, 0, True
        while more and self.clock() < ends:
            with self.database.write() as connection:
                found = len(upkeep.purge_expired(connection, PURGED_AT_ONCE))
                answers.forget_expired(connection)
            purged, more = purged + found, found == PURGED_AT_ONCE
        if purged:
            log.info("results_expired", jobs=purged)

    def check_totals(self) -> None:
        """Counts the totals again that differ from the rows, as they do after a process of an older version has changed jobs."""
        with self.database.read() as connection:
            wrong = totals.check(connection)
        if not (wrong.accounts or wrong.scratch):
            return
        log.warning("totals_were_wrong", accounts=len(wrong.accounts), scratch_bytes=wrong.scratch)
        with self.database.write() as connection:
            totals.mend(connection, wrong)

    def check_credits(self) -> None:
        """Counts and logs where the credits differ from the ledger. Only a person can say which of them is right."""
        with snapshot(self.database) as connection:
            checked = [credits.ledger(connection), *credits.rounds(connection)]
        for one in checked:
            BOOKS_WRONG.set(one.found, check=one.check)
            if one.found:
                log.error("books_are_wrong", check=one.check, findings=one.found, examples=list(one.examples))

    def sweep_if_full(self) -> None:
        """While storage is full, sweeps more often, and what belongs to no job goes sooner."""
        if self.signals.storage_is_full():
            self.sweep(full=True)

    def abort_uploads(self) -> None:
        """Ends what cut-off uploads have left in S3. It is no object, so `sweep` does not see it."""
        if aborted := self.scratch.abort_uploads(UPLOAD_SECONDS):
            log.warning("uploads_aborted", uploads=aborted)

    def sweep(self, *, full: bool = False) -> None:
        """Deletes the scratch of jobs that have ended, and of no job to which nothing was added for a while.

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
        now, patience = self.clock(), UNKNOWN_FULL_SECONDS if full else UNKNOWN_SECONDS
        self._unknown = {owner: self._since(owner, len(left), now) for owner, left in keys.items() if owner not in known}
        idle = {owner: keys[owner] for owner, needs in known.items() if needs is Owner.DONE}
        idle |= {
            owner: [key for key in keys[owner] if not is_input(key)] for owner, needs in known.items() if needs is Owner.KEPT
        }
        idle |= {owner: keys[owner] for owner, (_, since) in self._unknown.items() if now - since > patience}
        for owner, left in idle.items():
            if left:
                self._attempt(self._delete, owner, left)

    def _since(self, owner: str, objects: int, now: float) -> tuple[int, float]:
        before = self._unknown.get(owner)
        return before if before and before[0] == objects else (objects, now)

    def _delete(self, owner: str, keys: list[str]) -> None:
        self.scratch.delete(keys)
        log.warning("scratch_swept", job=owner, objects=len(keys))

    def _every(self, seconds: float, errand: Callable[[], None]) -> None:
        now = self.clock()
        if now >= self._due.get(errand.__name__, 0.0):
            self._due[errand.__name__] = now + seconds
            with spans.span(f"supervisor.{errand.__name__}"):
                self._timed(errand)

    def _timed(self, errand: Callable[[], None]) -> bool:
        """Runs the errand as `_attempt` does, and notes meanwhile since when it runs."""
        self._errand_since = self.clock()
        went_well = self._attempt(errand)
        self._errand_since = None
        return went_well

    def _hangs(self) -> bool:
        since = self._errand_since  # another thread sets it
        return since is not None and self.clock() - since > HUNG_SECONDS

    def _attempt(self, errand: Callable[..., None], *values: Any) -> bool:
        """Runs the errand and returns whether it succeeded. An errand that fails does not stop the others."""
        name = errand.__name__
        try:
            errand(*values)
        except PartError as error:
            spans.current().fail(spans.code_of(error))
            # A part that is away fails every errand of every tick, so it is logged when that begins, without a traceback.
            if name not in self._interrupted:
                log.warning("errand_interrupted", errand=name, reason=" ".join(str(error).split())[:LONGEST_REASON])
            self._interrupted.add(name)
            return False
        except Exception as error:
            spans.current().fail(spans.code_of(error))
            log.exception("errand_failed", errand=name)
            return False
        if name in self._interrupted:
            self._interrupted.remove(name)
            log.info("errand_works_again", errand=name)
        return True
