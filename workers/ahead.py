"""Stages the images of a small request before its step is claimed or meanwhile, because a caller waits for it.

The message of such a step names the scratch object that its images came in. Fetching and decoding them changes nothing that another
process could see, so it needs no lease. If the step is not claimed here, the result is thrown away.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import IO

import structlog

from pipeline import stage as staging
from pipeline.packed import PackReader
from pipeline.request.base64_text import decode_texts
from pipeline.scratch_key import is_input, owner_of
from pipeline.stage import StagedChunk
from pipeline.tracing import spans
from pipeline.tracing.spans import NOTHING
from pipeline.types import MB, Failure, Fetched
from storage.redis.messages import Message
from workers.wiring import WorkerParts

log = structlog.get_logger(__name__)

IN_MEMORY = 8 * MB  #: bytes; a larger staged object is written to disk


class Ahead:
    """What a thread of its own stages of a request's images."""

    def __init__(
        self, key: str, out: IO[bytes], staged: Future[tuple[frozenset[int], StagedChunk]], fetched: threading.Event
    ) -> None:
        self._key = key
        self._out = out
        self._staged = staged
        self._fetched = fetched

    def wait_until_fetched(self, seconds: float) -> None:
        """Waits until the images are here, at most so long."""
        self._fetched.wait(seconds)

    def of(self, key: str, indexes: Collection[int]) -> tuple[StagedChunk, IO[bytes]] | None:
        """The staged images and their object, if the input of `key` has these images. Waits for the thread.

        None if they could not be staged. The step then stages them itself, and meets what went wrong.
        """
        if key != self._key or self._staged.cancel():  # it has not begun, as all threads are busy with others
            return None
        try:
            found, chunk = self._staged.result()
        except Exception as error:  # noqa: BLE001 - the step meets it again, and raises and logs it then
            log.info("not_staged_ahead", reason=type(error).__name__)
            return None
        return (chunk, self._out) if found == frozenset(indexes) else None


@contextmanager
def stage_ahead(parts: WorkerParts, message: Message) -> Iterator[Ahead | None]:
    """Begins to stage the images that the message names. None if it names none. At the end, the staged object is closed."""
    key = message.input
    if key is None or parts.ahead is None or parts.stopping.is_set() or not is_input(key):
        yield None
        return
    out = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed below
    fetched = threading.Event()
    try:
        staged = parts.ahead.submit(_stage, parts, key, out, message.traceparent, fetched)
    except RuntimeError:  # the worker ends
        out.close()
        yield None
        return
    try:
        yield Ahead(key, out, staged, fetched)
    finally:
        staged.cancel()
        staged.add_done_callback(lambda _staged: out.close())


def _stage(
    parts: WorkerParts, key: str, out: IO[bytes], traceparent: str | None, fetched: threading.Event
) -> tuple[frozenset[int], StagedChunk]:
    span = spans.active.span("stage.ahead", "internal", {"job": owner_of(key)}, parent=traceparent) if spans.active else NOTHING
    with span, parts.scratch.open(key) as source:
        fetched.set()
        pack = PackReader(source)
        chunk = stage_images(parts, decode_texts(pack, sorted(pack.entries)), out=out, job=owner_of(key))
    return frozenset(pack.entries), chunk


def stage_images(parts: WorkerParts, received: Iterator[Fetched | Failure], *, out: IO[bytes], job: str) -> StagedChunk:
    """Decodes the images and packs them to `out`, with the decoders of this process."""
    return staging.stage(received, decode=parts.decode, out=out, executor=parts.decoding, shared=parts.shared_decodes, job=job)
