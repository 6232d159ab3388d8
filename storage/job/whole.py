"""The transaction of a stage step that carries its job to the end: see docs/adr/0044."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from pipeline.asking.ask import ChunkOutcome
from pipeline.finalize import Verdict
from pipeline.notes import SEPARATOR, NoteCode, warnings_of
from pipeline.stage import StagedChunk
from pipeline.types import ImageState, StepKind
from storage.job.chunks import mark_images, set_chunk
from storage.job.closing import Figures, close_job
from storage.job.locked import lock_first_round
from storage.queue import steps
from storage.queue.steps import Lease


def record_whole(
    connection: Connection,
    lease: Lease,
    *,
    chunk: StagedChunk,
    outcome: ChunkOutcome,
    verdict: Verdict,
    owner: str,
    lease_ms: int,
) -> list[int | Lease]:
    """Ends a stage step and its job. Every image of the job is of this chunk, and has its outcome in `chunk` or `outcome`.

    It writes what the stage, extract and finalize steps would have written. Returns the lease of the cleanup step, which `owner`
    holds for `lease_ms`, and the ids of the other next steps. Raises LostLease.
    """
    job, reserved = lock_first_round(connection, lease.job)
    steps.finish(connection, lease)
    _mark(connection, lease.job, chunk, outcome)
    merged = [{"indexes": list(reply.indexes), "text": reply.text} for reply in outcome.replies if reply.result is None]
    set_chunk(connection, lease, replies=merged, usage=outcome.usage.to_store(), open=False)
    said = [*warnings_of(image.note for image in chunk.staged if image.note), *warnings_of(outcome.notes.values())]
    warnings = list(dict.fromkeys([*job.warnings, *said]))
    figures = Figures(
        processed=sum(len(reply.indexes) for reply in outcome.replies),
        reserved=reserved,
        money=outcome.usage.nanodollars,
        economy_money=outcome.usage.economy_nanodollars,
    )
    cleanup = steps.add_claimed(connection, lease, kind=StepKind.CLEANUP, owner=owner, lease_ms=lease_ms)
    return [cleanup, *close_job(connection, replace(job, warnings=warnings), verdict, settled=figures)]


def _mark(connection: Connection, job: str, chunk: StagedChunk, outcome: ChunkOutcome) -> None:
    """Writes the outcome of each image."""
    notes = _notes(chunk, outcome)
    staged: dict[int, dict[str, Any]] = {
        image.index: {"sha256": image.sha256, "bytes": image.received, "note": notes.get(image.index)} for image in chunk.staged
    }
    unstaged = {"sha256": None, "note": None}
    tier = {"tier": outcome.tier.value if outcome.tier else None}
    done = [
        {"at": index, "state": ImageState.DONE.value, "result": reply.result, **tier, **staged[index]}
        for reply in outcome.replies
        for index in reply.indexes
    ]
    failed = [
        {
            "at": failure.index,
            "state": ImageState.FAILED.value,
            "code": failure.code.value,
            "detail": failure.detail,
            **staged.get(failure.index, {**unstaged, "bytes": chunk.received.get(failure.index)}),
        }
        for failure in (*chunk.failures, *outcome.failures)
    ]
    mark_images(connection, job, failed)
    mark_images(connection, job, done)


def _notes(chunk: StagedChunk, outcome: ChunkOutcome) -> dict[int, str]:
    """Image index → its notes: of its staging, then of its call. Each note once."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    said: Sequence[tuple[int, str]] = [
        *((image.index, note) for image in chunk.staged if image.note for note in image.note.split(SEPARATOR)),
        *((index, NoteCode.REENCODED.value) for index in outcome.reencoded),
        *outcome.notes.items(),
    ]
    for index, note in said:
        if note not in found[index]:
            found[index].append(note)
    return {index: SEPARATOR.join(notes) for index, notes in found.items()}
