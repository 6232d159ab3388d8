"""The finalize step: merge the replies in image order and close the job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from sqlalchemy import Connection

from pipeline.asking.synthesize import ask_for, grow
from pipeline.finalize import Harvest, conclude, is_synthesized
from pipeline.types import Reply
from storage.job import closing, merges
from storage.job.outcome import harvest as harvest_of
from storage.queue.steps import Lease
from workers.time_slice import StepPaused, call_seconds, turn_seconds
from workers.wiring import Parts


def finalize(parts: Parts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Merges outside of the transaction that holds the job's lock: nothing of the job changes any more.

    With `synthesize` the model makes one answer of several. Should this step have failed of that it goes without, so that
    the job ends.
    """
    with parts.database.read() as connection:
        harvest = harvest_of(connection, lease.job)
    able = parts.engine.limits.without_pictures and lease.tries == 0
    replies = _synthesized(parts, lease, harvest) if is_synthesized(harvest) and able else harvest.replies
    return partial(closing.finish_job, lease=lease, verdict=conclude(harvest, replies))


def _synthesized(parts: Parts, lease: Lease, harvest: Harvest) -> Sequence[Reply]:
    """One answer, or the few that the model could not make one. Each call's answer is committed as it comes."""
    with parts.database.read() as connection:
        known = merges.known_merges(connection, lease.job)
        left, waited = merges.time_left(connection, lease.job)
    ends = monotonic() + left
    turn_ends = monotonic() + turn_seconds(parts.settings)
    while True:
        replies, merge = grow(harvest.replies, known)
        if merge is None:
            return replies
        if monotonic() > turn_ends:
            raise StepPaused
        timeout = partial(call_seconds, parts.settings, ends)
        merged = ask_for(merge, engine=parts.engine, question=harvest.question, timeout=timeout, waited=waited)
        with parts.database.write() as connection:
            merges.record_merged(connection, lease, merged)
        known[merged.key] = merged.text
