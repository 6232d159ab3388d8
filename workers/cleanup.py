"""The cleanup step: nothing of the job stays in scratch, but for a round that has begun since."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlalchemy import Connection

from storage.queue import steps
from storage.queue.steps import Lease
from workers.wiring import WorkerParts

_STAGED = re.compile(r"r(\d+)-")  # as workers/stage.py names them


def cleanup(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Lists and deletes until the list is empty: what is put in between is seen too."""
    while keys := [key for key in parts.scratch.list(f"{lease.job}/") if _round_of(key) <= lease.round]:
        parts.scratch.delete(keys)

    def commit(connection: Connection) -> list[int]:
        steps.finish(connection, lease)
        return []

    return commit


def _round_of(key: str) -> int:
    """The round that a scratch key belongs to: what came with the request is of the first."""
    named = _STAGED.match(key.partition("/")[2])
    return int(named[1]) if named else 1
