"""The finalize step: merge the replies in image order and close the job."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from pipeline.finalize import conclude
from storage import closing
from storage.harvest import harvest as harvest_of
from storage.steps import Lease
from workers.wiring import Parts


def finalize(parts: Parts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Merges outside of the transaction that holds the job's lock: nothing of the job changes any more."""
    with parts.database.read() as connection:
        harvest = harvest_of(connection, lease.job)
    return partial(closing.finish_job, lease=lease, verdict=conclude(harvest))
