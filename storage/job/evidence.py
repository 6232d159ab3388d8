"""Transactions of the ground step, which looks for the records of a chunk in what the OCR reads in its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, Update, bindparam, func, or_, select, update

from pipeline.evidence.finding import Finding, not_read
from pipeline.types import StepState
from storage.database import now_ms
from storage.job import totals
from storage.job.chunks import close_chunk, of_chunk, ungrounded
from storage.job.locked import lock_job
from storage.job.questions import question_of
from storage.queue import steps
from storage.queue.steps import JobGone, Lease
from storage.schema import chunks_table, images_table, jobs_table

GIVEN_UP = "The service failed on it."


@dataclass(frozen=True, kw_only=True, slots=True)
class ToGround:
    """An image whose record is to be looked for."""

    index: int
    sha256: str  #: hex, of the image as received
    record: Any
    #: Jobs of the same account whose scratch may have what the OCR read in this image. Empty: nobody has read it.
    read_by: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundWork:
    """The data that a ground step needs."""

    object: str | None  #: scratch key of the chunk's staged images
    schema: dict[str, Any] | None  #: JSON Schema of each record
    left: float  #: seconds until the job's deadline
    images: Sequence[ToGround]  #: those that have no evidence yet, in order


def work_of(connection: Connection, lease: Lease) -> GroundWork:
    """The work of the lease's chunk. Raises JobGone."""
    row = connection.execute(_chunk(), {"job": lease.job, "no": lease.part}).one_or_none()
    if row is None:
        raise JobGone(f"there is no job {lease.job}")
    columns = images_table.c
    query = ungrounded(columns.index.label("at"), columns.sha256, columns.result)
    rows = connection.execute(query, of_chunk(lease)).all()
    readers = _readers(connection, lease, {image.sha256 for image in rows})
    return GroundWork(
        object=row.object,
        schema=question_of(row.prompt, row.options).schema,
        left=row.left / 1000,
        images=[
            ToGround(index=image.at, sha256=image.sha256, record=image.result, read_by=readers[image.sha256]) for image in rows
        ],
    )


def _readers(connection: Connection, lease: Lease, sha256s: AbstractSet[str]) -> dict[str, list[str]]:
    """The value of `read_by` for each sha256: the lease's own job, and one other open job.

    A job has read an image before only if it has the image twice, or if a worker died between the reading and its commit.
    """
    own = dict.fromkeys(sha256s, lease.expiries > 0)
    others: dict[str, str] = {}
    for sha256, job, count in connection.execute(_equal(), {"job": lease.job, "sha256s": sorted(sha256s)}):
        if job != lease.job:
            others[sha256] = job
        elif count > 1:
            own[sha256] = True
    return {
        sha256: [*([lease.job] if own[sha256] else []), *([others[sha256]] if sha256 in others else [])] for sha256 in sha256s
    }


@cache
def _equal() -> Select[Any]:
    """The images with one of the `sha256s`, counted by job: all of the job's own, and those with evidence of its account's other jobs.

    A job that has ended is left out, because its scratch is deleted. One that has not started has read nothing.
    """
    images, mine = images_table.c, jobs_table.alias("mine")
    at_work = jobs_table.c.finished_at.is_(None), jobs_table.c.started_at.is_not(None), jobs_table.c.evidence.is_not(None)
    # Each job has a deadline. With this condition SQLite uses the index of open jobs, however many jobs have ended.
    by_index = jobs_table.c.deadline_at > 0
    joined = mine.join(jobs_table, jobs_table.c.account == mine.c.account).join(images_table, images.job == jobs_table.c.id)
    chosen = select(images.sha256, images.job, func.count()).select_from(joined)
    return chosen.where(
        mine.c.id == bindparam("job"),
        *at_work,
        by_index,
        images.sha256.in_(bindparam("sha256s", expanding=True)),
        or_(images.job == mine.c.id, images.evidence.is_not(None)),
    ).group_by(images.sha256, images.job)


@cache
def _chunk() -> Select[Any]:
    left = (jobs_table.c.deadline_at - now_ms()).label("left")
    chosen = select(jobs_table.c.prompt, jobs_table.c.options, left, chunks_table.c.object)
    joined = chosen.join(chunks_table, chunks_table.c.job == jobs_table.c.id)
    return joined.where(jobs_table.c.id == bindparam("job"), chunks_table.c.no == bindparam("no"))


def record_findings(
    connection: Connection, lease: Lease, findings: Mapping[int, Finding], *, stored: int, last: bool
) -> list[int]:
    """Stores what was found, by index. `last`: every record of the chunk has evidence now, so the step and the chunk end.

    `stored`: bytes that were put to scratch. Returns the ids of the next steps. Raises LostLease.
    """
    job = lock_job(connection, lease.job)
    if last:
        steps.finish(connection, lease)
    else:
        steps.check(connection, lease)
    _write(connection, lease, findings, reviewed=job.evidence or ())
    if stored:
        connection.execute(_stored(), {"of": lease.job, "more": stored})
    follow = close_chunk(connection, job, lease) if last else []
    totals.count_scratch(connection, lease.job, stored)
    return follow


def give_up(connection: Connection, lease: Lease) -> list[int]:
    """Ends a ground step that failed too often. The records stand, and their evidence says that there is none.

    Returns the ids of the next steps. Raises LostLease.
    """
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease, state=StepState.DEAD)
    left = connection.execute(ungrounded(images_table.c.index), of_chunk(lease)).scalars().all()
    _write(connection, lease, dict.fromkeys(left, not_read(GIVEN_UP)), reviewed=job.evidence or ())
    return close_chunk(connection, job, lease)


def _write(connection: Connection, lease: Lease, findings: Mapping[int, Finding], *, reviewed: Sequence[str]) -> None:
    rows = [
        {
            "of": lease.job,
            "at": index,
            "evidence": finding.stored(),
            "needs_review": any(review in finding.reviews for review in reviewed),
        }
        for index, finding in findings.items()
    ]
    if rows:
        connection.execute(_found(), rows)


@cache
def _found() -> Update:
    image = images_table.c.job == bindparam("of"), images_table.c.index == bindparam("at")
    return update(images_table).where(*image).values(evidence=bindparam("evidence"), needs_review=bindparam("needs_review"))


@cache
def _stored() -> Update:
    more = jobs_table.c.scratch_bytes + bindparam("more", type_=BigInteger)
    return update(jobs_table).where(jobs_table.c.id == bindparam("of")).values(scratch_bytes=more)
