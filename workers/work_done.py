"""What the work on a step has led to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from storage.queue.steps import Lease
from storage.redis.answers import Success
from workers.staged_object import StagedObject

#: Writes what a step has done. Returns the next steps: their ids, or the leases of those that are claimed already.
Commit = Callable[[Connection], Sequence[int | Lease]]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkDone:
    """The work of one step, which its transaction is to write."""

    commit: Commit
    in_hand: StagedObject | None = None  #: a staged object for the next step; the caller closes it
    answer: Success | None = None  #: of the job, which ends with this step; None: who waits for it reads SQL
