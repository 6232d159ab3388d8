"""A job's row, locked: whoever changes a job locks its row first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, select

from pipeline.types import JobStatus
from storage.queue.steps import JobGone
from storage.schema import jobs_table


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedJob:
    """What the end of a chunk or of a job has to know of the job's row. It stays true until the transaction ends."""

    id: str
    account: str
    round: int
    status: JobStatus
    fail_on_error: bool  #: all images or nothing
    credits: int  #: charged so far, all rounds together
    warnings: Sequence[str]
    webhook_url: str | None  #: who is told of its end
    result: str | None  #: of the round before, where there was one


def lock_job(connection: Connection, job: str) -> LockedJob:
    """Locks the job's row until the transaction ends, and reads it. Raises JobGone."""
    row = locked_row(connection, _locked_job(), job)
    return LockedJob(
        id=row.id,
        account=row.account,
        round=row.round,
        status=JobStatus(row.status),
        fail_on_error=row.fail_on_error,
        credits=row.credits,
        warnings=row.warnings,
        webhook_url=row.webhook_url,
        result=row.result,
    )


def locked_row(connection: Connection, statement: Select[Any], job: str) -> Row[Any]:
    """The row that a statement of `locking` finds. Raises JobGone."""
    row = connection.execute(statement, {"job": job}).one_or_none()
    if row is None:
        raise JobGone(f"there is no job {job}")
    return row


def locking(*columns: ColumnElement[Any]) -> Select[Any]:
    """Reads these columns of one job (parameter `job`), and locks its row.

    The lock (`FOR NO KEY UPDATE`) stops everybody else who changes the job. It does not stop who writes a row that refers to
    the job: when a transaction writes such a row twice, Postgres looks the job up with a lock of its own, and that
    transaction holds a step already, so waiting for the job could be a deadlock.
    """
    return select(*columns).where(jobs_table.c.id == bindparam("job")).with_for_update(key_share=True)


@cache
def _locked_job() -> Select[Any]:
    columns = jobs_table.c
    return locking(
        columns.id,
        columns.account,
        columns.round,
        columns.status,
        columns.fail_on_error,
        columns.credits,
        columns.warnings,
        columns.webhook_url,
        columns.result,
    )
