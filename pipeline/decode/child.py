"""What a decoder child is: limits, libraries, and a fork of itself that decodes.

Started as `python -S -m pipeline.decode.child <seconds> <bytes>` by pipeline.decode.process; pipeline.decode.wire says what
the two tell each other. It loads what is usual once, which takes 0.1 s, and then keeps a fork of itself, the decoder, which takes
one picture at a time and is replaced in a few milliseconds. So a decoder that has seen no picture costs little, and has pipes
that no decoder before it knows.

When the decoder has ended, by whatever, the child ends in the same way. When its parent has, it kills the decoder. (The kernel's
death signal is not used: it follows the thread that started a child, and threads of a worker come and go.)
"""

from __future__ import annotations

import gc
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import BinaryIO, Never

from pipeline.decode.opening import prepare_libraries
from pipeline.decode.picture import decode
from pipeline.decode.wire import READY, REPLY, REQUEST, DecodeStatus
from pipeline.hardening import make_private
from pipeline.types import Prepared, Refused

Decode = Callable[[str, bytes], Prepared | Refused]

_READ_BYTES = 256 * 1024  # several small pictures at once
_TELL_SECONDS = 0.02  # replies are held back no longer than about this


def main(decode: Decode = decode) -> None:
    """Keeps a decoder until it ends, or nobody is left to want one. `decode` is a test's to replace."""
    control = _take_over_socket()
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    prepare_libraries()
    _confine(memory)
    make_private()  # what an earlier decoder left running is to find no way to this one's pipes
    gc.freeze()  # what is loaded stays: no collection need look at it again, nor write to the pages that forks share
    decoder = 0

    def look(*_: object) -> None:
        """A process of ours has ended: if it is this decoder, not still the one before, so do we."""
        ended, status = os.waitpid(decoder, os.WNOHANG)
        if ended:
            _end_as(status)

    signal.signal(signal.SIGCHLD, look)
    while True:
        wanted, pipes, _, _ = socket.recv_fds(control, 1, 2)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        status = _kill(decoder) if decoder else 0
        if not wanted:
            _end_as(status)
        decoder = _fork()
        if not decoder:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        if not decoder:
            _serve(pipes, decode, seconds)
            os._exit(0)
        for pipe in pipes:
            os.close(pipe)


def _fork() -> int:
    """As os.fork. Where the machine lacks processes or memory for it, the status we end with says so to our parent."""
    try:
        return os.fork()
    except OSError:
        os._exit(os.EX_TEMPFAIL)


def _kill(decoder: int) -> int:
    """The status it ended with, of itself or now."""
    os.kill(decoder, signal.SIGKILL)
    return os.waitpid(decoder, 0)[1]


def _end_as(status: int) -> Never:
    """Ends as the decoder did: our parent knows no other process than us."""
    if os.WIFSIGNALED(status):
        with suppress(OSError):  # SIGKILL has no handler to set
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _serve(pipes: Sequence[int], decode: Decode, seconds: int) -> None:
    """Answers on the second pipe what comes from the first, until that ends."""
    requests, replies = os.fdopen(pipes[0], "rb", _READ_BYTES), os.fdopen(pipes[1], "wb")
    resident = _resident_reader()
    replies.write(READY)
    replies.flush()
    _silence()
    told = monotonic()
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        kind, more, length = REQUEST.unpack(head)
        data = requests.read(length)
        if len(data) < length:
            break
        _allow(seconds)
        outcome = decode(kind.rstrip(b"\0").decode(), data)
        signal.setitimer(signal.ITIMER_REAL, 0)
        del data
        _answer(replies, outcome, resident())
        if more and monotonic() - told < _TELL_SECONDS:
            continue  # these replies go with the next: the parent need not wake for each
        replies.flush()
        told = monotonic()


def _take_over_socket() -> socket.socket:
    """The socket from the parent, out of reach of what a library reads; and what it prints is heard until all is ready."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a path to compute with
        os.dup2(nothing.fileno(), 0)
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to the whole group: the parent ends us in its time
        signal.signal(stop, signal.SIG_IGN)
    return control


def _confine(memory: int) -> None:
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123 - as above
        score.write("900")  # of -1000 to 1000: if memory runs out, the kernel ends a decoder, not the worker
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901 - never above what we are given
        resource.setrlimit(what, (most, most))


def _silence() -> None:
    """What libraries print of strangers' bytes is noise; what keeps a child from starting was still heard."""
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - as above
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)


def _allow(seconds: int) -> None:
    """Gives the next picture its time: `seconds` of CPU, and twice that by the clock in case no parent is left to count."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    signal.setitimer(signal.ITIMER_REAL, 2 * seconds)


def _resident_reader() -> Callable[[], int]:
    """What tells the bytes of memory we hold; where the kernel has no /proc, the most we ever held."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return lambda: int(os.pread(statm, 128, 0).split()[1]) * resource.getpagesize()


def _answer(replies: BinaryIO, outcome: Prepared | Refused, resident: int) -> None:
    if isinstance(outcome, Refused):
        detail = outcome.detail.encode()
        replies.write(REPLY.pack(DecodeStatus.REFUSED, outcome.code.encode(), 0, 0, resident, 0, len(detail)) + detail)
    else:
        verdict = DecodeStatus.CONVERTED if outcome.data else DecodeStatus.AS_RECEIVED
        note = outcome.note.encode()
        head = REPLY.pack(verdict, b"", outcome.width, outcome.height, resident, len(note), len(outcome.data))
        replies.write(head + note)
        replies.write(outcome.data)


if __name__ == "__main__":
    main()
