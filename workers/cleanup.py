"""The cleanup step: deletes all scratch objects of the job, except those of a later round."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from pipeline.scratch_key import ScratchKey, job_prefix
from storage.queue import steps
from storage.queue.steps import Lease
from workers.wiring import WorkerParts


def cleanup(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Lists and deletes until the list is empty, so that objects that are put meanwhile are deleted too."""
    while keys := [key for key in parts.scratch.list(job_prefix(lease.job)) if _round_of(key) <= lease.round]:
        parts.scratch.delete(keys)

    def commit(connection: Connection) -> list[int]:
        steps.finish(connection, lease)
        return []

    return commit


def _round_of(key: str) -> int:
    """The round that the object belongs to. Objects that belong to no chunk count as round 1, so that each cleanup deletes them."""
    parsed = ScratchKey.parse(key)
    return parsed.round if parsed else 1
