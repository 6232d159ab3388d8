"""Finds what the cleanup steps of several jobs must delete, and ends them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from pipeline.types import StepKind
from storage.job.inputs import AT_CLOSE
from storage.queue import steps
from storage.queue.steps import Lease
from storage.schema import chunks_table, jobs_table, steps_table

_WORK = (StepKind.STAGE.value, StepKind.EXTRACT.value, StepKind.FINALIZE.value)


def known_objects(connection: Connection, leases: Iterable[Lease]) -> dict[str, list[str]]:
    """Job → all of its scratch keys, for those leases of cleanup steps whose job has no others. The other leases' jobs are missing.

    A job has no other objects if each of its steps was claimed once at most. Then nobody else has worked on it, and the keys that the
    front door and the stage steps have recorded are all there are. Jobs with kept images or several rounds are missing too, and so are
    jobs with evidence, because SQL does not record the keys of what the OCR read.
    """
    jobs = [lease.job for lease in leases if lease.part == AT_CLOSE and lease.round == 1]
    found: dict[str, list[str]] = {}
    for row in connection.execute(_objects(), {"ids": jobs}):
        found.setdefault(row.id, []).extend(key for key in (row.input, row.object) if key)
    return found


def finish_all(connection: Connection, leases: Sequence[Lease]) -> None:
    """Ends cleanup steps. A lease that is not held any more is skipped, because whoever has the step now cleans again."""
    steps.finish_held(connection, sorted(leases, key=lambda lease: lease.step))


@cache
def _objects() -> Select[Any]:
    again = select(steps_table.c.id).where(
        steps_table.c.job == jobs_table.c.id, steps_table.c.kind.in_(_WORK), steps_table.c.epoch > 1
    )
    return (
        select(jobs_table.c.id, chunks_table.c.input, chunks_table.c.object)
        .join(chunks_table, chunks_table.c.job == jobs_table.c.id)
        .where(
            jobs_table.c.id.in_(bindparam("ids", expanding=True)),
            jobs_table.c.round == 1,
            jobs_table.c.keep_ms == 0,
            jobs_table.c.evidence.is_(None),
            jobs_table.c.finished_at.is_not(None),
            ~again.exists(),
        )
    )
