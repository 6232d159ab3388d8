"""From what was sent to images the model can take, in one scratch object.

Images of a chunk whose bytes are the same are decoded and stored once. Each has its own record all the same.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field, replace
from typing import IO

from pipeline.packed import PackReader, PackWriter
from pipeline.ports import Decode
from pipeline.types import Failure, Fetched, ItemCode, Prepared, Refused, Staged


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedChunk:
    """What became of each image of a chunk."""

    staged: list[Staged] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    received: dict[int, int] = field(default_factory=dict)  #: bytes of each image that came, by index, decodable or not
    stored: int = 0  #: bytes of all bodies in the object: less than the sum of `staged` where images are the same


def stage(received: Iterator[Fetched | Failure], *, decode: Decode, out: IO[bytes], executor: Executor) -> StagedChunk:
    """Decodes what `received` yields and packs it to `out`.

    Decoding runs in `executor` beside the fetching, and each image is written by the thread that decoded it: so no more
    converted images are in memory than the executor has threads. Raises what `received` raises.
    """
    work = _Staging(decode, out)
    running: list[Future[None]] = []
    sizes: dict[int, int] = {}
    try:
        for image in received:
            if isinstance(image, Failure):
                work.fail(image)
            else:
                sizes[image.index] = len(image.data)
                running.append(executor.submit(work.prepare, image))
        for future in running:
            future.result()
    except BaseException:
        for future in running:
            future.cancel()
        wait(running)  # none may write to `out` after it is the caller's again
        raise
    return work.finish(sizes)


class _Staging:
    """What the threads that stage one chunk share."""

    def __init__(self, decode: Decode, out: IO[bytes]) -> None:
        self._decode = decode
        self._pack = PackWriter(out)
        self._lock = threading.Lock()
        self._staged: list[Staged] = []
        self._failures: list[Failure] = []
        #: by SHA-256: what the picture became, or the indexes that wait for whoever decodes it
        self._known: dict[str, Staged | Refused | list[int]] = {}

    def fail(self, failure: Failure) -> None:
        with self._lock:
            self._failures.append(failure)

    def prepare(self, image: Fetched) -> None:
        if not image.data:
            detail = "There are no bytes in this image."
            self.fail(Failure(index=image.index, code=ItemCode.IMAGE_EMPTY, detail=detail))
            return
        digest = hashlib.sha256(image.data).hexdigest()
        with self._lock:
            known = self._known.setdefault(digest, [])
            if isinstance(known, list):
                known.append(image.index)
                if len(known) > 1:  # another thread is at it
                    return
            else:
                self._settle(image.index, known)
                return
        outcome = self._decode(image.data)
        with self._lock:
            became = outcome if isinstance(outcome, Refused) else self._store(image, digest, outcome)
            self._known[digest] = became
            for index in known:
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
        )
        self._pack.add(
            staged.index,
            prepared.data,
            mime=staged.mime,
            received=staged.received,
            sha256=staged.sha256,
            width=staged.width,
            height=staged.height,
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
    """The images of a staged chunk's object, in order."""
    return [Staged(index=index, size=entry.size, **entry.facts) for index, entry in sorted(pack.entries.items())]
