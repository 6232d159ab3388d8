"""Notifications in memory. It does the same as `storage.redis.signals.Signals`, without Redis."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from contextlib import AbstractContextManager

from pipeline.ports import Cause
from storage.queue.ringing import Ring
from storage.redis.answers import AnswerTo, answer_message, read_answer
from storage.redis.signals import JobTrouble
from storage.redis.watching import Watch, Watches


class MemorySignals:
    """Announced steps go to the queue `rung`. Notified waiters wake. `lose_rings` drops messages, as Redis may."""

    def __init__(self) -> None:
        # This is no SimpleQueue, because on CPython 3.11 its get(timeout=...) can block for ever: it does so if another getter
        # takes the item close to the timeout.
        self.rung: queue.Queue[int] = queue.Queue()
        self.lose_rings = False
        self._full = False
        self._watches = Watches()
        self._published: dict[str, str] = {}
        self._troubles: dict[str, JobTrouble] = {}

    def ring(self, rings: Iterable[Ring]) -> None:
        for ring in rings:
            if not self.lose_rings:
                self.rung.put(ring.step)

    def ring_early(self, ring: Ring) -> bool:
        """False, as when Redis is slow: the step is announced after its commit."""
        return False

    def check(self) -> None:
        """Does nothing, because the fake is always available."""

    def note_full_storage(self) -> None:
        self._full = True

    def storage_is_full(self) -> bool:
        return self._full

    def queue_is_empty(self, *, slow: bool = False) -> bool:
        return self.rung.empty()

    def tell(self, job: str, *, ended: bool = True, answered: bool = False, answer: AnswerTo | None = None) -> None:
        if answered:
            self._troubles.pop(job, None)
        if answer and (sent := answer_message(job, answer.success)):
            self._watches.answer(*read_answer(sent))
        self._watches.tell(job, ended=ended)

    def note_trouble(self, job: str, cause: Cause, notice: str) -> None:
        before = self._troubles.get(job)
        self._troubles[job] = JobTrouble(cause=cause, notice=notice, times=before.times + 1 if before else 1)
        self._watches.tell(job, ended=True)

    def trouble_of(self, job: str) -> JobTrouble | None:
        return self._troubles.get(job)

    def watch(self, job: str, *, end_only: bool = False) -> AbstractContextManager[Watch]:
        return self._watches.watch(job, end_only=end_only)

    def publish(self, process: str, text: str) -> None:
        self._published[process] = text

    def published(self) -> dict[str, str]:
        return dict(self._published)

    def close(self) -> None:
        """Does nothing, because the fake holds no resources."""
