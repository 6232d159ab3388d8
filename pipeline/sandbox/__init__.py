"""Takes from a process everything that it does not need, so that whoever takes over a decoder holds nothing.

A sandboxed process can compute, start threads, read the libraries of this installation, and use the files and sockets that it has
open already. It cannot open other files, write or delete any, open sockets, start processes, send signals to others, or look into
them. It can still ask for the name, size and time of a file whose path it knows.

Two parts of Linux do this. Landlock (pipeline.sandbox.landlock) restricts which files may be opened, and seccomp
(pipeline.sandbox.seccomp) which system calls may be made. Neither can be undone, and both pass on to threads that the process starts
later. Where the system lacks a part, the process works without it, and `missing` names it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from pipeline.sandbox import landlock, seccomp
from pipeline.sandbox.system import call_prctl

_PR_SET_NO_NEW_PRIVS = (
    38  # linux/prctl.h: programs that the process executes cannot gain rights, as seccomp demands of all but root
)


def missing() -> str:
    """Names what this system lacks for a complete sandbox. Empty if nothing is missing.

    Any version of Landlock completes a seccomp filter, because what newer versions refuse, the filter refuses too.
    """
    if not sys.platform.startswith("linux"):
        return "Landlock and seccomp, which only Linux has"
    lacks = []
    if not landlock.version():
        lacks.append("Landlock, which Linux has from 5.13 on if it is turned on")
    if not seccomp.is_available():
        lacks.append("seccomp filters on x86_64 or aarch64")
    return " and ".join(lacks)


def prepare(readable: Iterable[str]) -> Callable[[], None]:
    """Makes a function that sandboxes the calling thread and what it starts later. Call the function while there is one thread.

    `readable`: files, and folders with all that lies in them, that may be opened for reading. Paths that do not exist are left out.
    The preparation takes longer than the function (about a third of a millisecond), so a process that forks prepares once.

    Both raise OSError if the system has a part and refuses to use it.
    """
    rules = landlock.ruleset(readable) if landlock.version() else None
    program = seccomp.program() if seccomp.is_available() else None

    def enter() -> None:
        if rules is None and program is None:
            return
        call_prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if rules is not None:
            landlock.restrict(rules)
        if program is not None:
            seccomp.restrict(program)

    return enter
