"""Shares places among accounts, so that no account can keep another one waiting.

The account is the one whose step the thread works on. It is a context variable, because the stages between a step and a place
have no other use for it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WORKING_FOR: ContextVar[tuple[str, str]] = ContextVar("working_for", default=("", ""))


@contextmanager
def working_for(account: str, job: str = "") -> Iterator[None]:
    """Names the account and the job that the thread works for while the block runs."""
    token = _WORKING_FOR.set((account, job))
    try:
        yield
    finally:
        _WORKING_FOR.reset(token)


def current_account() -> str:
    """The account that the thread works for. Empty if it works for none."""
    return _WORKING_FOR.get()[0]


def current_job() -> str:
    """The job that the thread works for. Empty if it works for none."""
    return _WORKING_FOR.get()[1]


class Turns:
    """A number of places for which accounts wait in turns. Thread-safe.

    A free place goes to the waiting account that holds the fewest places. Of several such accounts, it goes to the one whose last
    place is the longest ago. An account that is alone may hold all places.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[threading.Event]] = {}  # in the order of the accounts' turns

    @contextmanager
    def place(self, account: str) -> Iterator[None]:
        """Waits until it is the account's turn, and holds a place while the block runs."""
        turn = threading.Event()
        with self._lock:
            self._waiting.setdefault(account, deque()).append(turn)
            self._give()
        turn.wait()
        try:
            yield
        finally:
            with self._lock:
                self._free += 1
                self._held[account] -= 1
                if not self._held[account]:
                    del self._held[account]
                self._give()

    def waiting(self) -> int:
        """How many threads wait for a place."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def _give(self) -> None:
        while self._free and self._waiting:
            account = min(self._waiting, key=lambda name: self._held[name])  # the first of several in the order of turns
            turns = self._waiting.pop(account)
            turns.popleft().set()
            if turns:
                self._waiting[account] = turns  # it goes behind the others
            self._free -= 1
            self._held[account] += 1
