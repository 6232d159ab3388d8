"""The cleanup step: deletes all scratch objects of the job, except those of a later round and uploaded images that are kept."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from pipeline.scratch_key import ScratchKey, is_input, job_prefix
from storage.job import inputs
from storage.queue import steps
from storage.queue.steps import Lease
from workers.wiring import WorkerParts


def cleanup(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Lists and deletes until the list is empty, so that objects that are put meanwhile are deleted too."""
    needed = _needs_inputs(parts, lease)
    while keys := [key for key in parts.scratch.list(job_prefix(lease.job)) if _goes(key, lease, needed=needed)]:
        parts.scratch.delete(keys)

    def commit(connection: Connection) -> list[int]:
        forgotten = None if needed else inputs.forget(connection, lease.job)
        steps.finish(connection, lease)
        if forgotten:
            inputs.give_back(connection, lease.job, forgotten)
        return []

    return commit


def _needs_inputs(parts: WorkerParts, lease: Lease) -> bool:
    """Whether the uploaded images must stay. Without a request to keep them, the job's row is not locked."""
    with parts.database.read() as connection:
        if not inputs.asked_to_keep(connection, lease.job):
            return False
    with parts.database.write() as connection:
        return inputs.lock_needed(connection, lease.job)


def _goes(key: str, lease: Lease, *, needed: bool) -> bool:
    return not (needed and is_input(key)) and _round_of(key) <= lease.round


def _round_of(key: str) -> int:
    """The round that the object belongs to. Objects that belong to no chunk count as round 1, so that each cleanup deletes them."""
    parsed = ScratchKey.parse(key)
    return parsed.round if parsed else 1
