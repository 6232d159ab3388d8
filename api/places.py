"""Places that are limited, and that one account can't take all of."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.shares import may_take

MOST_TIMES_FREE = 3  #: an account may have up to this many times the places that it leaves free


class Places:
    """A number of places, of which each account may have a share.

    An account that has none may take a free one. An account that has some may take more while it then has at most three times the
    places that are still free. So one account alone gets three quarters of the places. A second account gets three quarters of the
    rest, and so on. Thread-safe.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    def take(self, account: str, count: int = 1, *, seconds: float = 0.0) -> bool:
        """Takes `count` places for the account. Waits for them up to `seconds`. Returns whether it got them."""
        until = time.monotonic() + seconds
        with self._changed:
            if not self._changed.wait_for(lambda: self._may_take(account, count), max(until - time.monotonic(), 0)):
                return False
            self._free -= count
            self._taken[account] += count
            return True

    def give_back(self, account: str, count: int = 1) -> None:
        """Frees places that the account has taken."""
        with self._changed:
            self._free += count
            self._taken[account] -= count
            if self._taken[account] <= 0:
                del self._taken[account]
            self._changed.notify_all()

    @contextmanager
    def held(self, account: str, count: int = 1) -> Iterator[None]:
        """Takes places that must be free, for the time of the block."""
        assert self.take(account, count)
        try:
            yield
        finally:
            self.give_back(account, count)

    @property
    def free(self) -> int:
        """How many places nobody has."""
        return self._free

    def _may_take(self, account: str, count: int) -> bool:
        return may_take(held=self._taken.get(account, 0), free=self._free, count=count, times=MOST_TIMES_FREE)
