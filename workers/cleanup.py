"""The cleanup step: nothing of the job stays in scratch, but for a round that has begun since."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from pipeline.scratch_key import ScratchKey, job_prefix
from storage.queue import steps
from storage.queue.steps import Lease
from workers.wiring import WorkerParts


def cleanup(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Lists and deletes until the list is empty: what is put in between is seen too."""
    while keys := [key for key in parts.scratch.list(job_prefix(lease.job)) if _round_of(key) <= lease.round]:
        parts.scratch.delete(keys)

    def commit(connection: Connection) -> list[int]:
        steps.finish(connection, lease)
        return []

    return commit


def _round_of(key: str) -> int:
    """The round that the object belongs to; the first for what is no object of a chunk, so that each cleanup deletes it."""
    parsed = ScratchKey.parse(key)
    return parsed.round if parsed else 1
