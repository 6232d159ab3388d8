"""A pool of child processes that decode untrusted pictures, so that a crash ends a child and not the worker.

A child (pipeline.decode.process) decodes many pictures, because its start takes 0.1 s and a small picture 0.5 ms.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from pipeline.decode.process import DecoderDied, DecoderProcess, Request
from pipeline.decode.sniff import sniff
from pipeline.decode.wire import AS_JPEG, as_preview, format_of
from pipeline.metrics import DECODER_RESTARTS
from pipeline.types import MB, ItemCode, Prepared, Refused

MAX_SECONDS = 20.0  # for one picture, of CPU time and by the clock; 50 million pixels of noise take 8 s to become a PNG
MAX_MEMORY = 1_500_000_000  # bytes of address space for each child
MAX_RESIDENT = 300 * MB  # bytes: a decoder that holds more memory after a picture is replaced
MAX_PICTURES = 2_000  # pictures before a decoder is replaced, which frees memory that its libraries leak

_COMMAND = (sys.executable, "-S", "-m", "pipeline.decode.child")


class DecoderPool:
    """Decodes in child processes, each started when it is first needed. Implements pipeline.ports.Decode.

    `children`: how many run at once; one for each core by default. `seconds`: the limit for one picture, of CPU time (rounded to
    whole seconds, at least 1) and by the clock; the wait for a free child does not count. `memory`: bytes of address space for
    each child. `resident` and `pictures`: the limits after which a decoder is replaced. `command`: starts something else
    than pipeline.decode.child; `<seconds> <memory>` is appended. Callers that wait for a child are served in the order they
    came. A process that forks must not use the same pool on both sides.
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
        self._idle = [_DecoderSlot() for _ in range(children)]
        self._waiting: deque[SimpleQueue[_DecoderSlot]] = deque()  # callers wait only while _idle is empty
        self._closed = False

    def __call__(self, pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
        """Decodes `pictures` in one child and yields the results in order. Thread-safe.

        The child gets the next picture while it decodes one. The contents of `pictures` never raise an error. Raises Transient or
        DecoderNotStarted if no child can be started, and RuntimeError after close(). A picture that ends or stalls the child
        delays the others, but their results stay the same.
        """
        kinds = [sniff(data) for data in pictures]
        known = [(kind, data) for kind, data in zip(kinds, pictures, strict=True) if not isinstance(kind, Refused)]
        with closing(self._outcomes(known)) as outcomes:
            for kind in kinds:
                yield kind if isinstance(kind, Refused) else next(outcomes)

    def as_jpeg(self, data: bytes) -> Prepared | Refused:
        """The picture as an upright JPEG of at most MAX_JPEG bytes, scaled down if needed. Implements pipeline.ports.Reencode."""
        kind = sniff(data)
        return kind if isinstance(kind, Refused) else next(self._outcomes([(f"{AS_JPEG}{kind}", data)]))

    def preview(self, data: bytes, *, width: int) -> Prepared | Refused:
        """The picture as an upright JPEG of at most `width` pixels across. Implements pipeline.ports.Preview."""
        kind = sniff(data)
        return kind if isinstance(kind, Refused) else next(self._outcomes([(as_preview(kind, width), data)]))

    def end_idle(self) -> None:
        """Ends the children that nobody uses now. The next picture starts a new one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for seat in idle:
            seat.vacate()
            self._give(seat)

    def close(self) -> None:
        """Ends idle children now, and the others after every caller that already waits has its result."""
        with self._lock:
            self._closed = True
            idle = list(self._idle)
        for seat in idle:
            seat.vacate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take(self) -> _DecoderSlot:
        turn: SimpleQueue[_DecoderSlot] = SimpleQueue()
        with self._lock:
            if self._closed:
                raise RuntimeError("the decoder pool is closed")
            if self._idle:
                return self._idle.pop()  # the slot used last, because its child is running already
            self._waiting.append(turn)
        try:
            return turn.get()
        except BaseException:  # an interrupt: a slot that was handed to this caller must go back to the pool
            with self._lock:
                waiting = turn in self._waiting
                if waiting:
                    self._waiting.remove(turn)
            if not waiting:
                self._give(turn.get())
            raise

    def _give(self, seat: _DecoderSlot) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(seat)
                return
            self._idle.append(seat)
            closed = self._closed
        if closed:
            seat.vacate()

    def _outcomes(self, requests: Sequence[Request]) -> Generator[Prepared | Refused]:
        done = 0
        if len(requests) > 1:
            with suppress(DecoderDied, TimeoutError), self._seat() as seat, closing(self._ask(seat, requests)) as outcomes:
                for outcome in outcomes:
                    done += 1
                    yield outcome
        # Each remaining picture is sent alone, which shows the one that ended the child. Other callers may use the slot between.
        for request in requests[done:]:
            with self._seat() as seat:
                outcome = self._decode(seat, request)
            yield outcome

    @contextmanager
    def _seat(self) -> Iterator[_DecoderSlot]:
        seat = self._take()
        try:
            yield seat
        finally:
            self._give(seat)

    def _decode(self, seat: _DecoderSlot, request: Request) -> Prepared | Refused:
        """Decodes one picture, and repeats it in a new child if a used child died.

        An earlier picture may have damaged a used child, or another process may have killed it. So the picture is blamed for a
        crash only if a new child died. Nothing in a picture sends SIGKILL, but the system sends it to make room in memory, so a
        new child that ended by it is replaced once more.
        """
        began = time.monotonic()
        killed = False
        while True:
            unused = seat.child is None  # a renewed child counts as used, because it may have died while it was idle
            try:
                [outcome] = self._ask(seat, [request])
            except TimeoutError:
                return _took_too_long(self._seconds)
            except DecoderDied as died:
                if died.status == -signal.SIGXCPU:
                    return _took_too_long(self._seconds)
                if unused and died.status == -signal.SIGKILL and not killed:
                    killed = True
                elif unused:
                    kind = format_of(request[0])
                    return Refused(
                        code=ItemCode.IMAGE_CRASHED_DECODER,
                        detail=f"Decoding the {kind} image crashed the decoder: save it anew, as PNG or JPEG.",
                        seconds=time.monotonic() - began,
                    )
            else:
                return outcome

    def _ask(self, seat: _DecoderSlot, requests: Sequence[Request]) -> Generator[Prepared | Refused]:
        """Yields the child's replies. Raises DecoderDied and TimeoutError. The seat is empty or has a usable child afterwards."""
        child = seat.child = seat.child or DecoderProcess(self._command)
        try:
            yield from child.ask(requests, seconds=self._seconds)
        except TimeoutError:
            DECODER_RESTARTS.add(reason="late")
            raise
        except DecoderDied as died:
            DECODER_RESTARTS.add(reason="died")
            died.status = seat.vacate()
            raise
        finally:
            if child.unanswered or child.has_said_more():  # it ended, or still writes an unwanted reply
                seat.vacate()
            elif child.pictures >= self._pictures or child.resident > self._resident:
                DECODER_RESTARTS.add(reason="recycled")
                if not child.renew():
                    seat.vacate()


def _took_too_long(seconds: float) -> Refused:
    return Refused(
        code=ItemCode.IMAGE_TOO_COMPLEX,
        detail=f"The image takes longer than {seconds:g} s to decode: send it smaller or saved anew.",
        seconds=seconds,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@dataclass(slots=True)
class _DecoderSlot:
    """One of the pool's places for a child. Only one caller uses it at a time."""

    child: DecoderProcess | None = None

    def vacate(self) -> int | None:
        """Ends the child, if there is one, and gives its exit status, negative for a signal."""
        child, self.child = self.child, None
        return child.end() if child else None
