"""seccomp: which system calls a process may make.

The filter is a program for the kernel's packet filter machine (linux/filter.h, linux/seccomp.h), which runs at each system call. It
refuses the calls in the tables below with EPERM, and takes every other call. Calls that are newer than the tables get ENOSYS, as from
an older kernel, because libraries then use the older calls. We write the program ourselves because the Python packages that do it need
libseccomp, which wheels do not bring.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from functools import lru_cache

from pipeline.sandbox.system import call

#: machine → its number in linux/audit.h, the number of the call `seccomp`, and its column in the tables
_MACHINES = {"x86_64": (0xC000003E, 317, 0), "aarch64": (0xC00000B7, 277, 1)}

#: The calls that are refused: name, number on x86_64, number on aarch64; "-" if the machine has no such call.
_REFUSED = """
# sockets
socket 41 198, socketpair 53 199, bind 49 200, connect 42 203
# looking into other processes, signals to them, and their priorities
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, process_mrelease 448 448,
kcmp 312 272, pidfd_open 434 434, pidfd_getfd 438 438, pidfd_send_signal 424 424, tkill 200 130,
rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, setpriority 141 140, ioprio_set 251 30, sched_setaffinity 203 122,
sched_setscheduler 144 119, sched_setparam 142 118, sched_setattr 314 274, move_pages 279 239, migrate_pages 256 238,
setpgid 109 154, setsid 112 157
# new processes, programs and namespaces
execve 59 221, execveat 322 281, fork 57 -, vfork 58 -, unshare 272 97, setns 308 268, personality 135 92
# writing, deleting, and changing who may read a file
creat 85 -, truncate 76 45, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, link 86 -,
linkat 265 37, symlink 88 -, symlinkat 266 36, mkdir 83 -, mkdirat 258 34, rmdir 84 -, mknod 133 -, mknodat 259 33,
chmod 90 -, fchmod 91 52, fchmodat 268 53, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54, utime 132 -,
utimes 235 -, futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, removexattr 197 14,
lremovexattr 198 15, fremovexattr 199 16, fallocate 285 47, memfd_create 319 279, memfd_secret 447 447
# files by other ways than opening their path
open_by_handle_at 304 265, name_to_handle_at 303 264, inotify_init 253 -, inotify_init1 294 26,
inotify_add_watch 254 27, fanotify_init 300 262, fanotify_mark 301 263
# memory, messages and keys that processes share
shmget 29 194, shmat 30 196, shmctl 31 195, msgget 68 186, msgsnd 69 189, msgrcv 70 188, msgctl 71 187, semget 64 190,
semop 65 193, semtimedop 220 192, semctl 66 191, mq_open 240 180, mq_unlink 241 181, add_key 248 217,
request_key 249 218, keyctl 250 219
# parts of the kernel that had many faults, or that open files and sockets by themselves
io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427, bpf 321 280, perf_event_open 298 241,
userfaultfd 323 282, vmsplice 278 75, modify_ldt 154 -, iopl 172 -, ioperm 173 -, lookup_dcookie 212 18, uselib 134 -,
vhangup 153 58
# settings of the machine
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, open_tree 428 428, move_mount 429 429, fsopen 430 430,
fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442, swapon 167 224, swapoff 168 225,
reboot 169 142, kexec_load 246 104, kexec_file_load 320 294, init_module 175 105, finit_module 313 273,
delete_module 176 106, create_module 174 -, acct 163 89, quotactl 179 60, quotactl_fd 443 443, syslog 103 116,
settimeofday 164 170, clock_settime 227 112, clock_adjtime 305 266, adjtimex 159 171, sethostname 170 161,
setdomainname 171 162, nfsservctl 180 42
# users and rights
setuid 105 146, setgid 106 144, setreuid 113 145, setregid 114 143, setresuid 117 147, setresgid 119 149,
setgroups 116 159, setfsuid 122 151, setfsgid 123 152, capset 126 91
"""
#: Newer calls than this one (cachestat of Linux 6.5) do not exist for the process. New calls have the same number on all machines.
_NEWEST = 451
#: Calls that do not exist for the process, because their arguments lie in memory, where the filter cannot read them.
_HIDDEN = {"clone3": (435, 435), "openat2": (437, 437)}

#: Calls of which an argument decides: number on x86_64 and aarch64, which argument.
_OPEN, _OPENAT = (2, None, 1), (257, 56, 2)  # the flags
_CLONE = (56, 220, 0)  # the flags
_KILL, _TGKILL, _PRLIMIT = (62, 129, 0), (234, 131, 0), (302, 261, 0)  # the process
_FCNTL, _IOCTL = (72, 25, 1), (16, 29, 1)  # the command

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_THREAD = 0x00010000  # linux/sched.h: the new task is a thread of the same process
_NAMESPACES = 0x7E020000
_SENDS_SIGNALS = (8, 15, 10)  # F_SETOWN, F_SETOWN_EX, F_SETSIG: the kernel signals the owner of a file
_CONTROLS = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP: as above; TIOCSTI, TIOCLINUX: write into a terminal

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
    parts += [_when(_EQUAL, number, _ERRNO | errno.EPERM) for number in refused_calls(column).values()]
    refuse = _ERRNO | errno.EPERM
    own = int.from_bytes(_OWN_PROCESS, sys.byteorder)
    for called, checks in (
        (_OPEN, [_when(_ANY_BIT, _WRITES, refuse)]),
        (_OPENAT, [_when(_ANY_BIT, _WRITES, refuse)]),
        (_CLONE, [_unless(_ANY_BIT, _THREAD, refuse), _when(_ANY_BIT, _NAMESPACES, refuse)]),
        (_KILL, [_unless(_EQUAL, own, refuse)]),
        (_TGKILL, [_unless(_EQUAL, own, refuse)]),
        (_PRLIMIT, [_unless(_EQUAL, 0, refuse)]),
        (_FCNTL, [_when(_EQUAL, command, refuse) for command in _SENDS_SIGNALS]),
        (_IOCTL, [_when(_EQUAL, command, refuse) for command in _CONTROLS]),
    ):
        parts += _checked(called, column, b"".join(checks))
    return b"".join([*parts, _step(_RETURN, _ALLOW)])


def restrict(program_: bytes) -> None:
    """Restricts the calling thread. Its process must have one thread, and `no_new_privs` set."""
    completed = program_.replace(_OWN_PROCESS, os.getpid().to_bytes(4, sys.byteorder))
    steps = ctypes.create_string_buffer(completed, len(completed))
    head = struct.pack("@HP", len(completed) // _INSTRUCTION.size, ctypes.addressof(steps))
    described = ctypes.create_string_buffer(head, len(head))
    call(_MACHINES[platform.machine()][1], _SET_FILTER, 0, ctypes.addressof(described))


def refused_calls(column: int) -> dict[str, int]:
    """Name and number of each call in the table that the machine has. `column`: 0 for x86_64, 1 for aarch64."""
    lines = [line for line in _REFUSED.splitlines() if not line.startswith("#")]
    rows = [entry.split() for entry in ",".join(lines).split(",") if entry.strip()]
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


def _checked(called: Call, column: int, checks: bytes) -> list[bytes]:
    """If the call is `called`, loads its argument and runs `checks`; what they do not refuse is allowed."""
    number, argument = called[column], called[2]
    if number is None:
        return []
    body = _step(_LOAD, _ARGUMENTS + 8 * argument) + checks + _step(_RETURN, _ALLOW)
    return [_step(_EQUAL, number, if_not=len(body) // _INSTRUCTION.size), body]


def _when(test: int, value: int, result: int) -> bytes:
    return _step(test, value, if_not=1) + _step(_RETURN, result)


def _unless(test: int, value: int, result: int) -> bytes:
    return _step(test, value, if_so=1) + _step(_RETURN, result)


def _step(code: int, value: int, *, if_so: int = 0, if_not: int = 0) -> bytes:
    """One instruction. `if_so` and `if_not`: how many instructions a test skips."""
    return _INSTRUCTION.pack(code, if_so, if_not, value)
