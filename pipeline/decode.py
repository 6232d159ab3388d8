"""Decoding what strangers send, in child processes that may die of it.

A child (pipeline.decode_child) lives on from picture to picture: it takes 0.07 s to start, and a small picture 0.6 ms.
What is sent to it, on its standard input:

    REQUEST, the bytes

and what it answers, on its standard output, first of all READY, then for each request:

    REPLY, a PNG or (where refused) one sentence

A child that has decoded a hostile picture may no longer be ours, so its answers are checked like a stranger's.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from pipeline.metrics import DECODER_RESTARTS
from pipeline.sniff import NATIVE_FORMATS, sniff
from pipeline.types import MB, ItemCode, Prepared, Refused

MAX_PIXELS = 50_000_000  # 8165 x 6123: above what scanners and phones send; 200 MB as RGBA
MAX_SIDE = 30_000  # pixels
MAX_SCANS = 100  # of a JPEG: encoders write about 10
MAX_SECONDS = 20.0  # a picture, of CPU and by the clock: 50 million pixels of noise to PNG take 8
MAX_MEMORY = 1_500_000_000  # bytes of address space a child
MAX_RESIDENT = 300 * MB  # bytes: a child that holds more after a picture is replaced
MAX_PICTURES = 2_000  # a child: what leaks in a decoder goes with it

READY = b"\x06decode1"
REQUEST = struct.Struct("!16sI")  # the format's name, padded with zeros; the length of the bytes that follow
REPLY = struct.Struct("!B32sIIQI")  # Outcome; an ItemCode where refused; width, height; bytes resident; length of what follows


class Outcome(IntEnum):
    AS_RECEIVED = 1  #: nothing follows
    CONVERTED = 2  #: a PNG follows
    REFUSED = 3  #: a sentence follows


_START_SECONDS = 60.0  # a child that is not ready by then never will be: 0.07 s is usual
_MAX_PNG = 256 * MB  # 50 million pixels of RGBA are 200 MB, were they not to shrink at all
_MAX_DETAIL = 1_000  # bytes
_PIPE_BYTES = MB  # most pictures then pass in one write
_READ_BYTES = MB
_PNG = b"\x89PNG\r\n\x1a\n"
_ROOT = Path(__file__).resolve().parent.parent
_COMMAND = (sys.executable, "-m", "pipeline.decode_child")
#: All a child is told of the environment: where its code is. Keys and addresses of other services stay here.
_INHERITED = ("LD_LIBRARY_PATH", "PYTHONPATH")
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


class DecoderNotStarted(Exception):
    """A decoder child did not start: the installation is at fault, not a picture."""


class _ChildDied(Exception):
    """The child ended, or answered what no child of ours answers."""


class DecoderPool:
    """Decodes in `children` processes, each started when first needed. Implements pipeline.ports.Decode.

    `children`: at once; one a core if not given. `seconds`: for one picture, of CPU time (whole seconds, at least 1) and by
    the clock; waiting for a child is not counted. `command`: what to start instead of our own child; `<seconds> <memory>`
    is appended. Of more callers than children, who came first is served first. Not to be used on both sides of a fork.
    """

    def __init__(
        self,
        children: int | None = None,
        *,
        seconds: float = MAX_SECONDS,
        memory: int = MAX_MEMORY,
        resident: int = MAX_RESIDENT,
        pictures: int = MAX_PICTURES,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        children = _cores() if children is None else children
        if children < 1:
            raise ValueError("a decoder pool needs at least one child")
        self._seconds = seconds
        self._resident = resident
        self._pictures = pictures
        self._command = (*command, str(max(1, round(seconds))), str(memory))
        self._lock = threading.Lock()
        self._idle = [_Seat() for _ in range(children)]
        self._waiting: deque[SimpleQueue[_Seat]] = deque()  # empty unless _idle is
        self._closed = False

    def __call__(self, data: bytes) -> Prepared | Refused:
        """Never raises for what is in `data`. Thread-safe.

        Raises DecoderNotStarted if no child can be started, and RuntimeError after close().
        """
        kind = sniff(data)
        if isinstance(kind, Refused):
            return kind
        seat = self._take()
        try:
            return self._decode(seat, kind, data)
        finally:
            self._give(seat)

    def close(self) -> None:
        """Ends the children: idle ones now, the others when the callers that already wait have been answered."""
        with self._lock:
            self._closed = True
            idle = list(self._idle)
        for seat in idle:
            seat.vacate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take(self) -> _Seat:
        with self._lock:
            if self._closed:
                raise RuntimeError("the decoder pool is closed")
            if self._idle:
                return self._idle.pop()  # the one last given back: warm, and the others need not start
            turn: SimpleQueue[_Seat] = SimpleQueue()
            self._waiting.append(turn)
        try:
            return turn.get()
        except BaseException:  # an interrupt: the place is not lost with who waited for it
            with self._lock:
                waiting = turn in self._waiting
                if waiting:
                    self._waiting.remove(turn)
            if not waiting:
                self._give(turn.get())
            raise

    def _give(self, seat: _Seat) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(seat)
                return
            self._idle.append(seat)
            closed = self._closed
        if closed:
            seat.vacate()

    def _decode(self, seat: _Seat, kind: str, data: bytes) -> Prepared | Refused:
        """Asks a child, and once more a new one if a used one died: of what is left of other pictures, or killed from outside.

        So a picture is accused only by a child that had seen no other.
        """
        while True:
            child = seat.child = seat.child or _Child(self._command)
            unused = child.pictures == 0
            try:
                outcome, resident = child.ask(kind, data, seconds=self._seconds)
            except TimeoutError:
                DECODER_RESTARTS.add(reason="late")
                seat.vacate()
                return _took_too_long(self._seconds)
            except _ChildDied:
                DECODER_RESTARTS.add(reason="died")
                if seat.vacate() == -signal.SIGXCPU:
                    return _took_too_long(self._seconds)
                if unused:
                    return Refused(
                        code=ItemCode.IMAGE_CRASHED_DECODER,
                        detail=f"Decoding the {kind} image crashed the decoder: save it anew, as PNG or JPEG.",
                    )
            except BaseException:  # an interrupt: the child is in the midst of an answer nobody waits for
                seat.vacate()
                raise
            else:
                if child.pictures >= self._pictures or resident > self._resident:
                    DECODER_RESTARTS.add(reason="recycled")
                    seat.vacate()
                return outcome


def _took_too_long(seconds: float) -> Refused:
    return Refused(
        code=ItemCode.IMAGE_TOO_COMPLEX,
        detail=f"The image takes longer than {seconds:g} s to decode: send it smaller or saved anew.",
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@dataclass(slots=True)
class _Seat:
    """One of the pool's places for a child. Whoever took it uses it alone."""

    child: _Child | None = None

    def vacate(self) -> int | None:
        """Ends the child and gives the status it ended with, negative for a signal."""
        child, self.child = self.child, None
        return child.end() if child else None


class _Child:
    """One decoder process and the two pipes to it."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the process and waits until it is ready. Raises DecoderNotStarted."""
        self.pictures = 0  # answered
        environment = _ENVIRONMENT | {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            raise DecoderNotStarted(f"{command[0]}: {error}") from error
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._writable, self._readable = select.poll(), select.poll()  # not select(): it ends at descriptor 1024
        self._writable.register(self._to, select.POLLOUT)
        self._readable.register(self._from, select.POLLIN)
        for end in (self._to, self._from):
            os.set_blocking(end, False)
            _widen(end)
        try:
            greeting = self._read(len(READY), time.monotonic() + _START_SECONDS)
        except (_ChildDied, TimeoutError):
            greeting = b""
        except BaseException:
            self.end()
            raise
        if greeting != READY:
            raise DecoderNotStarted(f"a decoder child ended with status {self.end()} before it was ready")

    def ask(self, kind: str, data: bytes, *, seconds: float) -> tuple[Prepared | Refused, int]:
        """The child's answer, and the bytes of memory it then holds. Raises _ChildDied and TimeoutError: then end() it."""
        deadline = time.monotonic() + seconds
        self._write(REQUEST.pack(kind.encode(), len(data)), data, deadline)
        verdict, code, width, height, resident, length = REPLY.unpack(self._read(REPLY.size, deadline))
        if length > {Outcome.CONVERTED: _MAX_PNG, Outcome.REFUSED: _MAX_DETAIL}.get(verdict, 0):
            raise _ChildDied
        body = self._read(length, deadline)
        self.pictures += 1
        if verdict == Outcome.REFUSED:
            return _refused(code, body), resident
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
            raise _ChildDied
        if verdict == Outcome.CONVERTED and body.startswith(_PNG):
            return Prepared(data=body, mime=NATIVE_FORMATS["PNG"], width=width, height=height, source_format=kind), resident
        if verdict == Outcome.AS_RECEIVED and kind in NATIVE_FORMATS:
            return Prepared(data=data, mime=NATIVE_FORMATS[kind], width=width, height=height, source_format=kind), resident
        raise _ChildDied

    def end(self) -> int:
        """Kills the process and gives the status it ended with, negative for a signal."""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        return status

    def _write(self, head: bytes, data: bytes, deadline: float) -> None:
        rest = [memoryview(head), memoryview(data)]
        try:
            while rest:
                try:
                    written = os.writev(self._to, rest)
                except BlockingIOError:
                    _await(self._writable, deadline)
                    continue
                while rest and written >= len(rest[0]):
                    written -= len(rest.pop(0))
                if rest:
                    rest[0] = rest[0][written:]
        except BrokenPipeError as error:
            raise _ChildDied from error

    def _read(self, length: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        while length:
            _await(self._readable, deadline)
            part = os.read(self._from, min(length, _READ_BYTES))
            if not part:
                raise _ChildDied
            parts.append(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _refused(code: bytes, detail: bytes) -> Refused:
    try:
        return Refused(code=ItemCode(code.rstrip(b"\0").decode()), detail=detail.decode())
    except ValueError as error:
        raise _ChildDied from error


def _await(poll: select.poll, deadline: float) -> None:
    """Returns when the pipe is ready or its other end is closed. Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError


def _widen(pipe: int) -> None:
    if sys.platform == "linux":
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return  # a user has so many pages for pipes: then it takes more writes
