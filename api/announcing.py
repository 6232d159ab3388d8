"""Announces the first steps of a new job to the workers, that of a small request before the job is committed: see docs/adr/0068."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

from api.putting import Putting
from storage.queue.ringing import Ring
from storage.redis.messages import EARLY_SECONDS
from storage.redis.signals import Signals


class EarlyAccounts:
    """The accounts for which a step is announced early just now. Thread-safe.

    There is one for each account. Jobs that an account sends at the same time are committed one after the other, so those behind the
    first would be announced too early, and their workers would look in vain.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: set[str] = set()

    def take(self, account: str) -> bool:
        """Whether the account had none. It has one then."""
        with self._lock:
            free = account not in self._taken
            self._taken.add(account)
            return free

    def give_back(self, account: str) -> None:
        with self._lock:
            self._taken.discard(account)


class Announcement:
    """The announcement of one job's steps, for a `with` block that makes the job."""

    def __init__(
        self,
        signals: Signals,
        made: Callable[[str], object],
        *,
        account: str,
        early: EarlyAccounts | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`made`: called once, with the id of the job, before any worker hears of it.

        `early`: None if no step is to be announced before its commit. `clock`: seconds that never decrease.
        """
        self._signals = signals
        self._made = made
        self._account = account
        self._early = early
        self._clock = clock
        self._told = False
        self._taken = False
        self._ring: Ring | None = None  # what is announced as soon as the images are in scratch
        #: The step that was, and until when, by the clock, a worker is sure to look for it. The thread that puts writes it.
        self._sent: tuple[int, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ring = None
        if self._early and self._taken:
            self._early.give_back(self._account)

    def when_put(self, job: str, rings: Sequence[Ring], putting: Putting) -> None:
        """Announces a step as soon as its images are in scratch, if a worker can stage them while the job is written.

        The worker claims the step only when it is committed. If it never is, the worker has staged in vain. The thread that puts the images
        sends the message, so that no transaction waits for Redis.
        """
        if self._early is None or self._taken or len(rings) != 1 or rings[0].input is None:
            return
        self._taken = self._early.take(self._account)
        if self._taken:
            self._tell(job)
            self._ring = rings[0]
            putting.then(self._ring_early)

    def forget(self) -> None:
        """The step of `when_put` will not be committed, because the job is written anew."""
        self._ring = None

    def after_commit(self, job: str, rings: Sequence[Ring]) -> None:
        """Announces the steps, unless a worker is sure to find them."""
        self._tell(job)
        self._ring = None  # a message that was not sent by now would be the second one
        sent = self._sent
        if sent is None or [ring.step for ring in rings] != [sent[0]]:
            self._signals.ring(rings)
        elif self._clock() >= sent[1]:
            # The worker that has heard of the step has fetched its images. They are not fetched ahead once more.
            self._signals.ring(replace(ring, input=None) for ring in rings)

    def _tell(self, job: str) -> None:
        if not self._told:
            self._told = True
            self._made(job)

    def _ring_early(self) -> None:
        began, ring = self._clock(), self._ring
        if ring and self._signals.ring_early(ring):
            self._sent = ring.step, began + EARLY_SECONDS
