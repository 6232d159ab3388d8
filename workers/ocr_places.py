"""Shares the threads that wait for the OCR, so that jobs with evidence leave threads for model calls and for other accounts."""

from __future__ import annotations

import threading
from collections import Counter

from pipeline.shares import SharedPlaces

BUSY_SECONDS = 2.5  #: mean delay until a step that found no place is tried again, if few others wait
MOST_BUSY_SECONDS = 20.0  #: the same if many wait; a turn at the OCR takes about as long
#: The delay grows by BUSY_SECONDS for so many steps that found no place. Otherwise the steps of a large job would ask 30 times a second.
_A_DELAY = 4


class OcrPlaces:
    """Places of threads that wait for the OCR. Thread-safe. Accounts share them by the rule of pipeline/shares.py.

    The OCR reads one picture at a time on a machine, so more threads would not make it faster.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._places = SharedPlaces(places)
        self._refused: Counter[str] = Counter()  # how often each account has found no place since it took one

    def take(self, account: str) -> bool:
        """Takes a place for the account. Returns whether there was one."""
        with self._lock:
            if not self._places.take(account):
                self._refused[account] += 1
                return False
            self._refused.pop(account, None)
            return True

    def give_back(self, account: str) -> None:
        with self._lock:
            self._places.give_back(account)

    def wait(self, account: str) -> float:
        """Mean seconds until a step of the account that found no place should be tried again."""
        with self._lock:
            return min(BUSY_SECONDS * (1 + self._refused[account] // _A_DELAY), MOST_BUSY_SECONDS)
