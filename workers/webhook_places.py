"""Shares the threads that deliver webhooks, so that receivers that never answer delay only their own account's webhooks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from pipeline.shares import SharedPlaces

BUSY_SECONDS = 1.0  #: until a delivery that found no place is tried again
MOST_BUSY_SECONDS = 4.0  #: the same for an account whose receivers take long


class WebhookPlaces:
    """Places for webhook calls. Thread-safe.

    Accounts share the places by the rule of pipeline/shares.py, so an account that is alone gets half of all places. The webhooks of an
    account that holds none wait only if many accounts hold all. Of its places, an account may use `of_host` for one receiver, so that
    its other receivers are not delayed either. `clock`: returns seconds that never decrease.
    """

    def __init__(self, places: int, *, of_host: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._places = SharedPlaces(places)
        self._of_host = of_host
        self._to: Counter[tuple[str, str]] = Counter()  # by account and receiver
        # For each account that holds places: the seconds of its last call, and when it ended.
        self._last: dict[str, tuple[float, float]] = {}

    def take(self, account: str) -> bool:
        """Takes a place for the account. Returns whether there was one."""
        with self._lock:
            if not self._places.take(account):
                return False
            self._last.setdefault(account, (0.0, self._clock()))
            return True

    def take_host(self, account: str, host: str) -> bool:
        """Takes one of the account's places for this receiver. Returns whether there was one."""
        with self._lock:
            if self._to[account, host] >= self._of_host:
                return False
            self._to[account, host] += 1
            return True

    def give_back(self, account: str) -> None:
        with self._lock:
            self._places.give_back(account)
            if not self._places.holds(account):
                self._last.pop(account, None)

    def give_back_host(self, account: str, host: str, *, seconds: float) -> None:
        """`seconds`: how long the call took."""
        with self._lock:
            self._last[account] = (seconds, self._clock())
            self._to[account, host] -= 1
            if not self._to[account, host]:
                del self._to[account, host]

    def wait(self, account: str) -> float:
        """Seconds until a delivery that found no place should be tried again: about as long as a call of the account takes now.

        Otherwise the deliveries that wait for silent receivers would be claimed and handed back each second.
        """
        with self._lock:
            now = self._clock()
            took, ended = self._last.get(account, (0.0, now))
            return min(max(BUSY_SECONDS, took, now - ended), MOST_BUSY_SECONDS)
