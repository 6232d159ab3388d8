"""The replies and failures of a job so far. Reads only."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from pipeline.finalize import JobOutcome
from pipeline.types import Failure, Form, ImageState, ItemCode, Reply
from storage.job.questions import question_of
from storage.queue.steps import JobGone
from storage.schema import chunks_table, images_table, jobs_table


def job_outcome(connection: Connection, job: str) -> JobOutcome:
    """The outcome of a job, for the finalize step to merge. Raises JobGone."""
    row = connection.execute(_asked(), {"job": job}).one_or_none()
    if row is None:
        raise JobGone(f"there is no job {job}")
    question = question_of(row.prompt, row.options)
    if question.form is Form.RECORDS:
        replies = [Reply(indexes=(row.at,), text="", result=row.result) for row in connection.execute(_records(), {"job": job})]
    else:
        kept = connection.execute(_replies(), {"job": job}).scalars()
        replies = [Reply(indexes=tuple(reply["indexes"]), text=reply["text"]) for part in kept for reply in part]
    return JobOutcome(
        question=question,
        total=row.total,
        replies=replies,
        failures=failures_of(connection, job),
        fail_on_error=row.fail_on_error,
    )


def failures_of(connection: Connection, job: str) -> list[Failure]:
    """The failed images of a job, by index."""
    rows = connection.execute(_failed(), {"job": job})
    return [Failure(index=row.at, code=ItemCode(row.code), detail=row.detail) for row in rows]


# Each statement is built once and cached, because building it takes longer than running it.


@cache
def _asked() -> Select[Any]:
    return select(jobs_table.c.prompt, jobs_table.c.options, jobs_table.c.total, jobs_table.c.fail_on_error).where(
        jobs_table.c.id == bindparam("job")
    )


@cache
def _records() -> Select[Any]:
    of_job = images_table.c.job == bindparam("job")
    return select(images_table.c.index.label("at"), images_table.c.result).where(
        of_job, images_table.c.state == ImageState.DONE.value
    )


@cache
def _replies() -> Select[Any]:
    return select(chunks_table.c.replies).where(chunks_table.c.job == bindparam("job"))


@cache
def _failed() -> Select[Any]:
    of_job = images_table.c.job == bindparam("job")
    failed = select(images_table.c.index.label("at"), images_table.c.code, images_table.c.detail).where(
        of_job, images_table.c.state == ImageState.FAILED.value
    )
    return failed.order_by(images_table.c.index)
