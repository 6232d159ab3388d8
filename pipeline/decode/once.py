"""What the chunks that a process stages tell each other of their job's images.

An image that a job has several times is decoded once in its chunk, and not again for the chunks the process stages later. And
how many images a decoder is sent at a time is learnt once for each job.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from pipeline.types import MB, Prepared

_MOST = 10_000  # images
_MOST_BYTES = 16 * MB  # of those that were converted
_MOST_JOBS = 1_000
_BATCH_SECONDS = 0.1  # of decoding in one thread before others' images have their turn
_MOST_A_BATCH = 25  # images


class SharedDecodes:
    """What the images became that this process has decoded lately, by job and SHA-256, and how quick it was. Thread-safe.

    Refusals are not kept: a decoder that was too slow or died may do better when the image is tried again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The one asked for last at the end. Bytes that stayed as they came are not kept: who asks has them.
        self._known: OrderedDict[tuple[str, str], Prepared] = OrderedDict()
        self._kept = 0  # bytes
        self._batch_sizes: OrderedDict[str, int] = OrderedDict()  # images, by job; the one that was learnt of last at the end

    def find(self, job: str, sha256: str, data: bytes) -> Prepared | None:
        """What `data`, of that SHA-256, became in the same job; None if that is not known."""
        with self._lock:
            found = self._known.get((job, sha256))
            if found is not None:
                self._known.move_to_end((job, sha256))
        return replace(found, data=data) if found and not found.data else found

    def keep(self, job: str, sha256: str, data: bytes, became: Prepared) -> None:
        """Notes what `data`, of that SHA-256, became."""
        if became.data is data:
            became = replace(became, data=b"")
        with self._lock:
            before = self._known.pop((job, sha256), None)
            self._kept += len(became.data) - (len(before.data) if before else 0)
            self._known[job, sha256] = became
            while len(self._known) > _MOST or self._kept > _MOST_BYTES:
                self._kept -= len(self._known.popitem(last=False)[1].data)

    def batch_size(self, job: str) -> int:
        """How many images of the job are to be decoded together: as many as take _BATCH_SECONDS, going by those before.

        So small ones cost no thread a wait each, and large ones are spread over all decoders.
        """
        with self._lock:
            return self._batch_sizes.get(job, 1)

    def took(self, job: str, images: int, seconds: float) -> None:
        """Notes for how long so many images of the job, decoded together, held a decoder; not how long they waited for one."""
        with self._lock:
            most = self._batch_sizes.pop(job, 1)
            if seconds > _BATCH_SECONDS:
                most = min(most, max(images // 2, 1))  # a batch that began long ago raises nothing
            elif images == most and 2 * seconds < _BATCH_SECONDS:
                most = min(2 * images, _MOST_A_BATCH)
            self._batch_sizes[job] = most
            if len(self._batch_sizes) > _MOST_JOBS:
                self._batch_sizes.popitem(last=False)
