"""The parent's side of one decoder process (pipeline.decode.child). pipeline.decode.wire describes the protocol.

A hostile picture may take control of a child, so the parent checks every reply as untrusted input.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pipeline.decode.sniff import NATIVE_FORMATS
from pipeline.decode.wire import (
    AS_JPEG,
    MAX_JPEG,
    MAX_NOTE,
    MAX_PIXELS,
    MAX_SIDE,
    READY,
    REPLY,
    REQUEST,
    DecodeStatus,
    format_of,
    preview_width,
)
from pipeline.errors import PartError, Permanent, Transient, os_error
from pipeline.types import MB, ItemCode, Prepared, Refused

_START_SECONDS = 60.0  # a start usually takes 0.1 s
_RENEW_SECONDS = 10.0  # a renewal usually takes a few milliseconds
_END_SECONDS = 10.0  # the child ends at once unless it is stuck
_MAX_PNG = 256 * MB  # MAX_PIXELS of RGBA are 200 MB if they do not compress at all
_MAX_DETAIL = 1_000  # bytes
_PIPE_BYTES = MB  # with a pipe this large, most pictures need one write
_READ_BYTES = MB
_READ_AHEAD = 16 * 1024  # bytes: one read takes several replies without a body
_MOST_PARTS = 64  # buffers in one writev: Linux and macOS allow 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_NO_PIPE = -1
_ROOT = Path(__file__).resolve().parents[2]
#: The only variables that a child inherits: where its libraries are. Keys and addresses of other services stay in the parent.
_INHERITED = ("LD_LIBRARY_PATH",)
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}

Request = tuple[str, bytes]  #: the format's name (with AS_JPEG before it to ask for a JPEG), and the picture


class DecoderNotStarted(Permanent):
    """A decoder child did not start. The installation is the cause, because no picture was sent yet."""


class DecoderDied(Exception):
    """The child ended, or its reply was invalid."""

    status: int | None = None  #: the child's exit status, negative for a signal; None until it is known


class DecoderProcess:
    """A child and the two pipes to its decoder."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the child and waits until its decoder is ready.

        Raises Transient if the machine lacks processes, memory or descriptors, and DecoderNotStarted for any other failure.
        """
        self.pictures = 0  #: pictures that this decoder has answered
        self.unanswered = 0  #: pictures that were sent and not answered yet
        self.resident = 0  #: the decoder's resident memory in bytes after the last picture
        environment = _ENVIRONMENT | {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # with -S the child finds no packages itself
        try:
            self._control, given = socket.socketpair()
        except OSError as error:
            raise _not_started(command, error) from error
        with given:
            try:
                self._process = subprocess.Popen(
                    command, cwd=_ROOT, env=environment, stdin=given.fileno(), stdout=subprocess.DEVNULL, process_group=0
                )
            except OSError as error:
                self._control.close()
                raise _not_started(command, error) from error
        self._to = self._from = _NO_PIPE
        self._since = 0.0  # monotonic clock: when the requests were sent or the last reply was read
        try:
            self._equip()
            ready = self._is_ready(_START_SECONDS)
        except OSError as error:
            self.end()
            raise _not_started(command, error) from error
        except BaseException:
            self.end()
            raise
        if ready:
            return
        status = self.end()
        text = f"a decoder child ended with status {status} before it was ready"
        raise Transient(text) if status == os.EX_TEMPFAIL else DecoderNotStarted(text)

    def renew(self, *, within: float = _RENEW_SECONDS) -> bool:
        """Replaces the decoder by a fresh one with new pipes. If the result is False, call end(), because the child is broken."""
        before = self._to, self._from
        self._to = self._from = _NO_PIPE
        try:
            self._equip()
            return self._is_ready(within)
        except OSError:
            return False
        finally:
            _close(before)  # closed last, because the old decoder ends when its pipe closes, and the child would end with it

    def _is_ready(self, within: float) -> bool:
        """Whether the decoder sends READY within `within` seconds, and nothing else."""
        try:
            return self._read(len(READY), time.monotonic() + within) == READY and not self._ahead
        except (DecoderDied, OSError):
            return False

    def _equip(self) -> None:
        self.pictures = self.unanswered = self.resident = 0
        self._unsent: list[memoryview] = []
        self._ahead = b""  # bytes that were read beyond the current reply
        with ExitStack() as theirs:
            asked, self._to = os.pipe()
            theirs.callback(os.close, asked)
            self._from, answers = os.pipe()
            theirs.callback(os.close, answers)
            socket.send_fds(self._control, [b"\0"], [asked, answers])
        self._readable, self._either = select.poll(), select.poll()  # select() fails from descriptor 1024 on
        self._readable.register(self._from, select.POLLIN)
        self._either.register(self._from, select.POLLIN)
        self._either.register(self._to, select.POLLOUT)
        for end in (self._to, self._from):
            os.set_blocking(end, False)
            _widen(end)

    def ask(self, requests: Sequence[Request], *, seconds: float) -> Iterator[Prepared | Refused]:
        """Sends the requests and yields the replies in order. Each reply may take `seconds` at most.

        Raises DecoderDied and TimeoutError. If the iteration stops early or raises, pictures stay unanswered: call end(), because
        the child cannot be used again. The picture that caused an error is known only if it was sent alone.
        """
        self.unanswered = len(requests)
        self._since = time.monotonic()
        if self.has_said_more():
            raise DecoderDied
        last = len(requests) - 1
        for number, (kind, data) in enumerate(requests):
            self._unsent += [memoryview(REQUEST.pack(kind.encode(), number < last, len(data))), memoryview(data)]
        for kind, data in requests:
            outcome = self._answer(kind, data, time.monotonic() + seconds)
            self.unanswered -= 1
            yield outcome

    def has_said_more(self) -> bool:
        """Whether the decoder has ended or sent bytes that no request asked for. Its next reply cannot be trusted then."""
        return bool(self._ahead) or bool(self._readable.poll(0))

    def _answer(self, kind: str, data: bytes, deadline: float) -> Prepared | Refused:
        verdict, code, width, height, resident, noted, length = REPLY.unpack(self._read(REPLY.size, deadline))
        if length > {DecodeStatus.CONVERTED: _MAX_PNG, DecodeStatus.REFUSED: _MAX_DETAIL}.get(verdict, 0):
            raise DecoderDied
        if noted > MAX_NOTE:
            raise DecoderDied
        note = _note(self._read(noted, deadline)) if noted else ""
        body = self._read(length, deadline) if length else b""
        self.pictures += 1
        self.resident = resident
        since, self._since = self._since, time.monotonic()
        took = self._since - since
        if verdict == DecodeStatus.REFUSED:
            return _refused(code, body, took)
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
            raise DecoderDied
        if kind.startswith(AS_JPEG) or preview_width(kind)[0] is not None:
            if verdict != DecodeStatus.CONVERTED or not body.startswith(_JPEG) or length > MAX_JPEG:
                raise DecoderDied
            kind, data, mime = format_of(kind), body, NATIVE_FORMATS["JPEG"]
        elif verdict == DecodeStatus.CONVERTED and body.startswith((_PNG, _JPEG)):
            data, mime = body, NATIVE_FORMATS["PNG" if body.startswith(_PNG) else "JPEG"]
        elif verdict == DecodeStatus.AS_RECEIVED and kind in NATIVE_FORMATS:
            mime = NATIVE_FORMATS[kind]
        else:
            raise DecoderDied
        return Prepared(data=data, mime=mime, width=width, height=height, source_format=kind, seconds=took, note=note)

    def end(self) -> int:
        """Ends the child and gives the status that its decoder ended with, negative for a signal."""
        self._control.close()
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        if status == -signal.SIGKILL:  # the child may have been killed from outside, with its decoder still running
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        _close([self._to, self._from])
        return status

    def _read(self, length: int, deadline: float) -> bytes:
        parts = [self._ahead]
        missing = length - len(self._ahead)
        while missing > 0:
            part = self._receive(min(max(missing, _READ_AHEAD), _READ_BYTES), deadline)
            parts.append(part)
            missing -= len(part)
        whole = b"".join(parts)
        self._ahead = whole[length:]
        return whole[:length]

    def _receive(self, most: int, deadline: float) -> bytes:
        """Waits for bytes from the decoder, and sends pending requests meanwhile, as many as the pipe takes.

        It does both together, because a decoder that is blocked on writing a reply reads no requests.
        """
        while True:
            self._send()
            left = deadline - time.monotonic()
            if left <= 0 or not (events := (self._either if self._unsent else self._readable).poll(left * 1000)):
                raise TimeoutError
            if any(end == self._from for end, _ in events):
                part = os.read(self._from, most)
                if not part:
                    raise DecoderDied
                return part

    def _send(self) -> None:
        try:
            while self._unsent:
                written = os.writev(self._to, self._unsent[:_MOST_PARTS])
                sent = 0
                while sent < len(self._unsent) and written >= len(self._unsent[sent]):
                    written -= len(self._unsent[sent])
                    sent += 1
                del self._unsent[:sent]
                if written:
                    self._unsent[0] = self._unsent[0][written:]
        except BlockingIOError:
            return
        except BrokenPipeError as error:
            raise DecoderDied from error


def _not_started(command: Sequence[str], error: OSError) -> PartError:
    found = os_error(error)
    return found if isinstance(found, Transient) else DecoderNotStarted(f"{command[0]}: {error}")


def _refused(code: bytes, detail: bytes, seconds: float) -> Refused:
    try:
        return Refused(code=ItemCode(code.rstrip(b"\0").decode()), detail=detail.decode(), seconds=seconds)
    except ValueError as error:
        raise DecoderDied from error


def _note(text: bytes) -> str:
    """The notes of a picture. Raises DecoderDied unless they are printable ASCII, because the reply is untrusted."""
    if not (text.isascii() and text.decode("ascii", "replace").isprintable()):
        raise DecoderDied
    return text.decode()


def _close(pipes: Iterable[int]) -> None:
    for pipe in pipes:
        if pipe != _NO_PIPE:
            os.close(pipe)


def _widen(pipe: int) -> None:
    if sys.platform == "linux":
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return  # the user's limit of pipe memory is reached: the small pipe works too, with more writes
