"""The supervisor's transactions: it finds jobs that are overdue, stranded, expired or ended."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select, update

from pipeline.types import StepKind
from storage.database import now_ms
from storage.job import stored
from storage.job.closing import finalize_next
from storage.schema import OPEN_STATES, chunks_table, deliveries_table, images_table, jobs_table, merges_table, steps_table


def overdue(connection: Connection, limit: int = 50) -> list[str]:
    """Open jobs past their deadline."""
    return list(connection.execute(_overdue(), {"most": limit}).scalars())


@cache
def _overdue() -> Select[str]:
    late = (jobs_table.c.finished_at.is_(None), jobs_table.c.deadline_at < now_ms())
    return select(jobs_table.c.id).where(*late).limit(bindparam("most"))


def any_stranded(connection: Connection) -> bool:
    """Whether there is a job for `finalize_stranded`. Most of the time there is none, and a read costs less than a write."""
    return connection.scalar(_first_stranded()) is not None


def finalize_stranded(connection: Connection) -> list[str]:
    """Adds a finalize step to each open job that has neither an open chunk nor a finalize step. Returns these jobs."""
    rows = connection.execute(_stranded().with_for_update(skip_locked=True)).all()
    for row in rows:
        finalize_next(connection, job=row.id, round_=row.round)
    return [row.id for row in rows]


@cache
def _first_stranded() -> Select[Any]:
    return _stranded().limit(1)


def _stranded() -> Select[Any]:
    open_chunk = select(chunks_table.c.no).where(chunks_table.c.job == jobs_table.c.id, chunks_table.c.open).exists()
    finalizing = select(steps_table.c.id).where(
        steps_table.c.job == jobs_table.c.id,
        steps_table.c.round == jobs_table.c.round,
        steps_table.c.kind == StepKind.FINALIZE.value,
    )
    return select(jobs_table.c.id, jobs_table.c.round).where(
        jobs_table.c.finished_at.is_(None), ~open_chunk, ~finalizing.exists()
    )


def purge_expired(connection: Connection, limit: int = 50) -> list[str]:
    """Deletes the results of expired jobs and returns these jobs. The jobs' costs are kept."""
    late = list(
        connection.execute(
            select(jobs_table.c.id).where(jobs_table.c.expires_at < now_ms()).limit(limit).with_for_update(skip_locked=True)
        ).scalars()
    )
    if late:
        connection.execute(update(jobs_table).where(jobs_table.c.id.in_(late)).values(result=None, expires_at=None))
        connection.execute(
            update(images_table)
            .where(images_table.c.job.in_(late))
            .values(result=None, source=None, corrections=None, checked=False, evidence=None)
        )
        connection.execute(update(chunks_table).where(chunks_table.c.job.in_(late)).values(replies=[], progress=None))
        connection.execute(update(merges_table).where(merges_table.c.job.in_(late)).values(text=None))
        delivered = deliveries_table.c.state != "pending"
        connection.execute(update(deliveries_table).where(deliveries_table.c.job.in_(late), delivered).values(body=None))
        stored.recount(connection, late)
    return late


class Owner(Enum):
    """What a job still needs of its scratch objects."""

    BUSY = auto()  #: all of them: the job has not ended, or its cleanup has not
    KEPT = auto()  #: the uploaded images, for a retry; a step deletes them when they expire
    DONE = auto()  #: none


def scratch_owners(connection: Connection, names: Sequence[str]) -> dict[str, Owner]:
    """For each name that is a job's id: what the job still needs of its scratch objects."""
    rows = connection.execute(
        select(
            jobs_table.c.id,
            jobs_table.c.finished_at.is_(None)
            | select(steps_table.c.id).where(steps_table.c.job == jobs_table.c.id, steps_table.c.state.in_(OPEN_STATES)).exists(),
            jobs_table.c.inputs_expire_at.is_not(None),
        ).where(jobs_table.c.id.in_(names))
    )
    return {name: Owner.BUSY if busy else Owner.KEPT if kept else Owner.DONE for name, busy, kept in rows}
