"""Shares the threads that wait for the OCR, so that jobs with evidence leave threads for model calls and for other accounts."""

from __future__ import annotations

import threading
from collections import Counter

from pipeline.shares import may_take

BUSY_SECONDS = (1.0, 4.0)  #: range of the random delay until a step that found no place is tried again


class OcrPlaces:
    """Places of threads that wait for the OCR. Thread-safe. Accounts share them by the rule of pipeline/shares.py.

    The OCR reads one picture at a time on a machine, so more threads would not make it faster.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._held: Counter[str] = Counter()

    def take(self, account: str) -> bool:
        """Takes a place for the account. Returns whether there was one."""
        with self._lock:
            if not may_take(held=self._held[account], free=self._free):
                return False
            self._free -= 1
            self._held[account] += 1
            return True

    def give_back(self, account: str) -> None:
        with self._lock:
            self._free += 1
            self._held[account] -= 1
            if not self._held[account]:
                del self._held[account]
