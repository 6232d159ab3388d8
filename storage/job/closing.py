"""Ends a job, for any reason. Each function runs in one transaction and locks the job's row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import structlog
from sqlalchemy import BigInteger, Connection, Select, Update, bindparam, func, null, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from pipeline.credits import charge as price
from pipeline.finalize import Verdict, conclude
from pipeline.types import MAX_IMAGES, ImageState, ItemCode, JobStatus, StepKind
from storage.account import ledger
from storage.database import now_ms
from storage.job import deliveries, inputs, stored, totals
from storage.job.locked import LockedJob, lock_job
from storage.job.money import of_calls
from storage.job.outcome import job_outcome
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import OPEN_IMAGES, chunks_table, images_table, jobs_table, steps_table

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What a round's credits are settled by."""

    processed: int  #: images of the job that are done
    reserved: int  #: credits that the round has reserved
    money: int  #: cost of the round's model calls, in billionths of a dollar
    economy_money: int  #: the part of it that was paid for calls in the tier `economy`


def finish_job(connection: Connection, lease: Lease, verdict: Verdict) -> list[int]:
    """Ends the finalize step and its job. Returns the ids of the next steps. Raises LostLease."""
    job = lock_job(connection, lease.job)
    steps.finish(connection, lease)
    return close_job(connection, job, verdict)


def close_overdue(connection: Connection, job: str) -> list[int] | None:
    """Ends a job past its deadline with the results so far. Returns the ids of the next steps, or None if it had ended before.

    Raises JobGone.
    """
    locked = lock_job(connection, job)
    if locked.status.ended:
        return None
    late = (ItemCode.DEADLINE_EXCEEDED, "The job's deadline came before this image's turn.")
    return close_job(connection, locked, None, unsettled=late)


def close_unavailable(connection: Connection, job: str, reason: str) -> bool:
    """Ends a job whose model can't be asked, with the results so far. Without any result it fails and costs nothing.

    `reason`: why the model can't be asked, and how to mend it. Returns whether the job ended here: False if it had ended already,
    or is in a later round, which nobody holds open. Raises JobGone.
    """
    locked = lock_job(connection, job)
    if locked.status.ended or locked.round > 1:
        return False
    verdict = None
    if not connection.scalar(_processed(), {"job": job}):
        error = (ItemCode.MODEL_UNAVAILABLE.value, reason)
        verdict = Verdict(status=JobStatus.FAILED, result=None, error=error)
    close_job(connection, locked, verdict, unsettled=(ItemCode.MODEL_UNAVAILABLE, reason))
    return True


def cancel(connection: Connection, job: str) -> list[int]:
    """Ends a job with the results so far, at its owner's request.

    Returns the ids of the next steps, none if the job had already ended.
    """
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
    settled: Figures | None = None,
    unsettled: tuple[ItemCode, str] = (ItemCode.CANCELLED, "The job ended before this image's turn."),
) -> list[int]:
    """Ends a job: cancels its open steps, settles its credits, and adds the cleanup and webhook steps.

    `verdict`: the outcome of the job; None means that it follows from the outcomes of the images. `cancelled`: set the status to
    cancelled, whatever the verdict is. `settled`: the figures of a round whose last open step this transaction has ended, and all of whose
    images have an outcome. So there is nothing to cancel and nothing to fail, and the caller has added the cleanup step itself.
    `unsettled`: images without an outcome fail with this code and detail.

    Returns the ids of the next steps, none if the job had already ended.
    """
    if job.status.ended:
        return []
    # Cancel the steps before the images' rows are written. A step that records an outcome locks its own row and then its images,
    # so this order avoids a deadlock. After the cancel, no step can record an outcome any more.
    lease_left = 0
    if settled is None:
        lease_left = steps.cancel_open(connection, job=job.id, round_=job.round)
        fail_open_images(connection, job.id, *unsettled)
    verdict = verdict or conclude(job_outcome(connection, job.id))
    if verdict.status is JobStatus.FAILED and job.credits:
        verdict = _without_this_round(connection, job, verdict)
    found = settled or _figures_of(connection, job)
    charge = price(verdict.status, found.processed, fail_on_error=job.fail_on_error, charged=job.credits)
    if cancelled:
        verdict = replace(verdict, status=JobStatus.CANCELLED)
    same = {"account": job.account, "job": job.id}
    code, message = verdict.error or (None, None)
    warnings = [*job.warnings, *(text for text in verdict.warnings if text not in job.warnings)]
    ended = {"status": verdict.status.value, "error_code": code, "error_message": message}
    said = {stored.RESULT: verdict.result, stored.WARNINGS: warnings}
    row = connection.execute(_end_statement(connection.dialect.name), {"job": job.id, "charge": charge, **ended, **said}).one()
    facts = {**same, "request": job.request, "code": code, "credits": charge}
    if verdict.status is JobStatus.FAILED:
        log.warning("job_failed", **facts)
    else:
        log.info("job_ended", status=verdict.status.value, **facts)
    follow = [] if settled else steps.add(connection, job=job.id, round_=job.round, kind=StepKind.CLEANUP)
    if lease_left:
        # A worker with a cancelled step may still write to scratch until its lease expires. So clean up a second time after that.
        parts, delay = [inputs.AFTER_LEASES], lease_left + 1000
        steps.add(connection, job=job.id, round_=job.round, kind=StepKind.CLEANUP, parts=parts, delay_ms=delay)
    kept = row.stored_bytes
    if job.webhook_url:
        follow += deliveries.announce(connection, job)
        kept = stored.recount_job(connection, job.id)  # the delivery counts too
    # The account's row is written once, and late, so that it is locked for a short time.
    ledger.settle(
        connection,
        account=job.account,
        job=job.id,
        round_=job.round,
        reserved=found.reserved,
        charge=charge,
        money=found.money,
        economy_money=found.economy_money,
        stored_bytes=kept - job.stored_bytes,
    )
    still_in_scratch = row.input_bytes if row.inputs_expire_at is not None else 0
    totals.count_scratch(connection, job.id, still_in_scratch - row.scratch_bytes)
    return follow


@cache
def _processed() -> Select[int]:
    return (
        select(func.count())
        .select_from(images_table)
        .where(images_table.c.job == bindparam("job"), images_table.c.state == ImageState.DONE.value)
    )


def _figures_of(connection: Connection, job: LockedJob) -> Figures:
    row = connection.execute(_figures(), {"job": job.id, "round": job.round}).one()
    return Figures(
        processed=row.processed,
        reserved=row.reserved,
        money=max(int(row.money), 0),
        economy_money=max(int(row.economy_money), 0),
    )


@cache
def _figures() -> Select[Any]:
    """It is one statement, to save three trips to the database."""
    return select(
        _processed().scalar_subquery().label("processed"),
        ledger.of_reserve().scalar_subquery().label("reserved"),
        of_calls().scalar_subquery().label("money"),
        of_calls(economy=True).scalar_subquery().label("economy_money"),
    )


@cache
def _end_statement(dialect: str) -> ReturningUpdate[Any]:
    """Ends the job, and counts again what it keeps."""
    columns = jobs_table.c
    given: dict[str, Any] = {name: bindparam(name) for name in ("status", "error_code", "error_message")}
    said = {"result": stored.new_result(), "warnings": stored.new_warnings()}
    return (
        update(jobs_table)
        .where(columns.id == bindparam("job"))
        .values(
            started_at=func.coalesce(columns.started_at, now_ms()),
            finished_at=now_ms(),
            expires_at=now_ms() + columns.ttl_ms,
            inputs_expire_at=inputs.expiry(),
            credits=columns.credits + bindparam("charge", type_=BigInteger),
            stored_bytes=stored.kept(dialect, ending=True),
            **given,
            **said,
        )
        .returning(columns.scratch_bytes, columns.input_bytes, columns.inputs_expire_at, columns.stored_bytes)
    )


def _without_this_round(connection: Connection, job: LockedJob, failed: Verdict) -> Verdict:
    """Turns the failure of a whole round into a partial result, because the rounds before it are paid for.

    The results of the earlier rounds stay. The images of this round fail with the round's error.
    """
    code, message = failed.error or (ItemCode.INTERNAL_ERROR.value, "The round failed.")
    item_code = ItemCode.IMAGE_TOO_LARGE if code == "total_too_large" else ItemCode.INTERNAL_ERROR
    connection.execute(
        update(images_table)
        .where(images_table.c.job == job.id, images_table.c.attempts == job.round)
        .values(
            state=ImageState.FAILED.value,
            code=item_code.value,
            detail=message,
            result=null(),
            tier=None,
            evidence=None,
            needs_review=False,
        )
    )
    parts = select(steps_table.c.part).where(
        steps_table.c.job == job.id,
        steps_table.c.round == job.round,
        steps_table.c.kind.in_((StepKind.STAGE.value, StepKind.EXTRACT.value)),
    )
    connection.execute(update(chunks_table).where(chunks_table.c.job == job.id, chunks_table.c.no.in_(parts)).values(replies=[]))
    return Verdict(status=JobStatus.PARTIAL, result=job.result, error=None)


def finalize_next(connection: Connection, *, job: str, round_: int) -> list[int]:
    """Sets a job without open chunks to finalizing and adds its finalize step. The caller has locked the job.

    Returns the ids of the next steps.
    """
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
