"""The end of a job, whoever brings it: one transaction each, on its locked row."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, Update, bindparam, func, null, select, update

from pipeline.credits import charge as price
from pipeline.finalize import Verdict, conclude
from pipeline.types import MAX_IMAGES, ImageState, ItemCode, JobStatus, StepKind
from storage.account import ledger
from storage.database import now_ms
from storage.job import deliveries
from storage.job.locked import LockedJob, lock_job
from storage.job.outcome import job_outcome
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import OPEN_IMAGES, chunks_table, images_table, jobs_table, steps_table


def finish_job(connection: Connection, lease: Lease, verdict: Verdict) -> list[int]:
    """Ends the finalize step and its job. Ids of the steps that follow. Raises LostLease."""
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease)
    return close_job(connection, job, verdict)


def close_overdue(connection: Connection, job: str) -> list[int]:
    """Ends a job past its deadline with what it has. Ids of the steps that follow."""
    locked = lock_job(connection, job)
    if locked.status.ended:
        return []
    late = (ItemCode.DEADLINE_EXCEEDED, "The job's deadline came before this image's turn.")
    return close_job(connection, locked, None, unsettled=late)


def cancel(connection: Connection, job: str) -> list[int]:
    """Ends a job because its owner says so, with what it has. Ids of the steps that follow; none if it had ended already."""
    locked = lock_job(connection, job)
    if locked.status.ended:
        return []
    return close_job(connection, locked, None, cancelled=True, unsettled=(ItemCode.CANCELLED, "The job was cancelled."))


def close_job(
    connection: Connection,
    job: LockedJob,
    verdict: Verdict | None,
    *,
    cancelled: bool = False,
    unsettled: tuple[ItemCode, str] = (ItemCode.CANCELLED, "The job ended before this image's turn."),
) -> list[int]:
    """Ends a job, for whatever reason: fences off open steps, settles the credits, orders the cleanup and the webhook.

    `verdict`: what came of the job; None: it is concluded from the outcomes of its images. `cancelled`: the job's status is
    cancelled, whatever the verdict says. `unsettled`: code and detail of the images that have no outcome yet: they fail with it.

    Ids of the steps that follow; none if the job had ended already.
    """
    if job.status.ended:
        return []
    # The fence first: a step that records an outcome holds its own row, then the images'; after it nothing is recorded.
    lease_left = steps.cancel_open(connection, job=job.id, round_=job.round)
    fail_open_images(connection, job.id, *unsettled)
    verdict = verdict or conclude(job_outcome(connection, job.id))
    if verdict.status is JobStatus.FAILED and job.credits:
        verdict = _without_this_round(connection, job, verdict)
    processed = connection.scalar(_processed(), {"job": job.id})
    charge = price(verdict.status, processed or 0, fail_on_error=job.fail_on_error, charged=job.credits)
    if cancelled:
        verdict = replace(verdict, status=JobStatus.CANCELLED)
    ledger.settle(connection, account=job.account, job=job.id, round_=job.round, charge=charge)
    code, message = verdict.error or (None, None)
    warnings = [*job.warnings, *(text for text in verdict.warnings if text not in job.warnings)]
    ended = {"status": verdict.status.value, "result": verdict.result, "error_code": code, "error_message": message}
    connection.execute(_end_statement(), {"of": job.id, "charge": charge, "warnings": warnings, **ended})
    follow = steps.add(connection, job=job.id, round_=job.round, kind=StepKind.CLEANUP)
    if lease_left:
        # A worker that is fenced off may still write to scratch until its lease runs out: look again then.
        steps.add(connection, job=job.id, round_=job.round, kind=StepKind.CLEANUP, parts=[1], delay_ms=lease_left + 1000)
    if job.webhook_url:
        follow += deliveries.announce(connection, job)
    return follow


@cache
def _processed() -> Select[int]:
    return (
        select(func.count())
        .select_from(images_table)
        .where(images_table.c.job == bindparam("job"), images_table.c.state == ImageState.DONE.value)
    )


@cache
def _end_statement() -> Update:
    given: dict[str, Any] = {name: bindparam(name) for name in ("status", "result", "error_code", "error_message", "warnings")}
    return (
        update(jobs_table)
        .where(jobs_table.c.id == bindparam("of"))
        .values(
            started_at=func.coalesce(jobs_table.c.started_at, now_ms()),
            finished_at=now_ms(),
            expires_at=now_ms() + jobs_table.c.ttl_ms,
            credits=jobs_table.c.credits + bindparam("charge", type_=BigInteger),
            **given,
        )
    )


def _without_this_round(connection: Connection, job: LockedJob, failed: Verdict) -> Verdict:
    """A round failed as a whole, and those before it are paid for: what they brought in stays as it was, and the images of
    this one fail with the round's fault."""
    code, message = failed.error or (ItemCode.INTERNAL_ERROR.value, "The round failed.")
    item_code = ItemCode.IMAGE_TOO_LARGE if code == "total_too_large" else ItemCode.INTERNAL_ERROR
    connection.execute(
        update(images_table)
        .where(images_table.c.job == job.id, images_table.c.attempts == job.round)
        .values(state=ImageState.FAILED.value, code=item_code.value, detail=message, result=null())
    )
    parts = select(steps_table.c.part).where(
        steps_table.c.job == job.id,
        steps_table.c.round == job.round,
        steps_table.c.kind.in_((StepKind.STAGE.value, StepKind.EXTRACT.value)),
    )
    connection.execute(update(chunks_table).where(chunks_table.c.job == job.id, chunks_table.c.no.in_(parts)).values(replies=[]))
    return Verdict(status=JobStatus.PARTIAL, result=job.result, error=None)


def finalize_next(connection: Connection, *, job: str, round_: int) -> list[int]:
    """Moves a job with no open chunk to finalizing; ids of the steps that follow. The caller has locked the job."""
    connection.execute(_finalizing(), {"of": job})
    return steps.add(connection, job=job, round_=round_, kind=StepKind.FINALIZE)


@cache
def _finalizing() -> Update:
    return update(jobs_table).where(jobs_table.c.id == bindparam("of")).values(status=JobStatus.FINALIZING.value)


def fail_open_images(
    connection: Connection, job: str, code: ItemCode, detail: str, *, between: tuple[int, int] | None = None
) -> None:
    least, most = between or (0, MAX_IMAGES)
    connection.execute(_fail_open(), {"of": job, "code": code.value, "detail": detail, "least": least, "most": most})


@cache
def _fail_open() -> Update:
    still_open = images_table.c.state.in_(OPEN_IMAGES)
    between = images_table.c.index.between(bindparam("least"), bindparam("most"))
    failed = {"state": ImageState.FAILED.value, "code": bindparam("code"), "detail": bindparam("detail")}
    return update(images_table).where(images_table.c.job == bindparam("of"), between, still_open).values(**failed)
