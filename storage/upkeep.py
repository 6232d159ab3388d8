"""What the supervisor asks of the jobs: those that are late, stranded, expired or over. One transaction each."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from storage.closing import finalize_next
from storage.database import now_ms
from storage.schema import chunks, deliveries, images, jobs, merges, steps


def overdue(connection: Connection, limit: int = 50) -> list[str]:
    """Open jobs past their deadline."""
    late = select(jobs.c.id).where(jobs.c.finished_at.is_(None), jobs.c.deadline_at < now_ms()).limit(limit)
    return list(connection.execute(late).scalars())


def finalize_stranded(connection: Connection) -> list[str]:
    """Gives each open job that has neither an open chunk nor a finalize step its finalize step; the jobs."""
    open_chunk = select(chunks.c.no).where(chunks.c.job == jobs.c.id, chunks.c.open).exists()
    finalizing = select(steps.c.id).where(steps.c.job == jobs.c.id, steps.c.round == jobs.c.round, steps.c.kind == "finalize")
    stranded = (
        select(jobs).where(jobs.c.finished_at.is_(None), ~open_chunk, ~finalizing.exists()).with_for_update(skip_locked=True)
    )
    rows = connection.execute(stranded).all()
    for row in rows:
        finalize_next(connection, row)
    return [row.id for row in rows]


def purge_expired(connection: Connection, limit: int = 50) -> list[str]:
    """Forgets the results of jobs whose time is over; the jobs. What they cost stays known."""
    late = list(
        connection.execute(
            select(jobs.c.id).where(jobs.c.expires_at < now_ms()).limit(limit).with_for_update(skip_locked=True)
        ).scalars()
    )
    if late:
        connection.execute(update(jobs).where(jobs.c.id.in_(late)).values(result=None, expires_at=None))
        connection.execute(update(images).where(images.c.job.in_(late)).values(result=None, source=None))
        connection.execute(update(chunks).where(chunks.c.job.in_(late)).values(replies=[], progress=None))
        connection.execute(update(merges).where(merges.c.job.in_(late)).values(text=None))
        delivered = deliveries.c.state != "pending"
        connection.execute(update(deliveries).where(deliveries.c.job.in_(late), delivered).values(body=None))
    return late


def scratch_owners(connection: Connection, names: Sequence[str]) -> dict[str, bool]:
    """Of those that are jobs: whether scratch may still be written for them (False: the job is over, and cleaned up)."""
    rows = connection.execute(
        select(
            jobs.c.id,
            jobs.c.finished_at.is_(None)
            | select(steps.c.id).where(steps.c.job == jobs.c.id, steps.c.state.in_(("ready", "leased"))).exists(),
        ).where(jobs.c.id.in_(names))
    )
    return {name: bool(busy) for name, busy in rows}
