"""Merged answers (pipeline/asking/synthesize.py). Each one is stored right after its call, so that no call is paid for twice."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, insert, select

from pipeline.asking.synthesize import Merged
from storage.database import now_ms
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import jobs_table, merges_table


def known_merges(connection: Connection, job: str) -> dict[str, str | None]:
    """The text of each stored merge, by key. None if the model's answer was not usable."""
    rows = connection.execute(select(merges_table.c.key, merges_table.c.text).where(merges_table.c.job == job))
    return {row.key: row.text for row in rows}


def record_merged(connection: Connection, lease: Lease, merged: Merged) -> None:
    """Stores the result of one merge call of a finalize step. Raises LostLease."""
    steps.check(connection, lease)
    kept = {"job": lease.job, "key": merged.key, "text": merged.text, "usage": asdict(merged.usage)}
    connection.execute(insert(merges_table).values(**kept))


def time_left(connection: Connection, job: str) -> tuple[float, bool]:
    """Seconds until the job's deadline, and whether a caller holds a connection for the job."""
    row = connection.execute(
        select((jobs_table.c.deadline_at - now_ms()).label("left"), jobs_table.c.waited).where(jobs_table.c.id == job)
    ).one()
    return row.left / 1000, row.waited
