"""Gives memory that the process no longer needs back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Returns free memory of the C library's heaps to the system.

    glibc keeps what was freed for later, in a heap for every few threads. After a large job this was more than half of a worker's
    memory. Other C libraries return it by themselves, and have no such function.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
