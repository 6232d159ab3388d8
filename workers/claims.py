"""Claims of many threads in one transaction: a job's messages come together, and one by one their claims hold up its steps.

Measured on SQLite: 64 threads took turns to claim for half of the first second of a job of 3000 images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

from storage.steps import Lease

Claim = Callable[[list[int]], list[Lease]]


class _Lead:
    """What is put to the first of those who wait: claim for all of them."""


@dataclass(frozen=True, slots=True)
class _Asked:
    step: int
    told: SimpleQueue[Lease | BaseException | _Lead | None] = field(default_factory=SimpleQueue)


class Claims:
    """Thread-safe. A process has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[_Asked] = []
        self._under_way = False

    def __call__(self, step: int, claim: Claim) -> Lease | None:
        """The step's lease, or None if it is not due. Raises what `claim` raised.

        `claim` takes those of several steps that are due, in one transaction. While one caller's does, the others wait, and then
        one of them claims for all.
        """
        mine = _Asked(step)
        with self._lock:
            self._asked.append(mine)
            leads, self._under_way = not self._under_way, True
        if leads:
            self._claim_for_all(claim)
        told = mine.told.get()
        if isinstance(told, _Lead):
            self._claim_for_all(claim)
            told = mine.told.get()
        if isinstance(told, BaseException):
            raise told
        assert not isinstance(told, _Lead)
        return told

    def _claim_for_all(self, claim: Claim) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        answers: dict[int, Lease] = {}
        error: BaseException | None = None
        try:
            answers = {lease.step: lease for lease in claim([each.step for each in asked])}
        except BaseException as raised:  # noqa: BLE001 - each of them gets it
            error = raised
        with self._lock:
            if self._asked:
                self._asked[0].told.put(_Lead())
            else:
                self._under_way = False
        for each in asked:
            each.told.put(error or answers.pop(each.step, None))  # of two who ask for the same step, one
