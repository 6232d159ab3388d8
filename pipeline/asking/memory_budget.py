"""Limits the memory that a process uses for the pictures of model calls. Pure.

During a call its pictures take 4 to 5 times their size, because they are also held as base64 and as the request's text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.ports import Cause, ModelUnavailable

PATIENCE_SECONDS = 2.0  #: the longest wait for memory; then the step is handed back, to free its thread
AGAIN_SECONDS = 2.0  #: until a step that found no memory is tried again


class MemoryBudget:
    """At most `size` bytes are held at once. A single call that is larger waits until it is the only one. Thread-safe."""

    def __init__(self, size: int, *, patience: float = PATIENCE_SECONDS) -> None:
        self._size = size
        self._patience = patience
        self._taken = 0
        self._wanting = 0
        self._changed = threading.Condition()

    def is_wanted(self) -> bool:
        """Whether a call waits for memory."""
        return self._wanting > 0

    @contextmanager
    def __call__(self, size: int) -> Iterator[None]:
        """Holds `size` bytes. Raises ModelUnavailable if the memory is not free within the patience."""
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
