"""Hides a process from other processes of the same user, such as a decoder that a hostile picture took over."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def make_private() -> None:
    """Lets only root read this process's environment (with keys), memory and open files. It also turns off core dumps.

    Forked children are private too, but programs that they or this process execute are not. On other systems than Linux it does
    nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
