"""Retries a job's failed images in a new round, and deletes a job. Each runs in one transaction and locks the job's row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, delete, func, null, select, update

from pipeline.credits import reservation
from pipeline.plan import ChunkPlan
from pipeline.types import ImageState, JobStatus, Question
from storage.account import ledger
from storage.database import now_ms
from storage.job import inputs, stored, totals
from storage.job.accepting import TooManyOpenJobs, add_chunks
from storage.job.locked import lock_job, locked_row, locking
from storage.job.questions import question_of
from storage.schema import chunks_table, deliveries_table, images_table, jobs_table, steps_table


class NotEnded(Exception):
    """The job has not ended."""


class Expired(Exception):
    """The job's results and the URLs of its images were deleted."""


class NothingFailed(Exception):
    """Every image of the job was processed."""


class InputsGone(Exception):
    """The images came with the request, and were deleted when the job ended or when the time to keep them was over."""


def retry(
    connection: Connection,
    job: str,
    *,
    size: Callable[[Question], int],
    max_open: int,
    request_id: str | None = None,
    traceparent: str | None = None,
) -> None:
    """Starts the job's next round with its failed images.

    `size`: how many of them make a chunk. `request_id`: id of the HTTP request that asks for the retry. `traceparent`: its
    trace, if it is traced.

    Raises NotEnded, Expired, NothingFailed, InputsGone, InsufficientCredits, TooManyOpenJobs, or JobGone if the job was deleted.
    The caller must then roll back.
    """
    row = _lock_retried(connection, job)
    failed = _failed_images(connection, row)
    kept = inputs.ranges(connection, job) if row.input_method != "url" else []
    round_ = row.round + 1
    no_outcome = {
        "code": None,
        "detail": None,
        "sha256": None,
        "bytes": None,
        "result": null(),
        "tier": None,
        "corrections": None,
        "checked": False,
        "evidence": None,
        "needs_review": False,
    }
    connection.execute(
        update(images_table)
        .where(images_table.c.job == job, images_table.c.state == ImageState.FAILED.value)
        .values(state=ImageState.WAITING.value, attempts=round_, **no_outcome)
    )
    # Close the chunks of earlier rounds. A round that was cut short leaves chunks open, and this round ends when none is open.
    connection.execute(update(chunks_table).where(chunks_table.c.job == job).values(open=False))
    fresh = 1 + (connection.scalar(select(func.max(chunks_table.c.no)).where(chunks_table.c.job == job)) or 0)
    most = size(row.question)
    # A chunk has one input. So the failed images of different inputs go in different chunks.
    apart = [[index for index in failed if first <= index < end] for first, end, _ in kept] if kept else [failed]
    groups = [part[first : first + most] for part in apart for first in range(0, len(part), most)]
    # A chunk reaches from its first failed image to its last. Images between them that have an answer are skipped and keep it.
    plan = [ChunkPlan(no=fresh + place, first=group[0], count=group[-1] - group[0] + 1) for place, group in enumerate(groups)]
    amount = reservation(row.total, charged=row.credits)
    if ledger.reserve(connection, account=row.account, job=job, round_=round_, amount=amount).open_jobs > max_open:
        raise TooManyOpenJobs
    scratch_bytes = row.input_bytes if kept else 0
    connection.execute(
        update(jobs_table)
        .where(jobs_table.c.id == job)
        .values(
            round=round_,
            status=JobStatus.QUEUED.value,
            waited=False,
            request_id=request_id,
            traceparent=traceparent,
            started_at=None,
            finished_at=None,
            expires_at=None,
            error_code=None,
            error_message=None,
            deadline_at=now_ms() + jobs_table.c.deadline_ms,
            scratch_bytes=scratch_bytes,
            inputs_expire_at=None,
        )
    )
    keys = {chunk.no: key for chunk in plan for first, end, key in kept if first <= chunk.first < end}
    add_chunks(connection, job, round_=round_, plan=plan, inputs=keys)
    # The kept images count towards the account's share before, in and after the round. So only the bytes in scratch change.
    totals.count_scratch(connection, job, scratch_bytes - (row.input_bytes if row.inputs_expire_at is not None else 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class _RetriedJob:
    """The columns that a new round needs from the job's locked row."""

    id: str
    account: str
    round: int
    status: JobStatus
    question: Question
    total: int  #: number of images
    credits: int  #: credits charged so far, sum of all rounds
    input_method: str
    input_bytes: int  #: of the images as they came with the request
    expires_at: int | None  #: milliseconds since 1970; None if the job has not ended or its results were deleted
    inputs_expire_at: int | None  #: milliseconds since 1970; None if no uploaded images are kept


def _lock_retried(connection: Connection, job: str) -> _RetriedJob:
    """Locks the job's row and returns its values. Raises JobGone."""
    row = locked_row(connection, _retried_job(), job)
    return _RetriedJob(
        id=row.id,
        account=row.account,
        round=row.round,
        status=JobStatus(row.status),
        question=question_of(row.prompt, row.options),
        total=row.total,
        credits=row.credits,
        input_method=row.input_method,
        input_bytes=row.input_bytes,
        expires_at=row.expires_at,
        inputs_expire_at=row.inputs_expire_at,
    )


@cache
def _retried_job() -> Select[Any]:
    columns = jobs_table.c
    return locking(
        columns.id,
        columns.account,
        columns.round,
        columns.status,
        columns.prompt,
        columns.options,
        columns.total,
        columns.credits,
        columns.input_method,
        columns.input_bytes,
        columns.expires_at,
        columns.inputs_expire_at,
    )


def _failed_images(connection: Connection, job: _RetriedJob) -> list[int]:
    """The indexes of the job's failed images, in order. Raises NotEnded, Expired, NothingFailed or InputsGone."""
    if not job.status.ended:
        raise NotEnded
    now = connection.execute(select(now_ms())).scalar_one()
    if job.expires_at is None or job.expires_at <= now:
        raise Expired
    failed = list(
        connection.execute(
            select(images_table.c.index)
            .where(images_table.c.job == job.id, images_table.c.state == ImageState.FAILED.value)
            .order_by(images_table.c.index)
        ).scalars()
    )
    if not failed:
        raise NothingFailed
    if job.input_method != "url" and (job.inputs_expire_at or 0) <= now:
        raise InputsGone
    return failed


def remove(connection: Connection, job: str) -> None:
    """Deletes the job, its images and the bodies of its webhooks.

    The ledger rows and the log of the deliveries stay, but no delivery is tried again. The job's idempotency key can be used
    again. Raises NotEnded, or JobGone if the job is already deleted.
    """
    locked = lock_job(connection, job)
    if not locked.status.ended:
        raise NotEnded
    # Delete the steps first. A transaction that records an outcome locks its step and then the images, so this order avoids a
    # deadlock.
    connection.execute(delete(steps_table).where(steps_table.c.job == job))
    connection.execute(
        update(deliveries_table).where(deliveries_table.c.job == job, deliveries_table.c.state == "pending").values(state="dead")
    )
    connection.execute(update(deliveries_table).where(deliveries_table.c.job == job).values(body=None))
    stored.forget(connection, job)
    kept = jobs_table.c.input_bytes, jobs_table.c.inputs_expire_at
    row = connection.execute(delete(jobs_table).where(jobs_table.c.id == job).returning(*kept)).one()
    if row.inputs_expire_at is not None:
        inputs.give_back(connection, job, inputs.Forgotten(account=locked.account, size=row.input_bytes))
