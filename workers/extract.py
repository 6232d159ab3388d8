"""The extract step: a chunk's images to replies, each committed as it comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic

from sqlalchemy import Connection

from pipeline.ask import ask
from pipeline.models import most_pictures
from pipeline.packed import PackReader
from pipeline.stage import staged_in
from pipeline.validate import compile_schema
from storage import jobs
from storage.steps import Lease
from workers.turns import StepPaused, call_seconds, turn_seconds
from workers.wiring import Parts


def extract(parts: Parts, lease: Lease) -> Callable[[Connection], list[int]]:
    """Asks for every image of the chunk that has no reply yet; the commit records the last outcome."""
    with parts.database.read() as connection:
        work = jobs.work_of(connection, lease)
    if work.object is None:
        raise RuntimeError(f"chunk {lease.part} of job {lease.job} has no staged object")
    ends = monotonic() + work.left
    turn_ends = monotonic() + turn_seconds(parts.settings)
    with parts.scratch.open(work.object) as source:
        pack = PackReader(source)
        staged = [image for image in staged_in(pack) if image.index in work.pending]
        unsettled = {image.index for image in staged}
        outcomes = ask(
            staged,
            engine=parts.engine,
            question=work.question,
            load=pack.read,
            pictures=most_pictures(parts.models, [work.question.model, *work.question.fallback_models]),
            waited=work.waited,
            room=parts.room,
            timeout=partial(call_seconds, parts.settings, ends),
            validate=compile_schema(work.question.schema) if work.question.schema is not None else None,
            progress=work.progress,
        )
        for outcome in outcomes:
            unsettled -= {index for reply in outcome.replies for index in reply.indexes}
            unsettled -= {failure.index for failure in outcome.failures}
            commit = partial(jobs.record_outcome, lease=lease, outcome=outcome, last=not unsettled)
            if not unsettled:
                return commit
            with parts.database.write() as connection:
                commit(connection)
            parts.signals.tell(lease.job)
            if monotonic() > turn_ends:
                raise StepPaused
    raise RuntimeError(f"chunk {lease.part} of job {lease.job} has images without an outcome: {sorted(unsettled)}")
