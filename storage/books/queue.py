"""Checks that each open job has a step that drives it, and that no step is left over."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, case, func, or_, select, text

from pipeline.types import StepKind, StepState
from storage.books.findings import Checked, Tally
from storage.database import now_ms
from storage.schema import (
    OPEN_STATES,
    OPEN_STEP,
    chunks_table,
    deliveries_table,
    images_table,
    jobs_table,
    merges_table,
    steps_table,
)

OWNERLESS, STEPS, LEASES, DEADLINES, WEBHOOKS = "ownerless", "steps", "leases", "deadlines", "webhooks"
LEASE_MS = 60_000  #: the supervisor takes an expired lease back within seconds
DEADLINE_MS = 120_000  #: the supervisor ends 50 overdue jobs a second
WEBHOOK_MS = 600_000  #: for which a webhook may be due and not sent
_WORK = tuple(kind.value for kind in (StepKind.STAGE, StepKind.EXTRACT, StepKind.GROUND, StepKind.FINALIZE))


def ownerless(connection: Connection) -> Checked:
    """Whether each row that belongs to a job has its job. A restored or edited database may have lost it."""
    tally = Tally(OWNERLESS)
    for table in (steps_table, chunks_table, images_table, merges_table):
        tally.looked_at += connection.scalar(select(func.count()).select_from(table)) or 0
        known = select(jobs_table.c.id).where(jobs_table.c.id == table.c.job).exists()
        lost = select(table.c.job, func.count().label("rows")).where(~known).group_by(table.c.job)
        for row in connection.execute(lost):
            tally.add(f"{row.rows} {table.name} of job {row.job}, which does not exist", times=row.rows)
    return tally.checked()


def steps(connection: Connection) -> Checked:
    """Whether each open job has an open step, and each open step that works on images an open job."""
    tally = Tally(STEPS)
    tally.looked_at = connection.scalar(select(func.count()).where(text(f"steps.{OPEN_STEP}")).select_from(steps_table)) or 0
    for row in connection.execute(_undriven()):
        tally.add(f"job {row.id} is {row.status}, and no step drives it")
    for row in connection.execute(_left_over()):
        tally.add(f"step {row.id} ({row.kind}) of job {row.job} is open, and its round has ended")
    return tally.checked()


def leases(connection: Connection) -> Checked:
    """Whether somebody takes expired leases back."""
    tally = Tally(LEASES)
    leased = steps_table.c.state == StepState.LEASED.value
    tally.looked_at = connection.scalar(select(func.count()).select_from(steps_table).where(text(OPEN_STEP), leased)) or 0
    columns = steps_table.c
    late = select(columns.id, columns.job, columns.owner, (now_ms() - columns.lease_until).label("late"))
    for row in connection.execute(late.where(text(OPEN_STEP), leased, columns.lease_until < now_ms())):
        if row.late > LEASE_MS:
            tally.add(f"step {row.id} of job {row.job}: the lease of {row.owner} ended {row.late // 1000} s ago")
        else:
            tally.in_flight += 1
    return tally.checked()


def deadlines(connection: Connection) -> Checked:
    """Whether somebody ends jobs at their deadline."""
    tally = Tally(DEADLINES)
    jobs = jobs_table.c
    tally.looked_at = connection.scalar(select(func.count()).where(jobs.finished_at.is_(None))) or 0
    late = select(jobs.id, (now_ms() - jobs.deadline_at).label("late"))
    for row in connection.execute(late.where(jobs.finished_at.is_(None), jobs.deadline_at < now_ms())):
        if row.late > DEADLINE_MS:
            tally.add(f"job {row.id} is open {row.late // 1000} s after its deadline")
        else:
            tally.in_flight += 1
    return tally.checked()


def webhooks(connection: Connection) -> Checked:
    """Whether each webhook that was not delivered will be sent. Those that wait for their next attempt are in flight.

    A webhook that was given up after its last attempt is no finding, because its owner sees it and may resend it.
    """
    tally = Tally(WEBHOOKS)
    for row in connection.execute(_pending()):
        tally.looked_at += 1
        if row.state is None:
            tally.add(f"webhook {row.id} of job {row.job} was not delivered, and no step sends it")
        elif row.state == StepState.READY.value and row.due > WEBHOOK_MS:
            tally.add(f"webhook {row.id} of job {row.job} is due for {row.due // 1000} s")
        else:
            tally.in_flight += 1
    return tally.checked()


@cache
def _undriven() -> Select[Any]:
    jobs, columns = jobs_table.c, steps_table.c
    of_round = columns.job == jobs.id, columns.round == jobs.round, columns.kind.in_(_WORK), columns.state.in_(OPEN_STATES)
    return select(jobs.id, jobs.status).where(jobs.finished_at.is_(None), ~select(columns.id).where(*of_round).exists())


@cache
def _left_over() -> Select[Any]:
    jobs, columns = jobs_table.c, steps_table.c
    ended = or_(jobs.finished_at.is_not(None), jobs.round != columns.round)
    joined = select(columns.id, columns.kind, columns.job).join(jobs_table, jobs.id == columns.job)
    return joined.where(text(f"steps.{OPEN_STEP}"), columns.kind.in_(_WORK), ended)


@cache
def _pending() -> Select[Any]:
    """The webhooks that are not delivered, with the state of the step that sends each, and for how many milliseconds it is due."""
    told, columns = deliveries_table.c, steps_table.c
    since = case((columns.not_before > columns.added_at, columns.not_before), else_=columns.added_at)
    sends = (columns.job == told.job) & (columns.round == told.round) & (columns.kind == StepKind.WEBHOOK.value)
    joined = deliveries_table.outerjoin(steps_table, sends & columns.state.in_(OPEN_STATES))
    shown = select(told.id, told.job, columns.state, (now_ms() - since).label("due")).select_from(joined)
    return shown.where(told.state == "pending")
