"""The finalize step: merges the replies in image order and closes the job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from sqlalchemy import Connection

from pipeline.asking.synthesize import ask_for, grow
from pipeline.finalize import JobOutcome, conclude, is_synthesized
from pipeline.tracing.spans import span
from pipeline.types import Reply
from storage.job import closing, merges
from storage.job.outcome import job_outcome
from storage.queue.steps import Lease
from workers.budgeted_engine import engine_of
from workers.time_slice import StepPaused, call_seconds, slice_seconds
from workers.wiring import WorkerParts


def finalize(parts: WorkerParts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Merges before the transaction that locks the job. This is safe, because nothing of the job changes any more.

    With `synthesize` the model combines several answers into one. If this step has failed before, it does not ask the model,
    so that the job ends.
    """
    with parts.database.read() as connection:
        outcome = job_outcome(connection, lease.job)
    able = parts.engine.limits.without_pictures and lease.tries == 0
    with span("merge", images=outcome.total):
        replies = _synthesized(parts, lease, outcome) if is_synthesized(outcome) and able else outcome.replies
        verdict = conclude(outcome, replies)
    return partial(closing.finish_job, lease=lease, verdict=verdict)


def _synthesized(parts: WorkerParts, lease: Lease, outcome: JobOutcome) -> Sequence[Reply]:
    """One answer, or the few answers that the model could not combine. Each call's answer is committed as it comes."""
    with parts.database.read() as connection:
        known = merges.known_merges(connection, lease.job)
        work = merges.merge_work(connection, lease.job)
    engine = engine_of(parts, lease, limited=work.limited)
    ends = monotonic() + work.left
    slice_ends = monotonic() + slice_seconds(parts.settings)
    while True:
        replies, merge = grow(outcome.replies, known)
        if merge is None:
            return replies
        if monotonic() > slice_ends:
            raise StepPaused
        timeout = partial(call_seconds, parts.settings, ends)
        merged = ask_for(merge, engine=engine, question=outcome.question, timeout=timeout, waited=work.waited)
        with parts.database.write() as connection:
            merges.record_merged(connection, lease, merged, limited=work.limited)
        known[merged.key] = merged.text
