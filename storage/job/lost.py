"""What becomes of a chunk whose staged object is gone, as after the database was restored beside an empty bucket."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select, update

from pipeline.types import StepKind, StepState
from storage.job.locked import lock_job
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import chunks_table, steps_table


class LostAgain(Exception):
    """The chunk was staged again already in this round. Nothing was written."""


def stage_again(connection: Connection, lease: Lease) -> list[int]:
    """Replaces the extract step's chunk with a new one, whose images are fetched or decoded again. Images that have an outcome keep it.

    A chunk is replaced once in a round. So a bucket that loses everything at once does not make a job run until its deadline.

    Returns no ids, because any worker may take the new stage step. Raises LostAgain and LostLease.
    """
    lock_job(connection, lease.job)
    columns = chunks_table.c
    same = columns.first, columns.count.label("size"), columns.input
    lost = connection.execute(select(*same).where(columns.job == lease.job, columns.no == lease.part)).one()
    # Half of a chunk that was split because of a death has fewer images than the whole, so this finds only chunks that were lost.
    before = (
        select(columns.no)
        .join(steps_table, (steps_table.c.job == columns.job) & (steps_table.c.part == columns.no))
        .where(columns.job == lease.job, columns.first == lost.first, columns.count == lost.size)
        .where(steps_table.c.round == lease.round, steps_table.c.kind == StepKind.EXTRACT.value)
        .where(steps_table.c.state == StepState.SPLIT.value)
    )
    if connection.execute(before.limit(1)).first() is not None:
        raise LostAgain(f"chunk {lease.part} of job {lease.job}")
    steps.finish(connection, lease, state=StepState.SPLIT)
    of_chunk = update(chunks_table).where(columns.job == lease.job, columns.no == lease.part)
    connection.execute(of_chunk.values(open=False))  # it keeps the replies that it already has
    fresh = 1 + (connection.scalar(select(func.max(columns.no)).where(columns.job == lease.job)) or 0)
    # Without the progress, because an image may fail this time and then has no place in a planned call.
    new = {"job": lease.job, "no": fresh, "first": lost.first, "count": lost.size, "input": lost.input}
    connection.execute(insert(chunks_table).values(**new, open=True, replies=[], usage={}))
    steps.add(connection, job=lease.job, round_=lease.round, kind=StepKind.STAGE, parts=[fresh])
    return []
