"""The current state of the service, read from the database for /metrics."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, case, func, select, text

from pipeline.types import StepKind, StepState
from storage.database import now_ms
from storage.queue.steps import AHEAD, SLOW
from storage.schema import OPEN_STEP, accounts_table, jobs_table, steps_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """The open steps of one kind."""

    due: int  #: steps that a worker could claim now
    waiting: int  #: steps that are not due yet: their model is unavailable, or a webhook waits for its next attempt
    leased: int  #: steps that a worker has claimed
    age: float  #: seconds for which the oldest due step has been due
    slow_age: float  #: the same for steps whose calls are asked in the tier economy, or that stage images for them


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    """The service's queues, jobs, scratch and credits now."""

    queues: dict[str, Queue]  #: by kind of step
    open_jobs: dict[str, int]  #: by status
    scratch_bytes: int  #: bytes in scratch for open jobs
    kept_bytes: int  #: bytes of uploaded images that are kept for jobs that have ended
    deadlines: dict[str, float]  #: tier → seconds until the next deadline of an open job; negative: it has passed
    credits: dict[str, int]  #: sums over all accounts, by state: available, held, charged


def gauges(connection: Connection) -> Gauges:
    """Reads the gauges. The queries use indexes of open rows only, so ended jobs cost nothing."""
    queues = {kind.value: Queue(due=0, waiting=0, leased=0, age=0.0, slow_age=0.0) for kind in StepKind}
    ready = steps_table.c.state == StepState.READY.value
    is_slow = steps_table.c.priority.in_((SLOW, AHEAD))
    is_due = and_(ready, steps_table.c.not_before <= now_ms())
    since = case((steps_table.c.not_before > steps_table.c.added_at, steps_table.c.not_before), else_=steps_table.c.added_at)
    found = select(
        steps_table.c.kind,
        func.count(case((is_due, 1))).label("due"),
        func.count(case((ready, 1))).label("ready"),
        func.count(case((steps_table.c.state == StepState.LEASED.value, 1))).label("leased"),
        func.max(case((and_(is_due, ~is_slow), now_ms() - since), else_=0)).label("age"),
        func.max(case((and_(is_due, is_slow), now_ms() - since), else_=0)).label("slow_age"),
    )
    for row in connection.execute(found.where(text(OPEN_STEP)).group_by(steps_table.c.kind)):
        age, slow_age = max(row.age, 0) / 1000, max(row.slow_age, 0) / 1000
        queues[row.kind] = Queue(due=row.due, waiting=row.ready - row.due, leased=row.leased, age=age, slow_age=slow_age)
    of_open = select(jobs_table.c.status, func.count().label("jobs"), func.sum(jobs_table.c.scratch_bytes).label("bytes"))
    rows = connection.execute(of_open.where(jobs_table.c.finished_at.is_(None)).group_by(jobs_table.c.status)).all()
    left = select(jobs_table.c.tier, func.min(jobs_table.c.deadline_at - now_ms()).label("left"))
    ends = connection.execute(left.where(jobs_table.c.finished_at.is_(None)).group_by(jobs_table.c.tier)).all()
    kept = connection.scalar(select(func.sum(jobs_table.c.input_bytes)).where(jobs_table.c.inputs_expire_at.is_not(None)))
    money = connection.execute(
        select(func.sum(accounts_table.c.available), func.sum(accounts_table.c.held), func.sum(accounts_table.c.charged))
    ).one()
    return Gauges(
        queues=queues,
        open_jobs={"queued": 0, "running": 0, "finalizing": 0} | {row.status: row.jobs for row in rows},
        scratch_bytes=sum(int(row.bytes) for row in rows),
        kept_bytes=int(kept or 0),
        deadlines={row.tier: row.left / 1000 for row in ends},
        credits={state: int(amount or 0) for state, amount in zip(("available", "held", "charged"), money, strict=True)},
    )
