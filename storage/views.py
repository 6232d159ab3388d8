"""What a caller may see of a job. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from sqlalchemy import Connection, func, select, union_all

from pipeline.types import Failure, JobStatus, Usage
from storage.database import now_ms
from storage.harvest import failures_of
from storage.schema import chunks, images, jobs, merges


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """A job without its results."""

    id: str
    status: JobStatus
    total: int
    succeeded: int
    failed: int
    progress: float  #: 0 to 1: an image that is staged counts half
    credits: int  #: charged so far
    usage: Usage
    created_at: int  #: milliseconds since 1970, as the others
    started_at: int | None
    finished_at: int | None
    expires_at: int | None
    expired: bool  #: its results are gone
    error_code: str | None
    error_message: str | None
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultView:
    """What the compatible endpoint answers with."""

    prompt: str
    result: str
    failures: Sequence[Failure]


def job_view(connection: Connection, job: str, account: str) -> JobView | None:
    """The job, if it is that account's."""
    row = connection.execute(
        select(
            jobs.c.id,
            jobs.c.status,
            jobs.c.total,
            jobs.c.credits,
            jobs.c.created_at,
            jobs.c.started_at,
            jobs.c.finished_at,
            jobs.c.expires_at,
            jobs.c.error_code,
            jobs.c.error_message,
            jobs.c.warnings,
            now_ms().label("now"),
        ).where(jobs.c.id == job, jobs.c.account == account)
    ).one_or_none()
    if row is None:
        return None
    counted = select(images.c.state, func.count()).where(images.c.job == job).group_by(images.c.state)
    states = {state: int(count) for state, count in connection.execute(counted)}
    succeeded, failed = states.get("done", 0), states.get("failed", 0)
    status = JobStatus(row.status)
    paid = union_all(*(select(table.c.usage).where(table.c.job == job) for table in (chunks, merges)))
    usages = (Usage(**usage) for usage in connection.execute(paid).scalars())
    return JobView(
        id=row.id,
        status=status,
        total=row.total,
        succeeded=succeeded,
        failed=failed,
        progress=1.0 if status.ended else (succeeded + failed + states.get("staged", 0) / 2) / row.total,
        credits=row.credits,
        usage=reduce(Usage.plus, usages, Usage()),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        expires_at=row.expires_at,
        expired=status.ended and (row.expires_at is None or row.expires_at <= row.now),
        error_code=row.error_code,
        error_message=row.error_message,
        warnings=row.warnings,
    )


def result_view(connection: Connection, job: str) -> ResultView:
    """The result of a finished job that has not expired."""
    row = connection.execute(select(jobs.c.prompt, jobs.c.result).where(jobs.c.id == job)).one()
    return ResultView(prompt=row.prompt, result=row.result or "", failures=failures_of(connection, job))


def status_of(connection: Connection, job: str) -> JobStatus | None:
    """Just the status: what a waiter looks at between signals."""
    status = connection.scalar(select(jobs.c.status).where(jobs.c.id == job))
    return JobStatus(status) if status is not None else None
