"""Runs cleanup steps of small jobs in groups, because many small jobs' objects go in one request to S3.

The thread that ends a job has claimed its cleanup step, and gives the lease to the process's one cleaning thread. What that thread
can't clean in a group is run as any other step. If the process dies, the leases run out, as those of all steps do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pipeline.errors import Transient
from pipeline.metrics import STEPS
from pipeline.ports import Scratch
from storage.database import Database
from storage.job import cleaning
from storage.queue import ringing
from storage.queue.steps import Lease
from storage.redis.signals import Signals
from workers.step_spans import record_step

log = structlog.get_logger(__name__)

GROUP_SECONDS = 0.25  #: a group is cleaned so long after its first step came; leased steps take places of their account's window
MOST = 50  #: steps in a group
MOST_WAITING = 200  #: steps; further ones are run by the threads that bring them, so that S3 slows down who fills it
MOST_OBJECTS = 8  #: of a job that is cleaned in a group; a larger job's thread cleans it
END_SECONDS = 5.0  #: for the last group when the process ends


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    lease: Lease
    run: Callable[[], object]  #: runs the step as any other
    interrupted: Callable[[Transient], None]  #: hands it back, because a part is away


class Cleaning:
    """The cleanup steps of this process that wait for their group. Thread-safe. Its thread starts with the first of them."""

    def __init__(self, database: Database, scratch: Scratch, signals: Signals, *, group_seconds: float = GROUP_SECONDS) -> None:
        self._database = database
        self._scratch = scratch
        self._signals = signals
        self._group_seconds = group_seconds
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._since = 0.0  # by time.monotonic: when the first of the waiting steps came
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease, run: Callable[[], object], interrupted: Callable[[Transient], None]) -> None:
        """Takes a leased cleanup step. `run`: runs it as any other step. `interrupted`: hands it back, because a part is away."""
        with self._changed:
            full = self._closed or len(self._waiting) >= MOST_WAITING
            if not full:
                if not self._waiting:
                    self._since = time.monotonic()
                self._waiting.append(_Waiting(lease=lease, run=run, interrupted=interrupted))
                self._changed.notify()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="cleaning", daemon=True)
                    self._thread.start()
        if full:
            run()

    def close(self) -> None:
        """Cleans what waits, and takes no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def _work(self) -> None:
        while group := self._next_group():
            try:
                rest = self._clean(group)
            except Transient as error:
                # Each of them alone would meet the same outage, one after the other, until their leases run out.
                for one in group:
                    one.interrupted(error)
                continue
            except Exception:  # a fault of one step must not stop the others
                log.exception("group_not_cleaned", steps=len(group))
                rest = group
            for one in rest:
                one.run()

    def _next_group(self) -> list[_Waiting]:
        """The next steps, when their time has come. Empty: there are none, and the process ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            while not self._closed and len(self._waiting) < MOST:
                left = self._since + self._group_seconds - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            self._since = time.monotonic()
            return group

    def _clean(self, group: list[_Waiting]) -> list[_Waiting]:
        """Cleans the jobs whose objects are known. Returns the other steps. Raises Transient and Permanent."""
        began = time.time_ns()
        with self._database.read() as connection:
            known = cleaning.known_objects(connection, [one.lease for one in group])
        small = [one for one in group if len(known.get(one.lease.job, ())) <= MOST_OBJECTS and one.lease.job in known]
        keys = [key for one in small for key in known[one.lease.job]]
        if keys:
            self._scratch.delete(keys)
        if small:
            accounts = {one.lease.account: one.lease.job for one in small}
            with self._database.write() as connection:
                cleaning.finish_all(connection, [one.lease for one in small])
                rings = [ring for _, job in sorted(accounts.items()) for ring in ringing.to_ring(connection, beside=job)]
            STEPS.add(len(small), kind="cleanup", outcome="done")
            for one in small:
                record_step(one.lease, began)
            self._signals.ring(rings)
            log.info("jobs_cleaned", jobs=len(small), objects=len(keys))
        cleaned = {id(one) for one in small}
        return [one for one in group if id(one) not in cleaned]
