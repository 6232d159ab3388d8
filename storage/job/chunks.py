"""A job's images on their way: what a step has to know, and what it writes. Each function is one caller's whole write.

Every function that changes a job locks its row first; what a step writes is fenced by the step's lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, Select, Update, bindparam, func, insert, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from pipeline.asking.ask import ChunkOutcome
from pipeline.finalize import Verdict
from pipeline.notes import SEPARATOR, NoteCode, warnings_of
from pipeline.stage import StagedChunk
from pipeline.types import MAX_TOTAL_BYTES, MB, Failure, ItemCode, JobStatus, Question, Usage
from storage.database import now_ms
from storage.job.closing import close_job, fail_open_images, finalize_next, lock_job
from storage.job.questions import question_of
from storage.queue import steps
from storage.queue.steps import JobGone, Lease
from storage.schema import chunks_table, images_table, jobs_table

MOST_DEATHS = 2  #: of processes that worked on one image and nothing else, after which that image fails

TOO_LARGE = Verdict(
    status=JobStatus.FAILED,
    result=None,
    error=("total_too_large", f"The images are over {MAX_TOTAL_BYTES // MB} MB in total; send fewer at once."),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkWork:
    """What a stage or extract step has to know."""

    job: str
    account: str
    question: Question
    waited: bool  #: the caller holds a connection
    total: int  #: images of the job
    first: int
    count: int
    input: str | None  #: scratch key of the chunk's base64 texts
    object: str | None  #: scratch key of the chunk's staged images
    progress: dict[str, Any] | None  #: how far extract has come (pipeline.asking.progress)
    left: float  #: seconds until the job's deadline
    pending: dict[int, str | None]  #: index → URL of each image that is not settled yet


def work_of(connection: Connection, lease: Lease) -> ChunkWork:
    """What the lease's chunk asks for. Raises JobGone."""
    row = connection.execute(_chunk(), {"job": lease.job, "no": lease.part}).one_or_none()
    if row is None:
        raise JobGone(f"there is no job {lease.job}")
    between = {"least": row.first, "most": row.first + row.size - 1}
    pending = connection.execute(_pending(), {"job": lease.job, **between})
    return ChunkWork(
        job=lease.job,
        account=row.account,
        question=question_of(row.prompt, row.options),
        waited=row.waited,
        total=row.total,
        first=row.first,
        count=row.size,
        input=row.input,
        object=row.object,
        progress=row.progress,
        left=row.left / 1000,
        pending={image.at: image.source for image in pending},
    )


# The statements of each step are made once: putting one together costs more than what the database does for it.


@cache
def _chunk() -> Select[Any]:
    return (
        select(
            jobs_table.c.account,
            jobs_table.c.prompt,
            jobs_table.c.options,
            jobs_table.c.waited,
            jobs_table.c.total,
            (jobs_table.c.deadline_at - now_ms()).label("left"),
            chunks_table.c.first,
            chunks_table.c.count.label("size"),
            chunks_table.c.input,
            chunks_table.c.object,
            chunks_table.c.progress,
        )
        .join(chunks_table, chunks_table.c.job == jobs_table.c.id)
        .where(jobs_table.c.id == bindparam("job"), chunks_table.c.no == bindparam("no"))
    )


@cache
def _pending() -> Select[tuple[int, str | None]]:
    return select(images_table.c.index.label("at"), images_table.c.source).where(
        images_table.c.job == bindparam("job"),
        images_table.c.index.between(bindparam("least"), bindparam("most")),
        images_table.c.state.in_(("waiting", "staged")),
    )


def repeated_urls(connection: Connection, job: str) -> frozenset[str]:
    """The URLs that stand more than once in the job."""
    query = select(images_table.c.source).where(images_table.c.job == job, images_table.c.source.is_not(None))
    repeated = query.group_by(images_table.c.source).having(func.count() > 1)
    return frozenset(url for url in connection.scalars(repeated) if url)


def record_staged(connection: Connection, lease: Lease, *, key: str | None, chunk: StagedChunk) -> list[int]:
    """Ends a stage step: its images lie under `key`, or have failed. Ids of the steps that follow. Raises LostLease."""
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease)
    _mark_failed(connection, lease.job, chunk.failures, received=chunk.received)
    _mark(
        connection,
        lease.job,
        [{"at": image.index, "state": "staged", "sha256": image.sha256, "bytes": image.received} for image in chunk.staged],
    )
    noted = [image for image in chunk.staged if image.note]
    _mark(connection, lease.job, [{"at": image.index, "note": image.note} for image in noted])
    _add_warnings(connection, job, warnings_of(image.note for image in noted))
    if (connection.scalar(_stored(), {"of": lease.job, "more": chunk.stored}) or 0) > MAX_TOTAL_BYTES:
        return close_job(connection, job, TOO_LARGE)
    _set_chunk(connection, lease, object=key)
    if not chunk.staged:
        return _close_chunk(connection, job, lease)
    return steps.add(connection, job=lease.job, round_=lease.round, kind="extract", parts=[lease.part])


@cache
def _stored() -> ReturningUpdate[Any]:
    """Counts what was stored, and gives the bytes of all of the job's images."""
    received = select(func.sum(images_table.c.bytes)).where(images_table.c.job == bindparam("of")).scalar_subquery()
    more = jobs_table.c.scratch_bytes + bindparam("more", type_=BigInteger)
    return update(jobs_table).where(jobs_table.c.id == bindparam("of")).values(scratch_bytes=more).returning(received)


def fail_too_large(connection: Connection, lease: Lease) -> list[int]:
    """Ends a stage step whose images are alone over the limit of all, and its job. Raises LostLease."""
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease)
    return close_job(connection, job, TOO_LARGE)


def record_outcome(connection: Connection, lease: Lease, outcome: ChunkOutcome, *, last: bool) -> list[int]:
    """Keeps what one model call settled; `last`: nothing of the chunk is open now. Ids of the steps that follow. Raises LostLease."""
    job = lock_job(connection, lease.job) if last or outcome.notes else None
    if last:
        steps.finish(connection, lease)
    else:
        steps.check(connection, lease)
    _mark_failed(connection, lease.job, outcome.failures)
    _add_note(connection, lease.job, NoteCode.REENCODED.value, outcome.reencoded)
    for index, note in outcome.notes.items():
        _add_note(connection, lease.job, note, [index])
    if job is not None:
        _add_warnings(connection, job, warnings_of(outcome.notes.values()))
    _mark(
        connection,
        lease.job,
        [{"at": index, "state": "done", "result": reply.result} for reply in outcome.replies for index in reply.indexes],
    )
    row = connection.execute(_answered(), {"job": lease.job, "no": lease.part}).one()
    merged = [{"indexes": list(reply.indexes), "text": reply.text} for reply in outcome.replies if reply.result is None]
    usage = Usage(**row.usage).plus(outcome.usage)
    kept = {"replies": [*row.replies, *merged], "usage": asdict(usage), "progress": outcome.progress, "open": not last}
    _set_chunk(connection, lease, **kept)
    return _after_chunk(connection, job) if last and job is not None else []


@cache
def _answered() -> Select[Any]:
    return select(chunks_table.c.replies, chunks_table.c.usage).where(
        chunks_table.c.job == bindparam("job"), chunks_table.c.no == bindparam("no")
    )


def record_dead(connection: Connection, lease: Lease, detail: str) -> list[int]:
    """Gives up a stage or extract step: what its chunk has not settled fails. Ids of the steps that follow. Raises LostLease."""
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease, state="dead")
    chunk = connection.execute(
        select(chunks_table.c.first, chunks_table.c.count.label("size")).where(
            chunks_table.c.job == lease.job, chunks_table.c.no == lease.part
        )
    ).one()
    fail_open_images(connection, lease.job, ItemCode.INTERNAL_ERROR, detail, between=(chunk.first, chunk.first + chunk.size - 1))
    return _close_chunk(connection, job, lease)


def record_death(connection: Connection, lease: Lease) -> list[int]:
    """A process died that worked on nothing but this stage or extract step: its chunk is split, and each half runs alone
    too; a single image fails at the second death, since the first may have had another cause.

    Ids of the steps that follow. Raises LostLease.
    """
    job = lock_job(connection, lease.job)
    deaths = steps.count_death(connection, lease)
    columns = (
        chunks_table.c.first,
        chunks_table.c.count.label("size"),
        chunks_table.c.input,
        chunks_table.c.object,
        chunks_table.c.progress,
    )
    chunk = connection.execute(select(*columns).where(chunks_table.c.job == lease.job, chunks_table.c.no == lease.part)).one()
    between = (chunk.first, chunk.first + chunk.size - 1)
    rows = connection.execute(_pending(), {"job": lease.job, "least": between[0], "most": between[1]})
    pending = sorted(row.at for row in rows)
    if len(pending) > 1:
        return _split_chunk(connection, lease, chunk, middle=pending[len(pending) // 2])
    if pending and deaths < MOST_DEATHS:
        steps.hand_back(connection, lease, delay_ms=0, counts=False)
        return []
    steps.finish(connection, lease, state="dead")
    detail = "A worker died of this image, twice, with nothing else to do: save it anew, as PNG or JPEG."
    fail_open_images(connection, lease.job, ItemCode.WORKER_CRASHED, detail, between=between)
    return _close_chunk(connection, job, lease)


def _split_chunk(connection: Connection, lease: Lease, chunk: Row[Any, Any, Any, Any, Any], *, middle: int) -> list[int]:
    """Two new chunks over the same scratch objects instead of the lease's; the second begins with the image `middle`."""
    steps.finish(connection, lease, state="split")
    _set_chunk(connection, lease, open=False)  # what it has settled stays with it
    fresh = 1 + (connection.scalar(select(func.max(chunks_table.c.no)).where(chunks_table.c.job == lease.job)) or 0)
    end = chunk.first + chunk.size
    same = {"job": lease.job, "open": True, "replies": [], "usage": {}}
    same |= {"input": chunk.input, "object": chunk.object, "progress": chunk.progress}
    halves = [(fresh, chunk.first, middle - chunk.first), (fresh + 1, middle, end - middle)]
    connection.execute(insert(chunks_table), [{**same, "no": no, "first": first, "count": count} for no, first, count in halves])
    kind: steps.Kind = "stage" if lease.kind == "stage" else "extract"
    return steps.add(connection, job=lease.job, round_=lease.round, kind=kind, parts=[fresh, fresh + 1], alone=True)


def add_warning(connection: Connection, job: str, warning: str) -> None:
    """Tells the job's owner something, once."""
    _add_warnings(connection, lock_job(connection, job), [warning])


def _add_warnings(connection: Connection, job: Row[Any], warnings: Sequence[str]) -> None:
    """Adds those that the locked job does not have yet."""
    fresh = [warning for warning in warnings if warning not in job.warnings]
    if fresh:
        connection.execute(update(jobs_table).where(jobs_table.c.id == job.id).values(warnings=[*job.warnings, *fresh]))


def _add_note(connection: Connection, job: str, note: str, indexes: Sequence[int]) -> None:
    """Adds a note to images, behind those they have, once."""
    columns = images_table.c
    for index in indexes:
        image = (columns.job == job, columns.index == index)
        before = connection.scalar(select(columns.note).where(*image)) or ""
        if note not in before.split(SEPARATOR):
            connection.execute(update(images_table).where(*image).values(note=SEPARATOR.join(filter(None, (before, note)))))


def _set_chunk(connection: Connection, lease: Lease, **values: Any) -> None:
    connection.execute(_setting(tuple(values)), {"of": lease.job, "part": lease.part, **values})


@cache
def _setting(names: tuple[str, ...]) -> Update:
    columns: dict[str, Any] = {name: bindparam(name) for name in names}
    return (
        update(chunks_table)
        .where(chunks_table.c.job == bindparam("of"), chunks_table.c.no == bindparam("part"))
        .values(**columns)
    )


def _close_chunk(connection: Connection, job: Row[Any], lease: Lease) -> list[int]:
    _set_chunk(connection, lease, open=False)
    return _after_chunk(connection, job)


def _after_chunk(connection: Connection, job: Row[Any]) -> list[int]:
    """A chunk was closed; who closes the last one of a job adds its finalize step.

    The job's row is locked, so of two closers at once the second sees the first one's chunk closed. (On READ COMMITTED
    without the lock each sees the other's open, and the job hangs.)
    """
    return finalize_next(connection, job) if connection.scalar(_still_open(), {"job": job.id}) is None else []


@cache
def _still_open() -> Select[tuple[int]]:
    return select(chunks_table.c.no).where(chunks_table.c.job == bindparam("job"), chunks_table.c.open).limit(1)


def _mark_failed(
    connection: Connection, job: str, failures: Sequence[Failure], *, received: Mapping[int, int] | None = None
) -> None:
    """`received`: the bytes of those that came, which count towards the limit of all."""
    rows: list[dict[str, Any]] = [
        {"at": failure.index, "state": "failed", "code": failure.code.value, "detail": failure.detail} for failure in failures
    ]
    if received is not None:
        rows = [{**row, "bytes": received.get(failure.index)} for row, failure in zip(rows, failures, strict=True)]
    _mark(connection, job, rows)


def _mark(connection: Connection, job: str, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the same columns of many images, each row with its index as `at`."""
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
