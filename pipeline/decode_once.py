"""An image that a job has several times is decoded once in its chunk, and not again for the chunks a process stages later."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from pipeline.types import MB, Prepared

_MOST = 10_000  # images
_MOST_BYTES = 16 * MB  # of those that were converted


class SharedDecodes:
    """What the images became that this process has decoded lately, by job and SHA-256. Thread-safe.

    Refusals are not kept: a decoder that was too slow or died may do better when the image is tried again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The one asked for last at the end. Bytes that stayed as they came are not kept: who asks has them.
        self._known: OrderedDict[tuple[str, str], Prepared] = OrderedDict()
        self._kept = 0  # bytes

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
