"""What the plan of economy jobs needs to know of them (pipeline/economy.py), and the steps that must be asked at the standard price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, case, func, select

from pipeline.economy import Backlog, Pace, last_moment
from pipeline.plan import RAW_BYTES
from pipeline.types import Question, StepKind, StepState, Tier
from storage.database import now_ms
from storage.job.questions import question_of
from storage.queue.steps import AHEAD, SLOW, JobGone, Lease
from storage.schema import OPEN_STATES, chunks_table, jobs_table, steps_table

PaceOf = Callable[[str, Question, int], Pace]  #: of a model's chunks: the model, the question, and the images of a chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a chunk of an economy job stands in the row of all calls that have no answer. The attributes are those of `last_moment`."""

    left: float
    after: int
    later: tuple[Backlog, ...]


def standing_of(connection: Connection, lease: Lease) -> Standing:
    """Where the lease's chunk stands. Raises JobGone."""
    rows = connection.execute(_open_jobs(), {"part": lease.part}).all()
    own = next((row for row in rows if row.id == lease.job), None)
    if own is None:
        raise JobGone(f"job {lease.job} is not open")
    return Standing(left=own.left / 1000, after=int(own.after) + _further(own), later=_later(own, rows))


def overdue_steps(connection: Connection, pace_of: PaceOf) -> list[int]:
    """The steps that nobody holds and whose last moment has come: slow ones, and those that stage images for slow ones."""
    rows = connection.execute(_open_jobs(), {"part": -1}).all()
    found: list[int] = []
    for row in rows:
        waiting = connection.execute(_waiting(), {"job": row.id}).all() if row.slow else []
        if not waiting:
            continue
        question = question_of(row.prompt, row.options)
        pace, later = pace_of(row.model, question, int(row.largest)), _later(row, rows)
        for step in waiting:
            if last_moment(left=row.left / 1000, after=int(step.after) + _further(row), later=later, pace=pace) > 0:
                break  # the steps after it have later moments
            found.append(int(step.id))
    return found


def _later(own: Any, rows: Sequence[Any]) -> tuple[Backlog, ...]:
    """The jobs of the same model that stand behind a job, because their deadlines are not before its deadline."""
    behind = (row for row in rows if row.model == own.model and (row.left, row.id) > (own.left, own.id))
    return tuple(Backlog(left=row.left / 1000, calls=int(row.calls) + _further(row)) for row in behind)


def _further(row: Any) -> int:
    """The most calls that a job has beside one for each chunk, because the pictures of a call have a limit of bytes."""
    return int(2 * row.scratch_bytes // RAW_BYTES)


@cache
def _open_jobs() -> Select[Any]:
    """The open economy jobs with their open chunks: how many there are, how many come after `part`, and the images of the largest."""
    columns, chunk = jobs_table.c, chunks_table.c
    slow = select(steps_table.c.id).where(
        steps_table.c.job == columns.id, steps_table.c.priority.in_((SLOW, AHEAD)), steps_table.c.state.in_(OPEN_STATES)
    )
    return (
        select(
            columns.id,
            columns.model,
            columns.prompt,
            columns.options,
            columns.scratch_bytes,
            (columns.deadline_at - now_ms()).label("left"),
            func.count().label("calls"),
            func.sum(case((chunk.no > bindparam("part"), 1), else_=0)).label("after"),
            func.max(chunk.count).label("largest"),
            slow.exists().label("slow"),
        )
        .join(chunks_table, chunk.job == columns.id)
        .where(columns.finished_at.is_(None), columns.tier == Tier.ECONOMY.value, chunk.open)
        .group_by(columns.id)
    )


@cache
def _waiting() -> Select[Any]:
    """The steps of a job that `overdue_steps` may give, the first chunk first, each with the number of open chunks after its own."""
    chunk = chunks_table.c
    after = select(func.count()).where(chunk.job == steps_table.c.job, chunk.open, chunk.no > steps_table.c.part)
    return (
        select(steps_table.c.id, after.correlate(steps_table).scalar_subquery().label("after"))
        .where(
            steps_table.c.job == bindparam("job"),
            steps_table.c.kind.in_((StepKind.STAGE.value, StepKind.EXTRACT.value)),
            steps_table.c.priority.in_((SLOW, AHEAD)),
            steps_table.c.state == StepState.READY.value,
        )
        .order_by(steps_table.c.part)
    )
