"""Makes system calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int) -> int:
    """The result of the system call. Raises OSError if it fails."""
    result = int(_LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call_prctl(*arguments: int) -> int:
    """As `call`, for prctl, whose number differs between machines."""
    result = int(_LIBC.prctl(*map(ctypes.c_long, (*arguments, 0, 0, 0, 0)[:5])))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
