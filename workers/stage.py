"""The stage step: puts a chunk's images into one scratch object."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from time import monotonic, time_ns
from typing import IO, Any

from sqlalchemy import Row

from pipeline.errors import os_errors
from pipeline.packed import PackReader
from pipeline.ports import TotalTooLarge
from pipeline.request.base64_text import decode_texts
from pipeline.scratch_key import ScratchKey
from pipeline.stage import StagedChunk
from pipeline.tracing import spans
from pipeline.tracing.spans import span
from pipeline.types import MAX_IMAGE_BYTES, MAX_TOTAL_BYTES, MB, Failure, Fetched, ItemCode
from storage.job import chunk_work, chunks
from storage.job.chunk_work import ChunkWork
from storage.queue.steps import Lease
from workers.ahead import IN_MEMORY, Ahead, stage_images
from workers.one_lease import (
    FirstCall,
    answer_of,
    commit_begun,
    commit_whole,
    deaths_of_a_call,
    first_call,
    may_carry,
    verdict_of,
)
from workers.staged_object import StagedObject
from workers.wiring import WorkerParts
from workers.work_done import WorkDone

IN_HAND = 1 * MB  #: bytes; an object up to this size is not fetched back, because that would slow a small request


NO_URL = "This is an empty string: send the image's http or https URL."


@os_errors()  # from the temporary file behind `out`
def stage(parts: WorkerParts, lease: Lease, ahead: Ahead | None = None, found: Row[Any] | None = None) -> WorkDone:
    """Fetches or decodes the images, converts them, and puts the object. The returned commit records the outcome of each image.

    `ahead`, `found`: what was staged and read before. A small object is returned with the commit, so that the extract step need not fetch
    it back.

    A small job that somebody waits for is carried to its end here. Its object is put only if that takes more than one model call.
    """
    in_hand: StagedObject | None = None
    call: FirstCall | None = None
    began = monotonic()
    work = chunk_work.work_found(lease, found) if found else None
    if work is None:
        with parts.database.read() as connection:
            work = chunk_work.work_of(connection, lease)
    with ExitStack() as stack:
        early = ahead.of(work.input, work.pending) if ahead and lease.epoch == 1 and work.input else None
        if early:
            chunk, out = early
        else:
            out = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))
            try:
                chunk = _staged(parts, lease, work, out)
            except TotalTooLarge:
                return WorkDone(commit=partial(chunks.fail_too_large, lease=lease))
        size, seconds = out.seek(0, 2), monotonic() - began
        if may_carry(parts, lease, work, chunk, size=size, seconds=seconds):
            work = replace(work, left=work.left - seconds)
            call = first_call(parts, work, chunk, out)
            if call.settled:
                verdict = verdict_of(work, chunk, call.outcome)
                whole = partial(commit_whole, parts, lease=lease, work=work, chunk=chunk, call=call, verdict=verdict)
                return WorkDone(commit=whole, answer=answer_of(work, call, verdict))
        key = staged_key(lease) if chunk.staged else None
        if key:
            with span("scratch.put", bytes=size):
                parts.scratch.put(key, out)
            if size <= IN_HAND:
                stack.pop_all()
                in_hand = StagedObject(key=key, file=out)
    if call and key:
        begun = partial(commit_begun, parts, lease=lease, work=work, chunk=chunk, call=call, key=key)
        return WorkDone(commit=begun, in_hand=in_hand)
    staged = partial(chunks.record_staged, lease=lease, key=key, chunk=chunk, expiries=deaths_of_a_call(lease, work))
    return WorkDone(commit=staged, in_hand=in_hand)


def _staged(parts: WorkerParts, lease: Lease, work: ChunkWork, out: IO[bytes]) -> StagedChunk:
    """Stages the images of the chunk to `out`. Raises TotalTooLarge."""
    with nullcontext(_keep_turn) if work.waited else parts.staging_turns.turn(lease.account) as pass_on:
        received = _received(parts, lease, work, pass_on)
        return stage_images(parts, received if spans.active is None else _counted(received), out=out, job=lease.job)


def staged_key(lease: Lease) -> str:
    """The scratch key of the object that a stage step puts.

    The key ends in chunk and epoch, so that a worker that lost its lease can delete its own object but can't overwrite the
    winner's.
    """
    return str(ScratchKey.of_staged(lease.job, round_=lease.round, chunk=lease.part, epoch=lease.epoch))


def _counted(received: Iterator[Fetched | Failure]) -> Iterator[Fetched | Failure]:
    """Passes the images on. One span covers the time in which they came."""
    parent = spans.traceparent()  # another thread may close this generator
    began, images, failed, size = time_ns(), 0, 0, 0
    try:
        for image in received:
            images += 1
            if isinstance(image, Failure):
                failed += 1
            else:
                size += len(image.data)
            yield image
    finally:
        if spans.active is not None:
            spans.active.record("fetch", began, {"images": images, "failed": failed, "bytes": size}, parent=parent)


def _keep_turn() -> None:
    """A chunk whose caller waits needs no turn, so it has none to pass on."""


def _received(parts: WorkerParts, lease: Lease, work: ChunkWork, on_wait: Callable[[], None]) -> Iterator[Fetched | Failure]:
    """The images of the chunk. `on_wait`: called if they are slow to come."""
    if work.input is None:
        urls = {index: url for index, url in work.pending.items() if url}
        for index in work.pending.keys() - urls.keys():
            yield Failure(index=index, code=ItemCode.IMAGE_EMPTY, detail=NO_URL)
        if not urls:
            return
        # The limit leaves room for one more image, because an image may turn out too large while it is read. The commit
        # counts exactly.
        most = MAX_TOTAL_BYTES + MAX_IMAGE_BYTES
        scope = (lease.job, lease.round)
        elsewhere = parts.shared_fetches.repeated(scope, partial(_repeated, parts, work)) if work.count < work.total else ()
        fetched = parts.shared_fetches.fetch_once(
            parts.fetch, urls, scope=scope, elsewhere=elsewhere, total=most, timeout=max(work.left, 1.0)
        )
        yield from parts.lending.watched(fetched, account=lease.account, on_wait=on_wait)
        return
    with parts.scratch.open(work.input) as source:
        yield from decode_texts(PackReader(source), work.pending)


def _repeated(parts: WorkerParts, work: ChunkWork) -> frozenset[str]:
    with parts.database.read() as connection:
        return chunk_work.repeated_urls(connection, work.job)
