"""A cache of decoded images that the chunks of a job share in one process.

If a job has an image several times, the process decodes it once and reuses the result in later chunks. The chunks also share the
batch size, which is the number of images that a decoder gets at a time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from pipeline.types import MB, Prepared

_MOST = 10_000  # images
_MOST_BYTES = 16 * MB  # of converted images
_MOST_JOBS = 1_000
_BATCH_SECONDS = 0.1  # a batch should hold a decoder no longer, so that images of other chunks get their turn
_MOST_A_BATCH = 25  # images


class SharedDecodes:
    """Recent results of this process by job and SHA-256, and the batch size of each job. Thread-safe.

    Refusals are not kept, because a decoder that was too slow or died may succeed at the next attempt.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The result used last stands at the end. An image that stays as received is kept without its bytes: the caller has them.
        self._known: OrderedDict[tuple[str, str], Prepared] = OrderedDict()
        self._kept = 0  # bytes
        self._batch_sizes: OrderedDict[str, int] = OrderedDict()  # images, by job; the job updated last is at the end

    def find(self, job: str, sha256: str, data: bytes) -> Prepared | None:
        """The result for `data` in the same job; None if it is not known. `sha256`: the hash of `data`."""
        with self._lock:
            found = self._known.get((job, sha256))
            if found is not None:
                self._known.move_to_end((job, sha256))
        return replace(found, data=data) if found and not found.data else found

    def keep(self, job: str, sha256: str, data: bytes, became: Prepared) -> None:
        """Stores the result for `data`. `sha256`: the hash of `data`."""
        if became.data is data:
            became = replace(became, data=b"")
        with self._lock:
            before = self._known.pop((job, sha256), None)
            self._kept += len(became.data) - (len(before.data) if before else 0)
            self._known[job, sha256] = became
            while len(self._known) > _MOST or self._kept > _MOST_BYTES:
                self._kept -= len(self._known.popitem(last=False)[1].data)

    def batch_size(self, job: str) -> int:
        """How many images of the job to decode together: about as many as take _BATCH_SECONDS, judged by earlier batches.

        So a thread does not wait for every small image, and large images are spread over all decoders.
        """
        with self._lock:
            return self._batch_sizes.get(job, 1)

    def took(self, job: str, images: int, seconds: float) -> None:
        """Adapts the job's batch size. A batch of `images` images used a decoder for `seconds`, without the wait for it."""
        with self._lock:
            most = self._batch_sizes.pop(job, 1)
            if seconds > _BATCH_SECONDS:
                most = min(most, max(images // 2, 1))  # a slow old batch must not raise the size
            elif images == most and 2 * seconds < _BATCH_SECONDS:
                most = min(2 * images, _MOST_A_BATCH)
            self._batch_sizes[job] = most
            if len(self._batch_sizes) > _MOST_JOBS:
                self._batch_sizes.popitem(last=False)
