"""The uploaded images that outlive their job for retries. `jobs.inputs_expire_at` says until when they are kept.

A retry and the deletion of the images both lock the job's row and then compare the time with `inputs_expire_at`. So no round begins
while its images are being deleted, and none are deleted while a round may need them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, case, func, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from pipeline.types import StepKind
from storage.database import now_ms
from storage.job import totals
from storage.job.locked import locking
from storage.queue import steps
from storage.schema import chunks_table, jobs_table, steps_table

AT_CLOSE, AFTER_LEASES, AT_EXPIRY = range(3)  #: the parts of a round's cleanup steps


def asked_to_keep(connection: Connection, job: str) -> bool:
    """Whether the job's uploaded images outlive it. A cleanup of other jobs needs no lock."""
    return bool(connection.scalar(select(jobs_table.c.keep_ms).where(jobs_table.c.id == job)))


def lock_needed(connection: Connection, job: str) -> bool:
    """Locks the job's row. Returns whether its uploaded images must stay now: a round runs, or they have not expired."""
    row = connection.execute(_needed(), {"job": job}).one_or_none()
    if row is None or not row.keep_ms:
        return False
    return row.finished_at is None or (row.inputs_expire_at or 0) > connection.execute(select(now_ms())).scalar_one()


@cache
def _needed() -> Select[Any]:
    return locking(jobs_table.c.keep_ms, jobs_table.c.finished_at, jobs_table.c.inputs_expire_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgotten:
    """Uploaded images that are deleted."""

    account: str  #: the job's account
    size: int  #: bytes


def forget(connection: Connection, job: str) -> Forgotten | None:
    """Records that the expired images are deleted. None: the job has none, or they have not expired.

    The caller passes the value to `give_back` when it has locked the rows that it changes, because the account's row comes after them.
    """
    row = connection.execute(_forget(), {"of": job}).one_or_none()
    return None if row is None else Forgotten(account=row.account, size=row.input_bytes)


def give_back(connection: Connection, job: str, forgotten: Forgotten) -> None:
    """Counts the deleted images no more towards MAX_SCRATCH_BYTES and the account's share of it."""
    totals.count_account(connection, forgotten.account, open_jobs=0, kept_bytes=-forgotten.size)
    totals.count_scratch(connection, job, -forgotten.size)


@cache
def _forget() -> ReturningUpdate[Any]:
    expired = jobs_table.c.inputs_expire_at <= now_ms()
    forgotten = update(jobs_table).where(jobs_table.c.id == bindparam("of"), expired).values(inputs_expire_at=None)
    return forgotten.returning(jobs_table.c.account, jobs_table.c.input_bytes)


def expiry() -> ColumnElement[int | None]:
    """The value of `inputs_expire_at` for a job that ends now. Without results there is no retry, so they are kept no longer."""
    columns = jobs_table.c
    kept = case((columns.keep_ms < columns.ttl_ms, columns.keep_ms), else_=columns.ttl_ms)
    return case((columns.keep_ms > 0, now_ms() + kept), else_=None)


def expired(connection: Connection, limit: int = 50) -> list[tuple[str, int]]:
    """Job and round of jobs whose kept images have expired and that have no step yet that deletes them."""
    columns = steps_table.c
    deleting = select(columns.id).where(
        columns.job == jobs_table.c.id,
        columns.round == jobs_table.c.round,
        columns.kind == StepKind.CLEANUP.value,
        columns.part == AT_EXPIRY,
    )
    late = select(jobs_table.c.id, jobs_table.c.round).where(jobs_table.c.inputs_expire_at <= now_ms(), ~deleting.exists())
    return [(row.id, row.round) for row in connection.execute(late.limit(limit))]


def delete_expired(connection: Connection) -> list[str]:
    """Adds a cleanup step for each job of `expired`. Returns the jobs."""
    late = expired(connection)
    for job, round_ in late:
        steps.add(connection, job=job, round_=round_, kind=StepKind.CLEANUP, parts=[AT_EXPIRY])
    return [job for job, _ in late]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """Where the bytes of an image are in scratch."""

    key: str
    staged: bool  #: the object has the images as the model gets them, and not as they came with the request


def stored_image(connection: Connection, job: str, index: int) -> StoredImage | None:
    """Where an image's bytes should be now. None if they are not kept. The object may be deleted at any moment."""
    chunks = chunks_table.c
    query = (
        select(chunks.input, chunks.object, jobs_table.c.finished_at, jobs_table.c.inputs_expire_at, now_ms().label("now"))
        .join(jobs_table, jobs_table.c.id == chunks.job)
        .where(chunks.job == job, chunks.first <= index, chunks.first + chunks.count > index)
        .order_by(chunks.no.desc())
    )
    rows = connection.execute(query).all()
    if not rows:
        return None
    runs = rows[0].finished_at is None
    if runs or (rows[0].inputs_expire_at or 0) > rows[0].now:
        for row in rows:
            if row.input is not None:
                return StoredImage(key=row.input, staged=False)
    staged = next((row.object for row in rows if row.object is not None), None)
    return StoredImage(key=staged, staged=True) if runs and staged is not None else None


def ranges(connection: Connection, job: str) -> list[tuple[int, int, str]]:
    """The job's objects of uploaded images: index of the first image, index after the last one, scratch key."""
    first, end = func.min(chunks_table.c.first).label("first"), func.max(chunks_table.c.first + chunks_table.c.count).label("end")
    query = select(first, end, chunks_table.c.input).where(chunks_table.c.job == job, chunks_table.c.input.is_not(None))
    return [(row.first, row.end, row.input) for row in connection.execute(query.group_by(chunks_table.c.input).order_by(first))]
