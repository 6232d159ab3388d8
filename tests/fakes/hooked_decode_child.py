"""A decoder child that obeys a picture's last bytes. It simulates what a hostile picture might do to a decoder.

!crash    dies of SIGSEGV
!exit     ends the process with code 0
!later    dies after 0.3 s
!used     dies, unless the picture is the process's first
!hang     waits for ever
!spin     computes for ever
!cpu      dies of SIGXCPU, as at the limit of CPU time
!memory   allocates more memory than the limit
!print    prints to standard output and standard error, also to their original file numbers
!lie      answers with an impossible picture size
!large    answers with a size of too many pixels, though each side is possible
!notes    answers with longer notes than a picture can have
!garbage  answers with bytes that are not a valid answer
!twice    writes two refusals at once, and then a third one
!linger   forks a process that writes answers after the decoder's death; the refusal's detail is that process's id
!tell     refuses the picture; the detail is JSON about the process's state and limits
!run …    runs the Python code that follows (tests/fakes/taken_over.py); the refusal's detail is what came of it
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import stat
import sys
import threading
from contextlib import suppress
from dataclasses import replace

from pipeline.decode import child, picture
from pipeline.decode.wire import MAX_NOTE, REPLY, DecodeStatus
from pipeline.types import ItemCode, Prepared, Refused
from tests.fakes import taken_over

_seen = 0


def decode(kind: str, data: bytes) -> Prepared | Refused:
    global _seen  # noqa: PLW0603
    _seen += 1
    if b"!run " in data:
        return Refused(code=ItemCode.IMAGE_CORRUPT, detail=taken_over.run(data.partition(b"!run ")[2].decode()))
    outcome = picture.decode(kind, data)
    match data.rpartition(b"!")[2]:
        case b"crash":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"cpu":
            os.kill(os.getpid(), signal.SIGXCPU)
        case b"used" if _seen > 1:
            os._exit(3)
        case b"later":
            threading.Event().wait(0.3)
            os._exit(3)
        case b"exit":
            os._exit(0)
        case b"hang":
            threading.Event().wait()
        case b"spin":
            while True:
                pass
        case b"memory":
            bytearray(10**10)
        case b"print":
            os.write(1, b"x" * 1000)
            os.write(2, b"x" * 1000)
            print("x" * 1000)  # noqa: T201 - what a library might do
            print("x" * 1000, file=sys.stderr)  # noqa: T201 - as above
            sys.stdin.read()
        case b"lie" if isinstance(outcome, Prepared):
            return replace(outcome, width=1_000_000, height=1)
        case b"large" if isinstance(outcome, Prepared):
            return replace(outcome, width=20_000, height=20_000)
        case b"notes" if isinstance(outcome, Prepared):
            return replace(outcome, note="x" * (MAX_NOTE + 1))
        case b"garbage":
            os.write(_replies(), b"\xff" * 1000)
        case b"twice":
            detail = b"This is said of somebody else."
            os.write(_replies(), 2 * (REPLY.pack(DecodeStatus.REFUSED, b"image_corrupt", 0, 0, 0, 0, len(detail)) + detail))
            return Refused(code=ItemCode.IMAGE_CORRUPT, detail=detail.decode())
        case b"linger":
            return Refused(code=ItemCode.IMAGE_CORRUPT, detail=str(_left_behind()))
        case b"tell":
            return Refused(code=ItemCode.IMAGE_CORRUPT, detail=json.dumps(_state()))
    return outcome


def _replies() -> int:
    """The file number of the pipe to the parent. It is the only pipe that is open for writing."""
    for number in range(32):
        with suppress(OSError):
            if stat.S_ISFIFO(os.fstat(number).st_mode) and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_WRONLY:
                return number
    raise AssertionError


def _left_behind() -> int:
    decoder = os.getpid()
    if left := os.fork():
        return left
    while os.getppid() == decoder:
        threading.Event().wait(0.001)
    with suppress(OSError):
        while True:
            os.write(_replies(), b"\xff" * 1000)
    os._exit(0)


def _state() -> dict[str, object]:
    limits = {
        "AS": resource.RLIMIT_AS,
        "FSIZE": resource.RLIMIT_FSIZE,
        "CORE": resource.RLIMIT_CORE,
        "NOFILE": resource.RLIMIT_NOFILE,
    }
    return {
        "pid": os.getpid(),
        "seen": _seen,
        "environment": sorted(os.environ),
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
        **{name: resource.getrlimit(what)[1] for name, what in limits.items()},
    }


if __name__ == "__main__":
    child.main(decode)
