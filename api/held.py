"""Ends a job that somebody holds a connection open for, if its model can't be asked: see docs/adr/0027.

A job that nobody holds open waits until the model can be asked again, or until its deadline.
"""

from __future__ import annotations

import time

import structlog

from api.wiring import WebParts
from pipeline.errors import PartError
from pipeline.ports import WAITS
from storage.job import closing
from storage.queue import ringing
from storage.queue.steps import JobGone
from storage.redis.signals import JobTrouble

log = structlog.get_logger(__name__)

LEAST_TIMES = 2  #: how many calls of the job must have found the server away


class HeldJob:
    """Watches a job for the request that holds it open. It ends the job when waiting for the model is hopeless."""

    def __init__(self, parts: WebParts, job: str) -> None:
        self._parts = parts
        self._job = job
        self._away_since: float | None = None  # by time.monotonic(): since when each look found the server away

    @property
    def due(self) -> float:
        """When the next look is due, by time.monotonic()."""
        return float("inf") if self._away_since is None else self._away_since + self._parts.held_seconds

    def look(self) -> bool:
        """Ends the job if its model can't be asked. Returns whether it did.

        A cause that needs a person ends it at once, because the worker has confirmed it. A server that is not there ends it only
        after `held_seconds` in which no call of the job was answered, because servers are also started again.
        """
        try:
            trouble = self._parts.signals.trouble_of(self._job)
            if trouble is None or not trouble.cause.ends_held:
                self._away_since = None
                return False
            if not trouble.cause.needs_person and not self._is_away_for_long(trouble):
                return False
            return self._end(trouble)
        except PartError:
            log.warning("held_job_not_looked_at", job=self._job, exc_info=True)
            self._away_since = None
            return False

    def _is_away_for_long(self, trouble: JobTrouble) -> bool:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now < self.due:
            return False
        if trouble.times < LEAST_TIMES:
            self._away_since = now - self._parts.held_seconds + 1.0  # look again in a second
            return False
        return True

    def _end(self, trouble: JobTrouble) -> bool:
        parts = self._parts
        try:
            with parts.database.write() as connection:
                ended = closing.close_unavailable(connection, self._job, trouble.notice.removesuffix(WAITS))
                rings = ringing.to_ring(connection, beside=self._job) if ended else []
        except JobGone:
            return True
        parts.signals.ring(rings)
        if ended:
            parts.signals.tell(self._job)
        return ended
