"""Locks a job's row. Every transaction that changes a job locks its row first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, select

from pipeline.types import JobStatus, Tier
from storage.account.ledger import of_reserve
from storage.queue.steps import JobGone
from storage.schema import jobs_table


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedJob:
    """The columns that are needed to end a chunk or a job. No other transaction can change them until this one ends."""

    id: str
    account: str
    round: int
    status: JobStatus
    fail_on_error: bool  #: the job fails if any image fails
    credits: int  #: credits charged so far, sum of all rounds
    warnings: Sequence[str]
    webhook_url: str | None  #: receives an event when the job ends
    request: str | None  #: id of the HTTP request that started the round, for the log
    result: str | None  #: result of the previous round, if there was one
    tier: Tier
    stored_bytes: int  #: what it keeps, as it was counted when the row was locked
    evidence: Sequence[str] | None  #: when its images need a review (pipeline.types.Review); None: it has no evidence


def lock_job(connection: Connection, job: str) -> LockedJob:
    """Locks the job's row until the transaction ends, and returns its values. Raises JobGone."""
    return _locked(locked_row(connection, _locked_job(), job))


def lock_first_round(connection: Connection, job: str) -> tuple[LockedJob, int]:
    """As `lock_job`, for a job in its first round. Returns the credits that the round has reserved too."""
    row = locked_row(connection, _locked_job(reserve=True), job)
    return _locked(row), row.reserved


def _locked(row: Row[Any]) -> LockedJob:
    return LockedJob(
        id=row.id,
        account=row.account,
        round=row.round,
        status=JobStatus(row.status),
        fail_on_error=row.fail_on_error,
        credits=row.credits,
        warnings=row.warnings,
        webhook_url=row.webhook_url,
        request=row.request_id,
        result=row.result,
        tier=Tier(row.tier),
        stored_bytes=row.stored_bytes,
        evidence=row.evidence,
    )


def locked_row(connection: Connection, statement: Select[Any], job: str) -> Row[Any]:
    """The row that a statement of `locking` finds. Raises JobGone."""
    row = connection.execute(statement, {"job": job}).one_or_none()
    if row is None:
        raise JobGone(f"there is no job {job}")
    return row


def locking(*columns: ColumnElement[Any]) -> Select[Any]:
    """A statement that reads these columns of one job (parameter `job`) and locks its row.

    The lock is `FOR NO KEY UPDATE`. It blocks other transactions that change the job, but not those that write a row which refers
    to the job. When a transaction writes such a row twice, Postgres checks the foreign key with `FOR KEY SHARE` on the job. That
    transaction already holds a step's lock, so blocking it could deadlock.
    """
    return select(*columns).where(jobs_table.c.id == bindparam("job")).with_for_update(key_share=True)


@cache
def _locked_job(*, reserve: bool = False) -> Select[Any]:
    columns = jobs_table.c
    reserved = [of_reserve(round_=1).scalar_subquery().label("reserved")] if reserve else []
    return locking(
        columns.id,
        columns.account,
        columns.round,
        columns.status,
        columns.fail_on_error,
        columns.credits,
        columns.warnings,
        columns.webhook_url,
        columns.request_id,
        columns.result,
        columns.tier,
        columns.stored_bytes,
        columns.evidence,
        *reserved,
    )
