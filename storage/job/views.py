"""The parts of a job that its owner may see. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select

from pipeline.job_object import AnswerView, JobView, ResultView
from pipeline.types import ImageState, JobStatus, Usage
from storage.database import now_ms
from storage.job.outcome import failures_of
from storage.job.review import count_reviews, count_ungrounded, evidence_of_job
from storage.schema import chunks_table, images_table, jobs_table, merges_table

_COLUMNS = tuple(attribute.name for attribute in fields(JobView) if attribute.name in jobs_table.c)


def job_view(connection: Connection, job: str, account: str) -> JobView | None:
    """The job; None if it does not exist or belongs to another account."""
    found = _views(connection, connection.execute(_one_job(), {"job": job, "account": account}).all())
    return found[0] if found else None


@cache
def _one_job() -> Select[Any]:
    return select_jobs().where(jobs_table.c.id == bindparam("job"), jobs_table.c.account == bindparam("account"))


def select_jobs() -> Select[Any]:
    """A query for the columns that `views_of` needs. Callers add conditions and an order."""
    return select(
        *(jobs_table.c[name] for name in _COLUMNS),
        jobs_table.c.result.is_not(None).label("has_result"),
        now_ms().label("now"),
    )


def views_of(connection: Connection, query: Select[Any]) -> list[JobView]:
    """The jobs of a query that was made from `select_jobs`, in the query's order."""
    return _views(connection, connection.execute(query).all())


def _views(connection: Connection, rows: Sequence[Row[Any]]) -> list[JobView]:
    ids = [row.id for row in rows]
    states: dict[str, dict[ImageState, int]] = {job: {} for job in ids}
    for job, state, count in connection.execute(_counted(), {"ids": ids}):
        states[job][ImageState(state)] = int(count)
    usages = dict.fromkeys(ids, Usage())
    for statement in (_usage_of_chunks(), _usage_of_merges()):
        for job, usage in connection.execute(statement, {"ids": ids}):
            usages[job] = usages[job].plus(Usage.stored(usage))
    reviewed = {row.id: (row.evidence, _is_kept(row)) for row in rows if row.evidence is not None}
    reviews = count_reviews(connection, reviewed)
    ungrounded = count_ungrounded(connection, [row.id for row in rows if row.id in reviewed and row.finished_at is None])
    return [
        _view(
            row,
            states[row.id],
            usages[row.id],
            needs_review=reviews.get(row.id, 0),
            progress=_progress(row, states[row.id], ungrounded=ungrounded.get(row.id, 0)),
        )
        for row in rows
    ]


# Each statement is built once and cached, because building it takes longer than running it.


@cache
def _counted() -> Select[Any]:
    of_jobs = images_table.c.job.in_(bindparam("ids", expanding=True))
    return (
        select(images_table.c.job, images_table.c.state, func.count())
        .where(of_jobs)
        .group_by(images_table.c.job, images_table.c.state)
    )


@cache
def _usage_of_chunks() -> Select[Any]:
    of_jobs = chunks_table.c.job.in_(bindparam("ids", expanding=True))
    return select(chunks_table.c.job, chunks_table.c.usage).where(of_jobs).order_by(chunks_table.c.no)


@cache
def _usage_of_merges() -> Select[Any]:
    of_jobs = merges_table.c.job.in_(bindparam("ids", expanding=True))
    return select(merges_table.c.job, merges_table.c.usage).where(of_jobs).order_by(merges_table.c.key)


def _is_kept(row: Row[Any]) -> bool:
    """Whether the job has ended, and its results have not expired."""
    return JobStatus(row.status).ended and row.expires_at is not None and row.expires_at > row.now


def _progress(row: Row[Any], states: dict[ImageState, int], *, ungrounded: int) -> float:
    """How much of the job is done, from 0 to 1. An image is staged and asked about, and with evidence it is also read by the OCR.

    Each of these counts the same. `ungrounded`: the images that were answered and that the OCR has yet to read.
    """
    if JobStatus(row.status).ended:
        return 1.0
    parts = 2 if row.evidence is None else 3
    settled = states.get(ImageState.DONE, 0) + states.get(ImageState.FAILED, 0)
    return float((settled + (states.get(ImageState.STAGED, 0) - ungrounded) / parts) / row.total)


def _view(row: Row[Any], states: dict[ImageState, int], usage: Usage, *, needs_review: int, progress: float) -> JobView:
    succeeded, failed = states.get(ImageState.DONE, 0), states.get(ImageState.FAILED, 0)
    status = JobStatus(row.status)
    expired = status.ended and not _is_kept(row)
    columns = {name: getattr(row, name) for name in _COLUMNS}
    if row.inputs_expire_at is not None and row.inputs_expire_at <= row.now:
        columns["inputs_expire_at"] = None  # a step deletes them
    return JobView(
        **{**columns, "status": status},
        succeeded=succeeded,
        failed=failed,
        progress=progress,
        usage=usage,
        needs_review=needs_review,
        expired=expired,
        has_result=status.ended and row.has_result and not expired,
    )


def result_view(connection: Connection, job: str) -> ResultView:
    """The result of a finished job that has not expired."""
    row = connection.execute(_result(), {"job": job}).one()
    return _result_view(connection, job, row, failed=True)


def _result_view(connection: Connection, job: str, row: Row[Any], *, failed: bool) -> ResultView:
    """`failed`: whether images of the job may have failed."""
    failures = failures_of(connection, job) if failed else []
    named = connection.execute(_named_failures(), {"job": job}) if failures else ()
    return ResultView(
        prompt=row.prompt,
        result=row.result or "",
        failures=failures,
        custom_ids={image.at: image.custom_id for image in named},
        evidence=None if row.evidence is None or row.result is None else evidence_of_job(connection, job, row.evidence),
    )


def answer_view(connection: Connection, job: str, account: str) -> AnswerView | None:
    """A job as its answer needs it, in one statement if no image of it has failed. Its result is only that of an ended job.

    None if it does not exist or belongs to another account.
    """
    row = connection.execute(_answer(), {"job": job, "account": account}).one_or_none()
    if row is None:
        return None
    status = JobStatus(row.status)
    return AnswerView(
        status=status,
        succeeded=row.succeeded,
        credits=row.credits,
        expired=status.ended and (row.expires_at is None or row.expires_at <= row.now),
        error_code=row.error_code,
        error_message=row.error_message,
        result=_result_view(connection, job, row, failed=status.ended and row.succeeded < row.total),
    )


@cache
def _answer() -> Select[Any]:
    done = images_table.c.job == jobs_table.c.id, images_table.c.state == ImageState.DONE.value
    names = ("status", "credits", "error_code", "error_message", "prompt", "result", "evidence", "total", "expires_at")
    return select(
        *(jobs_table.c[name] for name in names),
        select(func.count()).select_from(images_table).where(*done).scalar_subquery().label("succeeded"),
        now_ms().label("now"),
    ).where(jobs_table.c.id == bindparam("job"), jobs_table.c.account == bindparam("account"))


@cache
def _result() -> Select[Any]:
    return select(jobs_table.c.prompt, jobs_table.c.result, jobs_table.c.evidence).where(jobs_table.c.id == bindparam("job"))


@cache
def _named_failures() -> Select[Any]:
    failed = images_table.c.job == bindparam("job"), images_table.c.state == ImageState.FAILED.value
    return select(images_table.c.index.label("at"), images_table.c.custom_id).where(
        *failed, images_table.c.custom_id.is_not(None)
    )


def finished_at_of(connection: Connection, job: str) -> int | None:
    """When the job ended; None if it has not ended, its results have expired, or it was deleted.

    A caller compares two values to see whether the job is still in the same round.
    """
    return connection.scalar(select(jobs_table.c.finished_at).where(jobs_table.c.id == job, jobs_table.c.expires_at.is_not(None)))


def status_of(connection: Connection, job: str) -> JobStatus | None:
    """The job's status only. Waiters poll it between notifications."""
    status = connection.scalar(_status(), {"job": job})
    return JobStatus(status) if status is not None else None


@cache
def _status() -> Select[Any]:
    return select(jobs_table.c.status).where(jobs_table.c.id == bindparam("job"))


def is_waited(connection: Connection, job: str) -> bool:
    """Whether the request that made the job held its connection open."""
    return bool(connection.scalar(select(jobs_table.c.waited).where(jobs_table.c.id == job)))
