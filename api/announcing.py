"""Announces the first steps of a new job to the workers, that of a small request before the job is committed: see docs/adr/0068."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from api.wiring import WebParts
from storage.queue.ringing import Ring
from storage.redis.messages import EARLY_SECONDS


class Announcement:
    """The announcement of one job's steps."""

    def __init__(self, parts: WebParts, made: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        """`made`: called once, with the id of the job, before any worker hears of it. `clock`: seconds that never decrease."""
        self._parts = parts
        self._made = made
        self._clock = clock
        self._told = False
        self._early_until = 0.0  # by the clock: a worker looks for the step at least until then

    def before_commit(self, job: str, rings: Sequence[Ring]) -> None:
        """Announces a step whose images a worker can stage while the job is written. The images are in scratch.

        The worker claims the step only when it is committed. If it never is, the worker has staged in vain.
        """
        if len(rings) != 1 or rings[0].input is None or not self._parts.database.many_writers:
            return
        self._tell(job)
        now = self._clock()
        if self._parts.signals.ring_early(rings[0]):
            self._early_until = now + EARLY_SECONDS

    def after_commit(self, job: str, rings: Sequence[Ring]) -> None:
        """Announces the steps, unless a worker is sure to find them."""
        self._tell(job)
        if self._clock() >= self._early_until:
            self._parts.signals.ring(rings)

    def _tell(self, job: str) -> None:
        if not self._told:
            self._told = True
            self._made(job)
