"""Decodes the images of a chunk to a form that the model takes, and packs them into one scratch object.

Images with the same bytes are decoded and stored once in a chunk. An image that an earlier chunk of the job has decoded is
usually not decoded again. Every image has its own record nevertheless.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import IO

from pipeline.decode.once import SharedDecodes
from pipeline.packed import PackReader, PackWriter
from pipeline.ports import Decode
from pipeline.tracing import spans
from pipeline.types import MB, Failure, Fetched, ItemCode, Prepared, Refused, Staged

_TURN_BYTES = MB  # the most bytes in a batch of several images
_MOST_WAITING = 32 * MB  # from this many waiting bytes on, the thread that brings images waits


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedChunk:
    """The result for each image of a chunk."""

    staged: list[Staged] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    received: dict[int, int] = field(default_factory=dict)  #: bytes of each received image by index, decodable or not
    stored: int = 0  #: bytes of all bodies in the object: less than the sum of `staged` if some images are the same


def stage(
    received: Iterator[Fetched | Failure],
    *,
    decode: Decode,
    out: IO[bytes],
    executor: Executor,
    shared: SharedDecodes,
    job: str,
) -> StagedChunk:
    """Decodes the images that `received` yields and packs them to `out`. `shared`: the results of other chunks of the `job`.

    Decoding runs in `executor` while further images are fetched. The thread that decoded an image also writes it, so memory holds
    at most one converted image for each thread of the executor. Raises the errors of `received` and `decode`.
    """
    work = _Staging(decode, out, executor, shared, job)
    sizes: dict[int, int] = {}
    try:
        for image in received:
            if isinstance(image, Failure):
                work.fail(image)
            else:
                sizes[image.index] = len(image.data)
                work.add(image)
        work.join()
        if spans.active is not None:
            work.record(spans.active)
    except BaseException:
        work.stop()  # no thread may write to `out` after this function has ended
        raise
    return work.finish(sizes)


class _Staging:
    """The state that the threads of one chunk share. Images wait in one queue, and a batch decodes a few at a time."""

    def __init__(self, decode: Decode, out: IO[bytes], executor: Executor, shared: SharedDecodes, job: str) -> None:
        self._decode = decode
        self._shared = shared
        self._job = job
        self._executor = executor
        self._pack = PackWriter(out)
        self._lock = threading.Condition()
        self._waiting: deque[Fetched] = deque()
        self._size = 0  #: bytes of all waiting images
        self._batches: deque[Future[None]] = deque()
        self._called = False  #: a batch was submitted and has not begun: it will take from the waiting images
        self._stopped = False
        self._failed = False  #: a batch has raised or was cancelled
        self._staged: list[Staged] = []
        self._failures: list[Failure] = []
        self._began = 0  #: nanoseconds since 1970: when the first batch began; 0: none has, or tracing is off
        self._decoded, self._seconds = 0, 0.0  #: images that a decoder was given, and how long the decoders took for them
        #: by SHA-256: the result, or the indexes of the images that wait for it
        self._known: dict[str, Staged | Refused | list[int]] = {}

    def fail(self, failure: Failure) -> None:
        with self._lock:
            self._failures.append(failure)

    def add(self, image: Fetched) -> None:
        """Queues an image. It first waits until the queue is below _MOST_WAITING, so that fetching does not fill the memory."""
        if not image.data:
            detail = "There are no bytes in this image."
            self.fail(Failure(index=image.index, code=ItemCode.IMAGE_EMPTY, detail=detail))
            return
        with self._lock:
            self._lock.wait_for(lambda: self._failed or self._size < _MOST_WAITING)
            if not self._failed:
                self._waiting.append(image)
                self._size += len(image.data)
                self._call()
                return
        self.join()

    def join(self) -> None:
        """Waits until all images are settled. Raises the error of a batch."""
        while self._batches:  # a batch submits the next one before it ends
            self._batches[0].result()
            self._batches.popleft()

    def stop(self) -> None:
        """Cancels the batches that have not begun and waits for the others. No batch runs afterwards."""
        with self._lock:
            self._stopped = True
        wait([batch for batch in self._batches if not batch.cancel()])
        # A failed batch and this object refer to each other through the traceback. Clearing frees the memory at once.
        self._batches.clear()
        self._waiting.clear()

    def _call(self) -> None:
        if self._waiting and not self._called and not self._stopped:
            batch = self._executor.submit(self._decode_batch)
            self._called = True
            self._batches.append(batch)
            batch.add_done_callback(self._notice)

    def _notice(self, batch: Future[None]) -> None:
        if batch.cancelled() or batch.exception() is not None:
            with self._lock:
                self._failed = True
                self._lock.notify()

    def record(self, tracer: spans.Tracer) -> None:
        """Records one span for the decoding of the chunk, which took place while images came."""
        if self._began:
            tracer.record("decode", self._began, {"images": self._decoded, "decode_seconds": round(self._seconds, 6)})

    def _decode_batch(self) -> None:
        if spans.active is not None:
            self._began = self._began or time.time_ns()
        most = self._shared.batch_size(self._job)
        with self._lock:
            self._called = False
            images = self._next(most)
            self._call()  # so that a free thread takes the next images
        self._prepare(images)

    def _next(self, most: int) -> list[Fetched]:
        images: list[Fetched] = []
        size = 0
        while self._waiting and len(images) < most and (not images or size + len(self._waiting[0].data) <= _TURN_BYTES):
            images.append(self._waiting.popleft())
            size += len(images[-1].data)
        self._size -= size
        self._lock.notify()
        return images

    def _prepare(self, images: list[Fetched]) -> None:
        fresh: list[tuple[Fetched, str]] = []
        for image in images:
            digest = hashlib.sha256(image.data).hexdigest()
            with self._lock:
                known = self._known.setdefault(digest, [])
                if not isinstance(known, list):
                    self._settle(image.index, known)
                    continue
                known.append(image.index)
                if len(known) > 1:  # this thread or another is decoding the same bytes
                    continue
            if (became := self._shared.find(self._job, digest, image.data)) is None:
                fresh.append((image, digest))
            else:
                self._record(image, digest, became)
        seconds = 0.0
        # Closing returns the decoder to the pool at once. Without it, a stored traceback would keep the decoder in use.
        with closing(self._decode([image.data for image, _ in fresh])) as outcomes:
            for (image, digest), outcome in zip(fresh, outcomes, strict=True):
                if self._stopped:
                    return
                seconds += outcome.seconds
                if isinstance(outcome, Prepared):
                    self._shared.keep(self._job, digest, image.data, outcome)
                self._record(image, digest, outcome)
        if fresh:
            self._shared.took(self._job, len(images), seconds)
            with self._lock:
                self._decoded += len(fresh)
                self._seconds += seconds

    def _record(self, image: Fetched, digest: str, outcome: Prepared | Refused) -> None:
        """Stores the result of an image and settles all images with the same bytes."""
        with self._lock:
            became = outcome if isinstance(outcome, Refused) else self._store(image, digest, outcome)
            waiting, self._known[digest] = self._known[digest], became
            assert isinstance(waiting, list)
            for index in waiting:
                self._settle(index, became)

    def _store(self, image: Fetched, digest: str, prepared: Prepared) -> Staged:
        staged = Staged(
            index=image.index,
            mime=prepared.mime,
            size=len(prepared.data),
            received=len(image.data),
            sha256=digest,
            width=prepared.width,
            height=prepared.height,
            note=prepared.note,
        )
        self._pack.add(
            staged.index,
            prepared.data,
            mime=staged.mime,
            received=staged.received,
            sha256=staged.sha256,
            width=staged.width,
            height=staged.height,
            **({"note": staged.note} if staged.note else {}),
        )
        return staged

    def _settle(self, index: int, became: Staged | Refused) -> None:
        if isinstance(became, Refused):
            self._failures.append(Failure(index=index, code=became.code, detail=became.detail))
            return
        if index != became.index:
            self._pack.add_again(index, became.index)
            became = replace(became, index=index)
        self._staged.append(became)

    def finish(self, received: dict[int, int]) -> StagedChunk:
        self._pack.finish()
        return StagedChunk(
            staged=sorted(self._staged, key=lambda image: image.index),
            failures=sorted(self._failures, key=lambda failure: failure.index),
            received=received,
            stored=self._pack.size,
        )


def staged_in(pack: PackReader) -> list[Staged]:
    """The images in a staged chunk's object, in order of their indexes."""
    return [Staged(index=index, size=entry.size, **entry.facts) for index, entry in sorted(pack.entries.items())]
