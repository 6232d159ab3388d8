"""A process that others of its user cannot look into. A decoder that a hostile picture took over is such another."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def make_private() -> None:
    """Hides what this process was started with (keys), its memory and what it has open from all but root. It leaves no core dump.

    Its forks are private too, what it starts is not. Nothing where the kernel is no Linux.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
