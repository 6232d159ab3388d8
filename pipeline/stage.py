"""From what was sent to images the model can take, in one scratch object."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from typing import IO

from pipeline.packed import PackReader, PackWriter
from pipeline.ports import Decode
from pipeline.types import Failure, Fetched, ItemCode, Refused, Staged


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedChunk:
    """What became of each image of a chunk."""

    staged: list[Staged] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    received: dict[int, int] = field(default_factory=dict)  #: bytes of each image that came, by index, decodable or not


def stage(received: Iterator[Fetched | Failure], *, decode: Decode, out: IO[bytes], executor: Executor) -> StagedChunk:
    """Decodes what `received` yields and packs it to `out`.

    Decoding runs in `executor` beside the fetching, and each image is written by the thread that decoded it: so no more
    converted images are in memory than the executor has threads. Raises what `received` raises.
    """
    chunk = StagedChunk()
    pack = PackWriter(out)
    lock = threading.Lock()

    def prepare(image: Fetched) -> None:
        outcome = _decode(image, decode)
        with lock:
            if isinstance(outcome, Failure):
                chunk.failures.append(outcome)
            else:
                staged, data = outcome
                pack.add(
                    staged.index,
                    data,
                    mime=staged.mime,
                    received=staged.received,
                    sha256=staged.sha256,
                    width=staged.width,
                    height=staged.height,
                )
                chunk.staged.append(staged)

    running: list[Future[None]] = []
    try:
        for image in received:
            if isinstance(image, Failure):
                with lock:
                    chunk.failures.append(image)
            else:
                chunk.received[image.index] = len(image.data)
                running.append(executor.submit(prepare, image))
        for future in running:
            future.result()
    except BaseException:
        for future in running:
            future.cancel()
        wait(running)  # none may write to `out` after it is the caller's again
        raise
    pack.finish()
    chunk.staged.sort(key=lambda image: image.index)
    chunk.failures.sort(key=lambda failure: failure.index)
    return chunk


def _decode(image: Fetched, decode: Decode) -> tuple[Staged, bytes] | Failure:
    if not image.data:
        return Failure(index=image.index, code=ItemCode.IMAGE_EMPTY, detail="There are no bytes in this image.")
    prepared = decode(image.data)
    if isinstance(prepared, Refused):
        return Failure(index=image.index, code=prepared.code, detail=prepared.detail)
    staged = Staged(
        index=image.index,
        mime=prepared.mime,
        size=len(prepared.data),
        received=len(image.data),
        sha256=hashlib.sha256(image.data).hexdigest(),
        width=prepared.width,
        height=prepared.height,
    )
    return staged, prepared.data


def staged_in(pack: PackReader) -> list[Staged]:
    """The images of a staged chunk's object, in order."""
    return [Staged(index=index, size=entry.size, **entry.facts) for index, entry in sorted(pack.entries.items())]
