"""Keeps processes of the same user apart, because a hostile picture may take one of them over."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_MORE_TASKS = 4096


def make_private() -> None:
    """Lets only root read this process's environment (with keys), memory and open files. It also turns off core dumps.

    Forked children are private too, but programs that they or this process execute are not. On other systems than Linux it does
    nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_tasks() -> None:
    """Lets this process start no thread once its user has _MORE_TASKS more tasks than the whole machine has now.

    So a process that was taken over cannot use up the machine's process numbers. The kernel counts all tasks of the user together,
    which is why the limit is far above what any of our processes needs. It does not hold for root. On other systems than Linux this
    does nothing.
    """
    with suppress(OSError):
        _, machine = Path("/proc/loadavg").read_text("ascii").split()[3].split("/")
        limit(resource.RLIMIT_NPROC, int(machine) + _MORE_TASKS)


def limit(what: int, most: int) -> None:
    """Sets the soft and the hard limit `what`, one of `resource.RLIMIT_…`, unless the hard limit is lower: it can't be raised."""
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))
