"""Transactions of stage and extract steps: the results that a step writes. What it reads is in storage/job/chunk_work.py.

Each function does all writes of its transaction. It locks the job's row before it changes the job, and it writes
only while the step's lease is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Update,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from pipeline.asking.ask import ChunkOutcome
from pipeline.finalize import Verdict
from pipeline.notes import SEPARATOR, NoteCode, warnings_of
from pipeline.stage import StagedChunk
from pipeline.types import (
    MAX_TOTAL_BYTES,
    MB,
    Failure,
    ImageState,
    ItemCode,
    JobStatus,
    StepKind,
    StepState,
    Tier,
    Usage,
)
from storage.job import money, totals
from storage.job.chunk_work import pending_images
from storage.job.closing import close_job, fail_open_images, finalize_next
from storage.job.locked import LockedJob, lock_job
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import chunks_table, images_table, jobs_table

MOST_DEATHS = 2  #: an image fails after this number of processes died while they worked on it alone

TOO_LARGE = Verdict(
    status=JobStatus.FAILED,
    result=None,
    error=("total_too_large", f"The images are over {MAX_TOTAL_BYTES // MB} MB in total; send fewer at once."),
)


def record_staged(connection: Connection, lease: Lease, *, key: str | None, chunk: StagedChunk, expiries: int = 0) -> list[int]:
    """Ends a stage step. Its images are staged in the scratch object `key`, or have failed.

    `expiries`: leases of the stage step whose holder may have died of a model call. They count as leases of the extract step.

    Returns the ids of the next steps. Raises LostLease.
    """
    follow = _record_staged(connection, lease, key=key, chunk=chunk, expiries=expiries)
    totals.count_scratch(connection, lease.job, chunk.stored)
    return follow


def record_begun(connection: Connection, lease: Lease, *, key: str, chunk: StagedChunk, outcome: ChunkOutcome) -> list[int]:
    """Ends a stage step whose thread has made the chunk's first call already, and stores what the call settled.

    Some images have no outcome yet. Returns the id of the extract step that goes on with them. Raises LostLease.
    """
    follow = _record_staged(connection, lease, key=key, chunk=chunk)
    # The job is locked by this transaction. It is read again, because its warnings may have changed.
    _store_outcome(connection, lease, outcome, job=lock_job(connection, lease.job), last=False)
    totals.count_scratch(connection, lease.job, chunk.stored)
    return follow


def _record_staged(connection: Connection, lease: Lease, *, key: str | None, chunk: StagedChunk, expiries: int = 0) -> list[int]:
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease)
    _mark_failed(connection, lease.job, chunk.failures, received=chunk.received)
    mark_images(
        connection,
        lease.job,
        [
            {"at": image.index, "state": ImageState.STAGED.value, "sha256": image.sha256, "bytes": image.received}
            for image in chunk.staged
        ],
    )
    noted = [image for image in chunk.staged if image.note]
    mark_images(connection, lease.job, [{"at": image.index, "note": image.note} for image in noted])
    _add_warnings(connection, job, warnings_of(image.note for image in noted))
    if (connection.scalar(_stored(), {"of": lease.job, "more": chunk.stored}) or 0) > MAX_TOTAL_BYTES:
        return close_job(connection, job, TOO_LARGE)
    set_chunk(connection, lease, object=key)
    if not chunk.staged:
        return close_chunk(connection, job, lease)
    kind, part = StepKind.EXTRACT, lease.part
    following = steps.add(connection, job=lease.job, round_=lease.round, kind=kind, parts=[part], expiries=expiries)
    return [] if job.tier is Tier.ECONOMY else following  # a slow step is for the threads of slow steps


@cache
def _stored() -> ReturningUpdate[Any]:
    """Adds `more` to the job's bytes in scratch. Returns the sum of the received bytes of the job's images."""
    received = select(func.sum(images_table.c.bytes)).where(images_table.c.job == bindparam("of")).scalar_subquery()
    more = jobs_table.c.scratch_bytes + bindparam("more", type_=BigInteger)
    return update(jobs_table).where(jobs_table.c.id == bindparam("of")).values(scratch_bytes=more).returning(received)


def fail_too_large(connection: Connection, lease: Lease) -> list[int]:
    """Ends a stage step whose own images exceed the job's limit of bytes, and fails the job.

    Returns the ids of the next steps. Raises LostLease.
    """
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease)
    return close_job(connection, job, TOO_LARGE)


def record_outcome(
    connection: Connection, lease: Lease, outcome: ChunkOutcome, *, last: bool, limited: bool = False
) -> list[int]:
    """Stores the outcome of one model call. `last`: every image of the chunk has an outcome now, so the step ends.

    `limited`: the job has a limit of money, towards which the call's cost counts.

    Returns the ids of the next steps. Raises LostLease.
    """
    job = lock_job(connection, lease.job) if last or outcome.notes else None
    if limited:
        money.spend(connection, lease, outcome.usage.nanodollars)
    if last:
        steps.finish(connection, lease)
    else:
        steps.check(connection, lease)
    _store_outcome(connection, lease, outcome, job=job, last=last)
    if not last or job is None:
        return []
    if _has_records(connection, job, lease):
        set_chunk(connection, lease, open=True)
        return _ground_next(connection, lease)
    return _after_chunk(connection, job)


def _store_outcome(connection: Connection, lease: Lease, outcome: ChunkOutcome, *, job: LockedJob | None, last: bool) -> None:
    """Stores the outcome of one model call. `job`: locked, if the outcome has notes."""
    _mark_failed(connection, lease.job, outcome.failures)
    _add_note(connection, lease.job, NoteCode.REENCODED.value, outcome.reencoded)
    for index, note in outcome.notes.items():
        _add_note(connection, lease.job, note, [index])
    if job is not None:
        _add_warnings(connection, job, warnings_of(outcome.notes.values()))
    mark_images(
        connection,
        lease.job,
        [
            {
                "at": index,
                "state": ImageState.DONE.value,
                "result": reply.result,
                "tier": outcome.tier.value if outcome.tier else None,
            }
            for reply in outcome.replies
            for index in reply.indexes
        ],
    )
    row = connection.execute(_answered(), {"job": lease.job, "no": lease.part}).one()
    merged = [{"indexes": list(reply.indexes), "text": reply.text} for reply in outcome.replies if reply.result is None]
    usage = Usage.stored(row.usage).plus(outcome.usage)
    kept = {"replies": [*row.replies, *merged], "usage": usage.to_store(), "progress": outcome.progress, "open": not last}
    set_chunk(connection, lease, **kept)


@cache
def _answered() -> Select[Any]:
    return select(chunks_table.c.replies, chunks_table.c.usage).where(
        chunks_table.c.job == bindparam("job"), chunks_table.c.no == bindparam("no")
    )


def record_dead(connection: Connection, lease: Lease, detail: str) -> list[int]:
    """Gives up a stage or extract step. The chunk's images that have no outcome yet fail.

    Returns the ids of the next steps. Raises LostLease.
    """
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease, state=StepState.DEAD)
    columns = chunks_table.c
    of_chunk = columns.job == lease.job, columns.no == lease.part
    chunk = connection.execute(select(columns.first, columns.count.label("size")).where(*of_chunk)).one()
    fail_open_images(connection, lease.job, ItemCode.INTERNAL_ERROR, detail, between=(chunk.first, chunk.first + chunk.size - 1))
    return _ground_or_close(connection, job, lease)


def record_death(connection: Connection, lease: Lease) -> list[int]:
    """Handles the death of a process that ran only this stage or extract step.

    A chunk with several open images is split in two, and each half runs in its own process. A single image fails at the second
    death, because the first death may have had another cause.

    Returns the ids of the next steps. Raises LostLease.
    """
    job = lock_job(connection, lease.job)
    deaths = steps.count_death(connection, lease)
    chunk = _chunk_of(connection, lease)
    rows = connection.execute(pending_images(), {"job": lease.job, "least": chunk.first, "most": chunk.last})
    pending = sorted(row.at for row in rows)
    if len(pending) > 1:
        return _split_chunk(connection, lease, chunk, middle=pending[len(pending) // 2])
    if pending and deaths < MOST_DEATHS:
        steps.hand_back(connection, lease, delay_ms=0, counts=False)
        return []
    steps.finish(connection, lease, state=StepState.DEAD)
    detail = "A worker died of this image, twice, with nothing else to do: save it anew, as PNG or JPEG."
    fail_open_images(connection, lease.job, ItemCode.WORKER_CRASHED, detail, between=(chunk.first, chunk.last))
    return _ground_or_close(connection, job, lease)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ChunkRow:
    """The columns of a chunk that are needed to split its step."""

    first: int  #: index of its first image
    last: int  #: index of its last image
    input: str | None  #: scratch key of its base64 texts
    object: str | None  #: scratch key of its staged images
    progress: dict[str, Any] | None  #: progress of the extract step


def _chunk_of(connection: Connection, lease: Lease) -> _ChunkRow:
    columns = chunks_table.c
    query = select(
        columns.first, (columns.first + columns.count - 1).label("last"), columns.input, columns.object, columns.progress
    ).where(columns.job == lease.job, columns.no == lease.part)
    return _ChunkRow(**connection.execute(query).mappings().one())


def _split_chunk(connection: Connection, lease: Lease, chunk: _ChunkRow, *, middle: int) -> list[int]:
    """Replaces the lease's chunk with two new ones that use the same scratch objects. The second one starts at image `middle`.

    Returns the ids of their steps. Raises LostLease.
    """
    steps.finish(connection, lease, state=StepState.SPLIT)
    set_chunk(connection, lease, open=False)  # the old chunk keeps the replies it already has
    fresh = 1 + (connection.scalar(select(func.max(chunks_table.c.no)).where(chunks_table.c.job == lease.job)) or 0)
    end = chunk.last + 1
    same = {"job": lease.job, "open": True, "replies": [], "usage": {}}
    same |= {"input": chunk.input, "object": chunk.object, "progress": chunk.progress}
    halves = [(fresh, chunk.first, middle - chunk.first), (fresh + 1, middle, end - middle)]
    connection.execute(insert(chunks_table), [{**same, "no": no, "first": first, "count": count} for no, first, count in halves])
    return steps.add(
        connection, job=lease.job, round_=lease.round, kind=lease.kind, parts=[fresh, fresh + 1], expiries=steps.ALONE_AFTER
    )


def add_warning(connection: Connection, job: str, warning: str) -> None:
    """Adds a warning to the job, unless the job has it already."""
    _add_warnings(connection, lock_job(connection, job), [warning])


def _add_warnings(connection: Connection, job: LockedJob, warnings: Sequence[str]) -> None:
    """Adds those warnings that the job does not have yet. The caller has locked the job."""
    fresh = [warning for warning in warnings if warning not in job.warnings]
    if fresh:
        connection.execute(update(jobs_table).where(jobs_table.c.id == job.id).values(warnings=[*job.warnings, *fresh]))


def _add_note(connection: Connection, job: str, note: str, indexes: Sequence[int]) -> None:
    """Appends a note to the notes of images, unless an image already has it."""
    columns = images_table.c
    for index in indexes:
        image = (columns.job == job, columns.index == index)
        before = connection.scalar(select(columns.note).where(*image)) or ""
        if note not in before.split(SEPARATOR):
            connection.execute(update(images_table).where(*image).values(note=SEPARATOR.join(filter(None, (before, note)))))


def set_chunk(connection: Connection, lease: Lease, **values: Any) -> None:
    """Sets columns of the lease's chunk. The caller has checked the lease."""
    connection.execute(_setting(tuple(values)), {"of": lease.job, "part": lease.part, **values})


@cache
def _setting(names: tuple[str, ...]) -> Update:
    columns: dict[str, Any] = {name: bindparam(name) for name in names}
    return (
        update(chunks_table)
        .where(chunks_table.c.job == bindparam("of"), chunks_table.c.no == bindparam("part"))
        .values(**columns)
    )


def _ground_or_close(connection: Connection, job: LockedJob, lease: Lease) -> list[int]:
    """Has the chunk's records looked for in their pictures, if the job has evidence. Otherwise closes the chunk."""
    return _ground_next(connection, lease) if _has_records(connection, job, lease) else close_chunk(connection, job, lease)


def _ground_next(connection: Connection, lease: Lease) -> list[int]:
    """Adds the step that finds the evidence of the chunk, which stays open until then."""
    return steps.add(connection, job=lease.job, round_=lease.round, kind=StepKind.GROUND, parts=[lease.part])


def _has_records(connection: Connection, job: LockedJob, lease: Lease) -> bool:
    """Whether the job has evidence, and the chunk has records without it."""
    if job.evidence is None:
        return False
    return connection.execute(ungrounded(images_table.c.index).limit(1), of_chunk(lease)).first() is not None


def of_chunk(lease: Lease) -> dict[str, Any]:
    """The parameters of `ungrounded`."""
    return {"job": lease.job, "no": lease.part, "round": lease.round}


def ungrounded(*columns: ColumnElement[Any]) -> Select[Any]:
    """A query for the images of a chunk that were answered in this round and have no evidence, in order.

    A chunk also reaches over images that earlier rounds have answered. These are not in its scratch object.
    """
    images, chunks = images_table.c, chunks_table.c
    between = images.index >= chunks.first, images.index < chunks.first + chunks.count
    answered = images.state == ImageState.DONE.value, images.attempts == bindparam("round"), images.evidence.is_(None)
    joined = images_table.join(chunks_table, chunks.job == images.job)
    named = images.job == bindparam("job"), chunks.no == bindparam("no")
    return select(*columns).select_from(joined).where(*named, *between, *answered).order_by(images.index)


def close_chunk(connection: Connection, job: LockedJob, lease: Lease) -> list[int]:
    """Closes the lease's chunk. Returns the ids of the next steps."""
    set_chunk(connection, lease, open=False)
    return _after_chunk(connection, job)


def _after_chunk(connection: Connection, job: LockedJob) -> list[int]:
    """Adds the job's finalize step if no chunk of the job is open any more. Call it after closing a chunk.

    The caller holds the job's lock. So if two transactions close the last two chunks, the second one sees the first chunk
    closed. Without the lock, at READ COMMITTED, each would see the other chunk open, and the job would hang.
    """
    if connection.scalar(_still_open(), {"job": job.id}) is not None:
        return []
    return finalize_next(connection, job=job.id, round_=job.round)


@cache
def _still_open() -> Select[tuple[int]]:
    return select(chunks_table.c.no).where(chunks_table.c.job == bindparam("job"), chunks_table.c.open).limit(1)


def _mark_failed(
    connection: Connection, job: str, failures: Sequence[Failure], *, received: Mapping[int, int] | None = None
) -> None:
    """Marks images as failed. `received`: index → bytes of images that were received; they count towards the job's limit."""
    rows: list[dict[str, Any]] = [
        {"at": failure.index, "state": ImageState.FAILED.value, "code": failure.code.value, "detail": failure.detail}
        for failure in failures
    ]
    if received is not None:
        rows = [{**row, "bytes": received.get(failure.index)} for row, failure in zip(rows, failures, strict=True)]
    mark_images(connection, job, rows)


def mark_images(connection: Connection, job: str, rows: Sequence[dict[str, Any]]) -> None:
    """Updates the same columns of many images. In each row, `at` is the image's index."""
    if not rows:
        return
    connection.execute(_marking(tuple(rows[0])), [{"of": job, **row} for row in rows])


@cache
def _marking(names: tuple[str, ...]) -> Update:
    columns: dict[str, Any] = {name: bindparam(name) for name in names if name != "at"}
    return (
        update(images_table)
        .where(images_table.c.job == bindparam("of"), images_table.c.index == bindparam("at"))
        .values(**columns)
    )
