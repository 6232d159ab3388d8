"""Decoding what strangers send, in child processes that may die of it.

A child (pipeline.decode.process) lives on from picture to picture: it takes 0.1 s to start, and a small picture 0.5 ms.
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
from pipeline.decode.wire import AS_JPEG
from pipeline.metrics import DECODER_RESTARTS
from pipeline.types import MB, ItemCode, Prepared, Refused

MAX_SECONDS = 20.0  # a picture, of CPU and by the clock: 50 million pixels of noise to PNG take 8
MAX_MEMORY = 1_500_000_000  # bytes of address space a child
MAX_RESIDENT = 300 * MB  # bytes: a child that holds more after a picture is replaced
MAX_PICTURES = 2_000  # a child: what leaks in a decoder goes with it

_COMMAND = (sys.executable, "-S", "-m", "pipeline.decode.child")


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
        self._idle = [_DecoderSlot() for _ in range(children)]
        self._waiting: deque[SimpleQueue[_DecoderSlot]] = deque()  # empty unless _idle is
        self._closed = False

    def __call__(self, pictures: Sequence[bytes]) -> Generator[Prepared | Refused]:
        """What each becomes, in their order; all in one child, which is sent the next while it decodes one. Thread-safe.

        Never raises for what is in `pictures`. Raises Transient or DecoderNotStarted if no child can be started, and RuntimeError
        after close(). A picture that ends or stalls the child costs the others time, no more.
        """
        kinds = [sniff(data) for data in pictures]
        known = [(kind, data) for kind, data in zip(kinds, pictures, strict=True) if not isinstance(kind, Refused)]
        with closing(self._outcomes(known)) as outcomes:
            for kind in kinds:
                yield kind if isinstance(kind, Refused) else next(outcomes)

    def as_jpeg(self, data: bytes) -> Prepared | Refused:
        """The picture as a JPEG of at most MAX_JPEG bytes, upright and smaller where it must be: pipeline.ports.Reencode."""
        kind = sniff(data)
        return kind if isinstance(kind, Refused) else next(self._outcomes([(f"{AS_JPEG}{kind}", data)]))

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

    def _take(self) -> _DecoderSlot:
        turn: SimpleQueue[_DecoderSlot] = SimpleQueue()
        with self._lock:
            if self._closed:
                raise RuntimeError("the decoder pool is closed")
            if self._idle:
                return self._idle.pop()  # the one last given back: warm, and the others need not start
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
        # Which of them it was that ended the child is seen when each is asked about by itself; others' pictures come between.
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
        """Asks a child, and once more a new one if a used one died: of what is left of other pictures, or killed from outside.

        So a picture is accused only by a child that had seen no other.
        """
        while True:
            unused = seat.child is None  # one that was renewed has idled since: what ended it may have been anything
            began = time.monotonic()
            try:
                [outcome] = self._ask(seat, [request])
            except TimeoutError:
                return _took_too_long(self._seconds)
            except DecoderDied as died:
                if died.status == -signal.SIGXCPU:
                    return _took_too_long(self._seconds)
                if unused:
                    kind = request[0].removeprefix(AS_JPEG)
                    return Refused(
                        code=ItemCode.IMAGE_CRASHED_DECODER,
                        detail=f"Decoding the {kind} image crashed the decoder: save it anew, as PNG or JPEG.",
                        seconds=time.monotonic() - began,
                    )
            else:
                return outcome

    def _ask(self, seat: _DecoderSlot, requests: Sequence[Request]) -> Generator[Prepared | Refused]:
        """The child's answers. Raises DecoderDied and TimeoutError. Whatever happens, what is left in the seat can be used."""
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
            if child.unanswered or child.has_said_more():  # it ended, or is in the midst of an answer nobody waits for
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
    """One of the pool's places for a child. Whoever took it uses it alone."""

    child: DecoderProcess | None = None

    def vacate(self) -> int | None:
        """Ends the child and gives the status it ended with, negative for a signal."""
        child, self.child = self.child, None
        return child.end() if child else None
