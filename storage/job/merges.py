"""Answers that were made of others (pipeline/asking/synthesize.py): each is kept as it comes, so that none is paid for twice."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, insert, select

from pipeline.asking.synthesize import Merged
from storage.database import now_ms
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import jobs_table, merges_table


def known_merges(connection: Connection, job: str) -> dict[str, str | None]:
    """The text of each call, by its key; None: it gave nothing that can be used."""
    rows = connection.execute(select(merges_table.c.key, merges_table.c.text).where(merges_table.c.job == job))
    return {row.key: row.text for row in rows}


def record_merged(connection: Connection, lease: Lease, merged: Merged) -> None:
    """Keeps what one call of a finalize step came to. Raises LostLease."""
    steps.check(connection, lease)
    kept = {"job": lease.job, "key": merged.key, "text": merged.text, "usage": asdict(merged.usage)}
    connection.execute(insert(merges_table).values(**kept))


def time_left(connection: Connection, job: str) -> tuple[float, bool]:
    """Seconds to the job's deadline, and whether its caller holds a connection."""
    row = connection.execute(
        select((jobs_table.c.deadline_at - now_ms()).label("left"), jobs_table.c.waited).where(jobs_table.c.id == job)
    ).one()
    return row.left / 1000, row.waited
