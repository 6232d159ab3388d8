"""Merged answers (pipeline/asking/synthesize.py). Each one is stored right after its call, so that no call is paid for twice."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from pipeline.asking.synthesize import Merged
from storage.database import now_ms
from storage.job import money
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import jobs_table, merges_table


def known_merges(connection: Connection, job: str) -> dict[str, str | None]:
    """The text of each stored merge, by key. None if the model's answer was not usable."""
    rows = connection.execute(select(merges_table.c.key, merges_table.c.text).where(merges_table.c.job == job))
    return {row.key: row.text for row in rows}


def record_merged(connection: Connection, lease: Lease, merged: Merged, *, limited: bool = False) -> None:
    """Stores the result of one merge call of a finalize step. `limited`: the job has a limit of money. Raises LostLease."""
    if limited:
        money.spend(connection, lease, merged.usage.nanodollars)
    steps.check(connection, lease)
    kept = {"job": lease.job, "key": merged.key, "text": merged.text, "usage": merged.usage.to_store()}
    connection.execute(insert(merges_table).values(**kept))


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeWork:
    """The data that the merge calls of a job need."""

    left: float  #: seconds until the job's deadline
    waited: bool  #: a caller holds a connection for the job
    limited: bool  #: the job has a limit of money


def merge_work(connection: Connection, job: str) -> MergeWork:
    columns = jobs_table.c
    left = (columns.deadline_at - now_ms()).label("left")
    row = connection.execute(select(left, columns.waited, columns.max_money).where(columns.id == job)).one()
    return MergeWork(left=row.left / 1000, waited=row.waited, limited=row.max_money is not None)
