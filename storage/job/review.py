"""The evidence of a job's images, and which of them a person should look at. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, or_, select

from pipeline.evidence.faults import MESSAGES, EvidenceFault
from pipeline.job_object import ItemEvidence
from pipeline.types import ImageState, Review
from storage.schema import images_table, jobs_table

#: The columns that `evidence_of` needs.
COLUMNS = (images_table.c.evidence, images_table.c.needs_review)


def needs_review(reviews: Sequence[str], *, kept: bool) -> ColumnElement[bool]:
    """Whether an image of a job needs a review. `reviews`: those of the job. `kept`: it has ended and has not expired."""
    columns = images_table.c
    found: list[ColumnElement[bool]] = [columns.needs_review]
    if Review.FAILED in reviews:
        found.append(columns.state == ImageState.FAILED.value)
        if kept:
            found.append(and_(columns.state == ImageState.DONE.value, columns.evidence.is_(None)))
    return or_(*found)


def count_reviews(connection: Connection, jobs: Mapping[str, tuple[Sequence[str], bool]]) -> dict[str, int]:
    """How many images of each job need a review. `jobs`: by id, the arguments of `needs_review`."""
    counts = dict.fromkeys(jobs, 0)
    for job, state, marked, bare, count in connection.execute(_counted(), {"ids": list(jobs)}) if jobs else ():
        reviews, kept = jobs[job]
        failed = state == ImageState.FAILED or (state == ImageState.DONE and bare and kept)
        if marked or (failed and Review.FAILED in reviews):
            counts[job] += int(count)
    return counts


@cache
def _counted() -> Select[Any]:
    columns = images_table.c
    grouped = columns.job, columns.state, columns.needs_review, columns.evidence.is_(None)
    return select(*grouped, func.count()).where(columns.job.in_(bindparam("ids", expanding=True))).group_by(*grouped)


def count_ungrounded(connection: Connection, jobs: Sequence[str]) -> dict[str, int]:
    """How many images of each job were answered in its round and wait until their evidence is found."""
    counts = dict.fromkeys(jobs, 0)
    if jobs:
        counts |= {job: int(count) for job, count in connection.execute(_ungrounded(), {"ids": jobs})}
    return counts


@cache
def _ungrounded() -> Select[Any]:
    columns = images_table.c
    waiting = columns.state == ImageState.DONE.value, columns.evidence.is_(None), columns.attempts == jobs_table.c.round
    joined = select(columns.job, func.count()).join(jobs_table, jobs_table.c.id == columns.job)
    return joined.where(columns.job.in_(bindparam("ids", expanding=True)), *waiting).group_by(columns.job)


def evidence_of(row: Any, reviews: Sequence[str], *, kept: bool, shows: bool = True) -> ItemEvidence:
    """The evidence in a row with `at`, `custom_id`, `state` and COLUMNS. `reviews` and `kept`: as in `needs_review`.

    `shows`: whether the image's record may be shown now.
    """
    done = row.state == ImageState.DONE
    early = done and kept and row.evidence is None
    failed = Review.FAILED in reviews and (row.state == ImageState.FAILED or early)
    found: Mapping[str, Any] = (row.evidence if shows else None) or {}
    fault = found.get("fault")
    if early:
        fault = {"code": EvidenceFault.ENDED_EARLY.value, "message": MESSAGES[EvidenceFault.ENDED_EARLY]}
    return ItemEvidence(
        index=row.at,
        custom_id=row.custom_id,
        places=found.get("places"),
        unsupported=found.get("unsupported", ()),
        fault=fault,
        needs_review=row.needs_review or failed,
    )


def evidence_of_job(connection: Connection, job: str, reviews: Sequence[str]) -> list[ItemEvidence]:
    """The evidence of each image of a job that has ended and has not expired, in order."""
    return [evidence_of(row, reviews, kept=True) for row in connection.execute(_all(), {"job": job})]


@cache
def _all() -> Select[Any]:
    columns = images_table.c
    chosen = select(columns.index.label("at"), columns.custom_id, columns.state, *COLUMNS)
    return chosen.where(columns.job == bindparam("job")).order_by(columns.index)
