"""A bound for the bytes of pictures that a process has in hand for model calls. Pure.

A call weighs 4 to 5 times its pictures while it is on its way: encoded, and as the text of a request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.ports import Cause, ModelUnavailable

PATIENCE_SECONDS = 2.0  #: whoever would wait longer frees its thread instead
AGAIN_SECONDS = 2.0


class MemoryBudget:
    """So many bytes at once. A single call that is larger has the budget to itself. Thread-safe."""

    def __init__(self, size: int, *, patience: float = PATIENCE_SECONDS) -> None:
        self._size = size
        self._patience = patience
        self._taken = 0
        self._wanting = 0
        self._changed = threading.Condition()

    def is_wanted(self) -> bool:
        """Whether somebody waits for memory."""
        return self._wanting > 0

    @contextmanager
    def __call__(self, size: int) -> Iterator[None]:
        """Holds `size` bytes. Raises ModelUnavailable where the memory is not free in time."""
        with self._changed:
            self._wanting += 1
            try:
                found = self._changed.wait_for(lambda: self._taken == 0 or self._taken + size <= self._size, self._patience)
            finally:
                self._wanting -= 1
            if not found:
                raise ModelUnavailable("the pictures of other calls fill the memory", retry_after=AGAIN_SECONDS, cause=Cause.BUSY)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()
