"""The cleanup step: nothing of the job stays in scratch."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from storage import steps
from storage.steps import Lease
from workers.wiring import Parts


def cleanup(parts: Parts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Lists and deletes until the list is empty: what is put in between is seen too."""
    while keys := list(parts.scratch.list(f"{lease.job}/")):
        parts.scratch.delete(keys)

    def commit(connection: Connection) -> list[int]:
        steps.finish(connection, lease)
        return []

    return commit
