"""Lets the chunks of an account be staged one after the other, a few at a time, so that the first ones reach the model early.

A large job has more chunks in a process than the model takes calls. Without turns all of them are fetched and decoded at the same time,
and the first call begins late, because the chunks share the processor with those that will wait for the model anyway.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AT_ONCE = 8  #: chunks of an account
NO_LIMIT = 1_000_000


class StagingTurns:
    """`places`: how many chunks of one account are staged at once. Accounts do not wait for each other. Thread-safe."""

    def __init__(self, places: int = NO_LIMIT) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[threading.Event]] = {}

    @contextmanager
    def turn(self, account: str) -> Iterator[Callable[[], None]]:
        """Waits for the account's turn, in the order of the calls.

        Gives a function that passes the turn on before the block ends, for a chunk that waits for slow image servers. It may be called
        several times, by any thread.
        """
        mine = threading.Event()
        with self._lock:
            if self._held.get(account, 0) < self._places:
                self._held[account] = self._held.get(account, 0) + 1
                mine.set()
            else:
                self._waiting.setdefault(account, deque()).append(mine)
        mine.wait()
        passed = False

        def pass_on() -> None:
            nonlocal passed
            with self._lock:
                if not passed:
                    passed = True
                    self._next(account)

        try:
            yield pass_on
        finally:
            pass_on()

    def waiting(self, account: str) -> int:
        """How many chunks of the account wait."""
        with self._lock:
            return len(self._waiting.get(account, ()))

    def _next(self, account: str) -> None:
        """Gives a place that came free to the chunk that has waited for the longest time. The caller holds the lock."""
        waiting = self._waiting.get(account)
        if waiting:
            waiting.popleft().set()
            if not waiting:
                del self._waiting[account]
            return
        self._held[account] -= 1
        if not self._held[account]:
            del self._held[account]
