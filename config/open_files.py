"""The number of files that a process may have open."""

from __future__ import annotations

import resource
from contextlib import suppress


def raise_open_files(wanted: int) -> int:
    """Raises the process's limit of open files to `wanted`, as far as it may. Returns the limit, which may be resource.RLIM_INFINITY."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
