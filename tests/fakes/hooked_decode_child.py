"""A decoder child that does as a picture's last bytes say: what a hostile picture might do to a decoder.

!crash    dies as of a bad pointer        !exit       ends the process
!later    dies after 0.3 s
!used     dies, unless it is its first    !hang       waits for ever
!spin     computes for ever               !cpu        dies as of too much CPU time
!memory   wants more than it may have
!print        prints to what was standard output and standard error
!lie      answers with a picture too large to be one
!garbage  answers with bytes that are no answer
!twice    is refused twice at once, and then once more
!linger   leaves a process behind that answers for it once it is gone, and is refused with that one's id as the detail
!tell     is refused, with what the process knows of itself as the detail
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
from pipeline.decode.wire import REPLY, DecodeStatus
from pipeline.types import ItemCode, Prepared, Refused

_seen = 0


def decode(kind: str, data: bytes) -> Prepared | Refused:
    global _seen  # noqa: PLW0603
    _seen += 1
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
    """The pipe that the parent reads: the one that is open for writing."""
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
