"""What a process does that a hostile picture took over: it runs Python code that the picture brings."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import threading

_LIBC = ctypes.CDLL(None, use_errno=True)


def run(code: str) -> str:
    """ "done", or the name of the error that the code raised."""
    names = {
        "errno": errno,
        "fcntl": fcntl,
        "os": os,
        "resource": resource,
        "signal": signal,
        "socket": socket,
        "sqlite3": sqlite3,
    }
    try:
        exec(code, names | {"subprocess": subprocess, "threading": threading, "syscall": _syscall})
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def _syscall(number: int, *arguments: int) -> int:
    result = int(_LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "a system call")
    return result
