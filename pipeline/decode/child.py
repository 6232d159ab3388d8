"""The decoder child: it sets limits, loads the image libraries, and forks decoders from itself, which enter a sandbox.

pipeline.decode.process starts it as `python -S -m pipeline.decode.child <seconds> <bytes>`. pipeline.decode.wire describes the
protocol between the two. The child loads the usual libraries once, which takes 0.1 s. It then forks a decoder, which decodes one
picture at a time. The child can replace the decoder in a few milliseconds. So a fresh decoder is cheap, and no earlier decoder
has access to its pipes. The decoder enters a sandbox (pipeline.sandbox) before it reads the first picture.

When the decoder ends for any reason, the child ends with the same status. When the parent ends, the child kills the decoder. (The
child does not use the kernel's parent-death signal, because that signal is sent when the thread that started the child ends, and
a worker's threads end earlier than the worker.)
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
from pipeline.decode.preview import answer
from pipeline.decode.wire import READY, REPLY, REQUEST, DecodeStatus
from pipeline.hardening import limit, limit_tasks, make_private
from pipeline.sandbox import prepare
from pipeline.sandbox.libraries import library_paths
from pipeline.types import Prepared, Refused

Decode = Callable[[str, bytes], Prepared | Refused]

#: The packages that decoders load when a picture first needs them.
_PACKAGES = ("PIL", "isal", "numpy", "pillow_heif", "pylibjxl")
_READ_BYTES = 256 * 1024  # one read takes several small pictures
_TELL_SECONDS = 0.02  # a reply is held back for about this time at most


def main(decode: Decode = answer, *, sandboxed: bool = True) -> None:
    """Keeps a decoder running until the decoder or the parent ends. Tests pass their own `decode`, and may leave out the sandbox."""
    control = _take_over_socket()
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    prepare_libraries()
    _confine(memory)
    enter_sandbox = prepare(library_paths(_PACKAGES)) if sandboxed else None
    make_private()  # a process that an earlier decoder left running must not reach the pipes of a later decoder
    gc.freeze()  # the garbage collector skips the loaded modules, so it does not write to memory that forks share
    decoder = 0

    def look(*_: object) -> None:
        """Handles SIGCHLD: if the current decoder has ended, the child ends too. The signal may be about an earlier decoder."""
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
            _serve(pipes, decode, seconds, enter_sandbox)
            os._exit(0)
        for pipe in pipes:
            os.close(pipe)


def _fork() -> int:
    """As os.fork. If the machine lacks processes or memory, the child exits with EX_TEMPFAIL, which tells the parent so."""
    try:
        return os.fork()
    except OSError:
        os._exit(os.EX_TEMPFAIL)


def _kill(decoder: int) -> int:
    """Kills the decoder and gives the status it ended with. The decoder may have ended before."""
    os.kill(decoder, signal.SIGKILL)
    return os.waitpid(decoder, 0)[1]


def _end_as(status: int) -> Never:
    """Ends the child with the decoder's status, because the parent can wait for the child only."""
    if os.WIFSIGNALED(status):
        with suppress(OSError):  # SIGKILL has no handler to set
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _serve(pipes: Sequence[int], decode: Decode, seconds: int, enter_sandbox: Callable[[], None] | None) -> None:
    """Reads requests from the first pipe and writes replies to the second, until the first pipe ends."""
    requests, replies = os.fdopen(pipes[0], "rb", _READ_BYTES), os.fdopen(pipes[1], "wb")
    resident, silence = _resident_reader(), _silencer()  # both open files, which the sandbox forbids
    if enter_sandbox:
        enter_sandbox()
    replies.write(READY)
    replies.flush()
    silence()
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
            continue  # the reply is sent together with the next one, so that the parent wakes less often
        replies.flush()
        told = monotonic()


def _take_over_socket() -> socket.socket:
    """Moves the parent's socket from standard input to a new descriptor, because a library might read standard input.

    It also redirects standard output to standard error, so that messages during the start are seen.
    """
    control = socket.socket(fileno=os.dup(0))
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a file path
        os.dup2(nothing.fileno(), 0)
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # ignored, because the parent decides when the child ends
        signal.signal(stop, signal.SIG_IGN)
    return control


def _confine(memory: int) -> None:
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123 - as above
        score.write("900")  # of 1000: if memory runs out, the kernel kills a decoder instead of the worker
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        limit(what, most)
    limit_tasks()


def _silencer() -> Callable[[], None]:
    """Gives a function that discards what libraries print about hostile pictures from then on. Errors of the start are printed."""
    nothing = os.open(os.devnull, os.O_WRONLY)

    def silence() -> None:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.close(nothing)

    return silence


def _allow(seconds: int) -> None:
    """Limits the next picture to `seconds` of CPU time, and to twice that by the clock in case the parent has ended."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    signal.setitimer(signal.ITIMER_REAL, 2 * seconds)


def _resident_reader() -> Callable[[], int]:
    """Gives a function that returns the resident memory in bytes. Without /proc the function returns the peak instead."""
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
