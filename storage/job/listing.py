"""Jobs and images, page by page. Reads only. An index finds each page, so later pages are as fast as the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, or_, select, tuple_

from pipeline.job_object import ItemEvidence, JobView
from pipeline.types import Form, ImageState, JobStatus, Question
from storage.job.questions import question_of
from storage.job.review import COLUMNS, evidence_of, needs_review
from storage.job.views import select_jobs, views_of
from storage.schema import images_table, jobs_table


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemView:
    """One image of a job."""

    index: int  #: position in the request's `images`, from 0
    custom_id: str | None  #: the caller's name for the image
    source: str | None  #: the image's URL, or its file's name; None for base64, and after the job has expired
    state: ImageState
    code: str | None  #: pipeline.types.ItemCode of a failed image
    message: str | None  #: detail of the failure
    attempts: int  #: number of rounds that the image took part in
    note: str | None  #: remarks about the image (pipeline.notes)
    tier: str | None  #: the tier in which the call that answered it was served; None: no call answered it
    corrections: (
        dict[str, Any] | None
    )  #: what people changed (storage.job.corrections), with its `revision`; shown as `result` is
    result: Any  #: the image's own record, if the job makes records and they may be shown
    evidence: ItemEvidence | None = None  #: None: the job has no evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestView:
    """What the request of a job asked for, without its images."""

    input_method: str  #: url, base64 or upload
    question: Question
    fail_on_error: bool
    deadline_ms: int
    keep_ms: int
    max_money: int | None  #: billionths of a dollar
    tier: str  #: pipeline.types.Tier
    webhook_url: str | None
    evidence: Sequence[str] | None  #: when its images need a review (pipeline.types.Review); None: it has no evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFilter:
    """Which jobs a list shows. An attribute that is None leaves no job out."""

    status: JobStatus | None = None
    batch: str | None = None
    search: str | None = None  #: part of the job's name, id or batch, in small or large letters
    begin: int | None = None  #: made at this time or later; milliseconds since 1970
    end: int | None = None  #: made before this time


def jobs_page(
    connection: Connection, account: str, *, limit: int, wanted: JobFilter | None = None, after: tuple[int, str] | None = None
) -> list[JobView]:
    """The account's jobs, newest first. `after`: created_at and id of the last job on the previous page."""
    columns, wanted = jobs_table.c, wanted or JobFilter()
    query = select_jobs().where(columns.account == account)
    if wanted.status is not None:
        query = query.where(columns.status == wanted.status.value)
    if wanted.batch is not None:
        query = query.where(columns.batch == wanted.batch)
    if wanted.search is not None:
        query = query.where(
            or_(*(column.icontains(wanted.search, autoescape=True) for column in (columns.name, columns.id, columns.batch)))
        )
    if wanted.begin is not None:
        query = query.where(columns.created_at >= wanted.begin)
    if wanted.end is not None:
        query = query.where(columns.created_at < wanted.end)
    if after is not None:
        query = query.where(tuple_(jobs_table.c.created_at, jobs_table.c.id) < tuple_(*after))
    return views_of(connection, query.order_by(jobs_table.c.created_at.desc(), jobs_table.c.id.desc()).limit(limit))


def items_page(
    connection: Connection,
    job: JobView,
    *,
    limit: int,
    state: ImageState | None = None,
    checked: bool | None = None,
    reviewed: bool | None = None,
    after: int = -1,
) -> list[ItemView]:
    """The job's images in order. `reviewed`: only those that need a review, or only those that need none.

    `after`: the index of the last image on the previous page.
    """
    shows = job.has_result or (not job.status.ended and _will_be_paid(connection, job.id))
    columns = images_table.c
    query = select(
        columns.index.label("at"),
        columns.custom_id,
        columns.source,
        columns.state,
        columns.code,
        columns.detail,
        columns.attempts,
        columns.note,
        columns.tier,
        *([columns.result, columns.corrections, columns.revision] if shows else []),
        *(COLUMNS if job.evidence is not None else []),
    ).where(columns.job == job.id, columns.index > after)
    if state is not None:
        query = query.where(columns.state == state.value)
    if checked is not None:
        query = query.where(columns.checked.is_(checked))
    kept = job.status.ended and not job.expired
    if reviewed is not None:
        found = needs_review(job.evidence or (), kept=kept)
        query = query.where(found if reviewed else ~found)
    return [
        ItemView(
            index=row.at,
            custom_id=row.custom_id,
            source=None if job.expired else row.source,
            state=ImageState(row.state),
            code=row.code,
            message=row.detail,
            attempts=row.attempts,
            note=row.note,
            tier=row.tier,
            corrections={**row.corrections, "revision": row.revision} if shows and row.corrections else None,
            result=row.result if shows else None,
            evidence=None if job.evidence is None else evidence_of(row, job.evidence, kept=kept, shows=shows),
        )
        for row in connection.execute(query.order_by(columns.index).limit(limit))
    ]


def _will_be_paid(connection: Connection, job: str) -> bool:
    """Whether the records of a running job may be shown: the job can't end without their price because of its images.

    With `onError: fail`, one failed image makes all others free, so the records are shown only at the end. The same holds if
    the images are too large together. That is known once none of them waits to be staged.
    """
    waiting = select(images_table.c.index).where(images_table.c.job == job, images_table.c.state == ImageState.WAITING.value)
    runs = jobs_table.c.finished_at.is_(None), jobs_table.c.fail_on_error.is_(False), ~waiting.exists()
    return connection.scalar(select(jobs_table.c.id).where(jobs_table.c.id == job, *runs)) is not None


def question_of_job(connection: Connection, job: str) -> Question | None:
    """What the job asks. None if the job is gone."""
    row = connection.execute(select(jobs_table.c.prompt, jobs_table.c.options).where(jobs_table.c.id == job)).one_or_none()
    return question_of(row.prompt, row.options) if row is not None else None


def request_of_job(connection: Connection, job: str) -> RequestView | None:
    """What the request of the job asked for. None if the job is gone."""
    names = ("input_method", "fail_on_error", "deadline_ms", "keep_ms", "max_money", "tier", "webhook_url", "evidence")
    columns = (jobs_table.c[name] for name in (*names, "prompt", "options"))
    row = connection.execute(select(*columns).where(jobs_table.c.id == job)).one_or_none()
    if row is None:
        return None
    return RequestView(question=question_of(row.prompt, row.options), **{name: getattr(row, name) for name in names})


def corrected_items(connection: Connection, job: JobView) -> list[tuple[int, str | None, dict[str, Any]]]:
    """Index, customId and corrections of each image that people have changed or checked, in order."""
    columns = images_table.c
    changed = columns.job == job.id, columns.corrections.is_not(None)
    query = select(columns.index.label("at"), columns.custom_id, columns.corrections, columns.revision).where(*changed)
    rows = connection.execute(query.order_by(columns.index)) if job.has_result else ()
    return [(row.at, row.custom_id, {**row.corrections, "revision": row.revision}) for row in rows]


def form_of(connection: Connection, job: str) -> Form | None:
    """The form of the job's answers: a separate result for each image, or one text or JSON document. None if the job is gone."""
    question = question_of_job(connection, job)
    return question.form if question is not None else None
