"""seccomp: which system calls a process may make.

The filter is a program for the kernel's packet filter machine (linux/filter.h, linux/seccomp.h), which runs at each system call. It
takes the calls in the tables below and refuses every other call with EPERM. The tables have all calls that reach nothing but the process
itself and what it has open, so that a new version of a library seldom needs another one. Calls that are newer than the tables get
ENOSYS, as from an older kernel, because libraries then use the older calls. We write the program ourselves because the Python packages
that do it need libseccomp, which wheels do not bring.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable
from functools import lru_cache

from pipeline.sandbox.system import call

#: machine → its number in linux/audit.h, the number of the call `seccomp`, and its column in the tables
_MACHINES = {"x86_64": (0xC000003E, 317, 0), "aarch64": (0xC00000B7, 277, 1)}

#: The calls that are allowed: name, number on x86_64, number on aarch64; "-" if the machine has no such call.
_ALLOWED = """
# memory of its own
mmap 9 222, mprotect 10 226, munmap 11 215, brk 12 214, mremap 25 216, msync 26 227, mincore 27 232, madvise 28 233,
get_mempolicy 239 236, membarrier 324 283
# files, pipes and sockets that are open
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
preadv2 327 286, pwritev2 328 287, lseek 8 62, close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24,
pipe 22 -, pipe2 293 59, eventfd 284 -, eventfd2 290 19, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441,
listen 50 201, accept 43 202, accept4 288 242, recvfrom 45 207, sendto 44 206, shutdown 48 210, getsockname 51 204,
getpeername 52 205, getsockopt 55 209
# what is known about a file, and what a folder holds
stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439,
readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17, statfs 137 43, fstatfs 138 44
# its threads
futex 202 98, futex_waitv 449 449, set_robust_list 273 99, rseq 334 293, set_tid_address 218 96, arch_prctl 158 -,
gettid 186 178, getcpu 309 168, sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121,
sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126, exit 60 93, exit_group 231 94
# signals to itself
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -, alarm 37 -, setitimer 38 103, getitimer 36 102,
restart_syscall 219 128
# the time, random numbers, and what is known about itself and the machine
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -,
times 100 153, getrandom 318 278, getpid 39 172, getppid 110 173, getpgrp 111 -, getuid 102 174, geteuid 107 175,
getgid 104 176, getegid 108 177, getrusage 98 165, getrlimit 97 163, setrlimit 160 164, uname 63 160, sysinfo 99 179
"""
#: Newer calls than this one (set_mempolicy_home_node of Linux 5.17) do not exist for the process, so libraries use older ones.
#: New calls have the same number on all machines.
_NEWEST = 450
#: Calls that do not exist for the process, because their arguments lie in memory, where the filter cannot read them.
_HIDDEN = {"clone3": (435, 435), "openat2": (437, 437)}

#: Calls of which an argument decides: number on x86_64 and aarch64, which argument.
_OPEN, _OPENAT = (2, None, 1), (257, 56, 2)  # the flags
_CLONE = (56, 220, 0)  # the flags
_KILL, _TGKILL, _PRLIMIT = (62, 129, 0), (234, 131, 0), (302, 261, 0)  # the process
_FCNTL, _IOCTL, _PRCTL = (72, 25, 1), (16, 29, 1), (157, 167, 0)  # the command

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_THREAD = 0x00010000  # linux/sched.h: the new task is a thread of the same process
_NAMESPACES = 0x7E020000
#: Descriptors and their flags: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. Other commands lock and
#: lease files, which others wait for, or have the kernel send signals.
_DESCRIPTORS = (0, 1, 2, 3, 4, 1030, 1032)
#: What Python and the C library ask about each file: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Other commands control
#: devices, or change attributes of a file that is open for reading only.
_CONTROLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_NAMES = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of a thread and of memory

# linux/filter.h: load a word, jump if equal, greater or equal, or if bits are set, return
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_SET_FILTER, _HAS_ACTION = 1, 2  # operations of the call `seccomp`
_INSTRUCTION = struct.Struct("=HBBI")
_OWN_PROCESS = b"\xee\xee\xee\xee"  # stands for the id of the process, which is known only in the process itself

Call = tuple[int | None, int | None, int]


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether this system has seccomp filters, and the tables know its machine."""
    if not sys.platform.startswith("linux") or platform.machine() not in _MACHINES or sys.maxsize < 2**32:
        return False
    action = ctypes.c_uint32(_ERRNO)
    try:
        call(_MACHINES[platform.machine()][1], _HAS_ACTION, 0, ctypes.addressof(action))
    except OSError:
        return False
    return True


def program() -> bytes:
    """The filter for this machine. `restrict` completes it with the id of the process."""
    machine, _, column = _MACHINES[platform.machine()]
    parts = [
        _step(_LOAD, _MACHINE),
        _unless(_EQUAL, machine, _KILL_PROCESS),  # calls of 32-bit programs have other numbers
        _step(_LOAD, _NUMBER),
        _when(_AT_LEAST, _NEWEST + 1, _ERRNO | errno.ENOSYS),  # also the calls of the x32 machine, whose numbers are huge
    ]
    parts += [_when(_EQUAL, numbers[column], _ERRNO | errno.ENOSYS) for numbers in _HIDDEN.values()]
    refuse = _ERRNO | errno.EPERM
    allow = _step(_RETURN, _ALLOW)
    own = int.from_bytes(_OWN_PROCESS, sys.byteorder)
    for called, checks in (
        (_OPEN, [_when(_ANY_BIT, _WRITES, refuse), allow]),
        (_OPENAT, [_when(_ANY_BIT, _WRITES, refuse), allow]),
        (_CLONE, [_unless(_ANY_BIT, _THREAD, refuse), _when(_ANY_BIT, _NAMESPACES, refuse), allow]),
        (_KILL, [_unless(_EQUAL, own, refuse), allow]),
        (_TGKILL, [_unless(_EQUAL, own, refuse), allow]),
        (_PRLIMIT, [_unless(_EQUAL, 0, refuse), allow]),
        (_FCNTL, _only(_DESCRIPTORS)),
        (_IOCTL, _only(_CONTROLS)),
        (_PRCTL, _only(_NAMES)),
    ):
        parts += _checked(called, column, b"".join(checks))
    parts += [_when(_EQUAL, number, _ALLOW) for number in allowed_calls(column).values()]
    return b"".join([*parts, _step(_RETURN, refuse)])


def restrict(program_: bytes) -> None:
    """Restricts the calling thread. Its process must have one thread, and `no_new_privs` set."""
    completed = program_.replace(_OWN_PROCESS, os.getpid().to_bytes(4, sys.byteorder))
    steps = ctypes.create_string_buffer(completed, len(completed))
    head = struct.pack("@HP", len(completed) // _INSTRUCTION.size, ctypes.addressof(steps))
    described = ctypes.create_string_buffer(head, len(head))
    call(_MACHINES[platform.machine()][1], _SET_FILTER, 0, ctypes.addressof(described))


def allowed_calls(column: int) -> dict[str, int]:
    """Name and number of each call in the table that the machine has. `column`: 0 for x86_64, 1 for aarch64."""
    lines = [line for line in _ALLOWED.splitlines() if not line.startswith("#")]
    rows = [entry.split() for entry in ",".join(lines).split(",") if entry.strip()]
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


def _checked(called: Call, column: int, checks: bytes) -> list[bytes]:
    """If the call is `called`, loads its argument and runs `checks`, which decide."""
    number, argument = called[column], called[2]
    if number is None:
        return []
    body = _step(_LOAD, _ARGUMENTS + 8 * argument) + checks
    return [_step(_EQUAL, number, if_not=len(body) // _INSTRUCTION.size), body]


def _only(commands: Iterable[int]) -> list[bytes]:
    """Allows the commands and refuses all others."""
    return [*(_when(_EQUAL, command, _ALLOW) for command in commands), _step(_RETURN, _ERRNO | errno.EPERM)]


def _when(test: int, value: int, result: int) -> bytes:
    return _step(test, value, if_not=1) + _step(_RETURN, result)


def _unless(test: int, value: int, result: int) -> bytes:
    return _step(test, value, if_so=1) + _step(_RETURN, result)


def _step(code: int, value: int, *, if_so: int = 0, if_not: int = 0) -> bytes:
    """One instruction. `if_so` and `if_not`: how many instructions a test skips."""
    return _INSTRUCTION.pack(code, if_so, if_not, value)
