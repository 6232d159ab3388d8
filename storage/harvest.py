"""What the steps of a job have brought in. Reads only."""

from __future__ import annotations

from sqlalchemy import Connection, select

from pipeline.finalize import Harvest
from pipeline.types import Failure, Form, ItemCode, Reply
from storage.questions import question_of
from storage.schema import chunks, images, jobs
from storage.steps import JobGone


def harvest(connection: Connection, job: str) -> Harvest:
    """What a finalize step merges. Raises JobGone."""
    row = connection.execute(
        select(jobs.c.prompt, jobs.c.options, jobs.c.total, jobs.c.fail_on_error).where(jobs.c.id == job)
    ).one_or_none()
    if row is None:
        raise JobGone(f"there is no job {job}")
    question = question_of(row.prompt, row.options)
    if question.form is Form.RECORDS:
        done = connection.execute(
            select(images.c.index.label("at"), images.c.result).where(images.c.job == job, images.c.state == "done")
        )
        replies = [Reply(indexes=(image.at,), text="", result=image.result) for image in done]
    else:
        kept = connection.execute(select(chunks.c.replies).where(chunks.c.job == job)).scalars()
        replies = [Reply(indexes=tuple(reply["indexes"]), text=reply["text"]) for part in kept for reply in part]
    return Harvest(
        question=question,
        total=row.total,
        replies=replies,
        failures=failures_of(connection, job),
        fail_on_error=row.fail_on_error,
    )


def failures_of(connection: Connection, job: str) -> list[Failure]:
    """The images of a job that failed, in order."""
    rows = connection.execute(
        select(images.c.index.label("at"), images.c.code, images.c.detail)
        .where(images.c.job == job, images.c.state == "failed")
        .order_by(images.c.index)
    )
    return [Failure(index=row.at, code=ItemCode(row.code), detail=row.detail) for row in rows]
