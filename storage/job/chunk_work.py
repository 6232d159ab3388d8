"""What a stage or extract step reads of its job and its chunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, func, or_, select

from pipeline.types import Question, StepKind, Tier
from storage.database import now_ms
from storage.job.questions import question_of
from storage.queue import steps
from storage.queue.steps import JobGone, Lease
from storage.schema import OPEN_IMAGES, chunks_table, images_table, jobs_table


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkWork:
    """The data that a stage or extract step needs."""

    job: str
    account: str
    question: Question
    waited: bool  #: the caller holds a connection for the job
    total: int  #: number of the job's images
    first: int  #: index of the chunk's first image
    count: int  #: number of the chunk's images
    input: str | None  #: scratch key of the chunk's base64 texts
    object: str | None  #: scratch key of the chunk's staged images
    progress: dict[str, Any] | None  #: progress of the extract step (pipeline.asking.progress)
    left: float  #: seconds until the job's deadline
    limited: bool  #: the job has a limit of money
    tier: Tier
    evidence: bool  #: the job's records are looked for in their pictures
    fail_on_error: bool  #: the job fails if any image fails
    pending: dict[int, str | None]  #: index → URL of each image that has no outcome yet


def work_of(connection: Connection, lease: Lease) -> ChunkWork:
    """The work of the lease's chunk. Raises JobGone."""
    row = connection.execute(_chunk(), {"job": lease.job, "no": lease.part}).one_or_none()
    if row is None:
        raise JobGone(f"there is no job {lease.job}")
    return _work_of(lease, row, _pending_of(connection, lease.job, row))


def claim_chunk(connection: Connection, step: int, *, owner: str, lease_ms: int) -> tuple[Lease, Row[Any] | None] | None:
    """As `steps.claim`, with what `work_found` needs, if a stage step is claimed for the first time.

    Postgres does it in one statement. Elsewhere the work is not read: None. Nothing else is done here, because whatever fails after the
    claim is to be handled as a failure of the step.
    """
    if connection.dialect.name != "postgresql":
        lease = steps.claim(connection, step, owner=owner, lease_ms=lease_ms)
        return (lease, None) if lease else None
    row = connection.execute(_claimed_chunk(), {"step": step, "by": owner, "for_ms": lease_ms}).one_or_none()
    if row is None:
        return None
    lease = steps.lease_of(step, row)
    # The statement may have waited for another one that claimed the step, and then sees the chunk as it was before.
    return lease, row if lease.epoch == 1 and lease.kind is StepKind.STAGE else None


def work_found(lease: Lease, row: Row[Any]) -> ChunkWork | None:
    """The work, from a row of `claim_chunk`. None if the row has not all of it: the job has several images."""
    return _work_of(lease, row, _pending_alone(row)) if row.total == 1 else None


def _work_of(lease: Lease, row: Row[Any], pending: dict[int, str | None]) -> ChunkWork:
    return ChunkWork(
        job=lease.job,
        account=lease.account,
        question=question_of(row.prompt, row.options),
        waited=row.waited,
        total=row.total,
        first=row.first,
        count=row.size,
        input=row.input,
        object=row.object,
        progress=row.progress,
        left=row.left / 1000,
        limited=row.max_money is not None,
        tier=Tier(row.tier),
        evidence=row.evidence is not None,
        fail_on_error=row.fail_on_error,
        pending=pending,
    )


def _pending_of(connection: Connection, job: str, row: Row[Any]) -> dict[int, str | None]:
    if row.total == 1:  # a trip less for the jobs that somebody waits for
        return _pending_alone(row)
    between = {"least": row.first, "most": row.first + row.size - 1}
    return {image.at: image.source for image in connection.execute(pending_images(), {"job": job, **between})}


def _pending_alone(row: Row[Any]) -> dict[int, str | None]:
    return {row.first: row.first_source} if row.first_state in OPEN_IMAGES else {}


# Each statement is built once and cached, because building it takes longer than running it.


@cache
def _chunk() -> Select[Any]:
    return (
        select(*_of_chunk())
        .join(chunks_table, chunks_table.c.job == jobs_table.c.id)
        .join(images_table, _first_image())
        .where(jobs_table.c.id == bindparam("job"), chunks_table.c.no == bindparam("no"))
    )


@cache
def _claimed_chunk() -> Select[Any]:
    statement, claimed = steps.first_claim()
    chunk = and_(chunks_table.c.job == claimed.c.job, chunks_table.c.no == claimed.c.part)
    return statement.add_columns(*_of_chunk()).outerjoin(chunks_table, chunk).outerjoin(images_table, _first_image())


def _first_image() -> ColumnElement[bool]:
    return and_(images_table.c.job == chunks_table.c.job, images_table.c.index == chunks_table.c.first)


def _of_chunk() -> tuple[ColumnElement[Any], ...]:
    """What a step knows of its job and its chunk."""
    names = ("prompt", "options", "waited", "total", "max_money", "tier", "evidence", "fail_on_error")
    return (
        *(jobs_table.c[name] for name in names),
        (jobs_table.c.deadline_at - now_ms()).label("left"),
        chunks_table.c.first,
        chunks_table.c.count.label("size"),
        chunks_table.c.input,
        chunks_table.c.object,
        chunks_table.c.progress,
        images_table.c.source.label("first_source"),
        images_table.c.state.label("first_state"),
    )


@cache
def pending_images() -> Select[tuple[int, str | None]]:
    """The images of `job` from `least` to `most` that have no outcome yet."""
    return select(images_table.c.index.label("at"), images_table.c.source).where(
        images_table.c.job == bindparam("job"),
        images_table.c.index.between(bindparam("least"), bindparam("most")),
        or_(*(images_table.c.state == state for state in OPEN_IMAGES)),  # IN would make its text anew for each run
    )


def repeated_urls(connection: Connection, job: str) -> frozenset[str]:
    """The URLs that occur more than once in the job."""
    query = select(images_table.c.source).where(images_table.c.job == job, images_table.c.source.is_not(None))
    repeated = query.group_by(images_table.c.source).having(func.count() > 1)
    return frozenset(url for url in connection.scalars(repeated) if url)
