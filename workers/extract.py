"""The extract step: asks the engine about a chunk's images, and commits each reply as it comes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from time import monotonic
from typing import IO

from sqlalchemy import Connection

from pipeline.asking.ask import ChunkOutcome, ask
from pipeline.asking.memory_budget import MemoryBudget
from pipeline.models import most_pictures
from pipeline.packed import PackReader
from pipeline.ports import Engine
from pipeline.records.answer_key import answer_key
from pipeline.records.validate import compile_schema
from pipeline.stage import staged_in
from pipeline.types import Form, Reply, Staged, Tier, Usage
from storage.account import answers
from storage.job import chunk_work, chunks
from storage.job.chunk_work import ChunkWork
from storage.queue.steps import Lease
from workers.budgeted_engine import engine_of
from workers.economy import EconomyEngine, look_before_reading, on_disk, pace_of_chunks
from workers.staged_object import StagedObject
from workers.time_slice import StepPaused, call_seconds, slice_seconds
from workers.wiring import WorkerParts


def extract(parts: WorkerParts, lease: Lease, in_hand: StagedObject | None = None) -> Callable[[Connection], list[int]]:
    """Asks about every image of the chunk that has no reply yet. The returned commit records the last outcome.

    `in_hand` is the object that this thread staged just before. If it is the chunk's object, scratch is not read.
    """
    with parts.database.read() as connection:
        work = chunk_work.work_of(connection, lease)
    if work.object is None:
        raise RuntimeError(f"chunk {lease.part} of job {lease.job} has no staged object")
    slice_ends = monotonic() + slice_seconds(parts.settings)
    if lease.slow:
        look_before_reading(parts, work.question.model)
    with (in_hand and in_hand.opened(work.object)) or _opened(parts, lease, work.object) as source:
        pack = PackReader(source)
        staged = [image for image in staged_in(pack) if image.index in work.pending]
        keys = keys_of(parts, work, staged)
        unsettled = {image.index for image in staged}
        engine = _engine(parts, lease, work)
        memory = parts.slow_memory if lease.slow else parts.memory_budget
        for outcome, fresh in outcomes(parts, work, staged, pack, keys, engine=engine, memory=memory):
            unsettled -= {index for reply in outcome.replies for index in reply.indexes}
            unsettled -= {failure.index for failure in outcome.failures}
            to_keep = records(outcome, keys) if fresh else {}
            commit = partial(_record, parts, work, to_keep, outcome, lease=lease, last=not unsettled)
            if not unsettled:
                return commit
            with parts.database.write() as connection:
                commit(connection)
            parts.signals.tell(lease.job, ended=False, answered=True)
            if monotonic() > slice_ends:
                raise StepPaused
    raise RuntimeError(f"chunk {lease.part} of job {lease.job} has images without an outcome: {sorted(unsettled)}")


def _opened(parts: WorkerParts, lease: Lease, key: str) -> IO[bytes]:
    """The chunk's object, which the caller closes."""
    source = parts.scratch.open(key)
    return on_disk(source) if lease.slow else source


def _engine(parts: WorkerParts, lease: Lease, work: ChunkWork) -> Engine:
    """The engine for the chunk's calls."""
    late = work.tier is Tier.ECONOMY and not lease.slow and not lease.alone
    engine = engine_of(parts, lease, limited=work.limited, late=late)
    if not lease.slow:
        return engine
    pace = pace_of_chunks(parts, work.question.model, work.question, work.count)
    return EconomyEngine(parts=parts, lease=lease, inner=engine, pace=pace)


def outcomes(
    parts: WorkerParts,
    work: ChunkWork,
    staged: Sequence[Staged],
    pack: PackReader,
    keys: dict[int, str],
    *,
    engine: Engine,
    memory: MemoryBudget,
) -> Generator[tuple[ChunkOutcome, bool]]:
    """Yields the outcome of the cached records, then one outcome per model call. The flag says whether the model was asked."""
    question = work.question
    known = _known(parts, work, keys)
    if known:
        replies = tuple(Reply(indexes=(index,), text="", result=result) for index, result in known.items())
        yield ChunkOutcome(replies=replies, usage=Usage(cache_hits=len(known)), progress=work.progress), False
    asked = ask(
        [image for image in staged if image.index not in known],
        engine=engine,
        question=question,
        load=pack.read,
        pictures=most_pictures(parts.models, [question.model, *question.fallback_models]),
        waited=work.waited,
        memory=memory,
        timeout=partial(call_seconds, parts.settings, monotonic() + work.left),
        validate=compile_schema(question.schema) if question.schema is not None else None,
        progress=work.progress,
    )
    for outcome in asked:
        yield outcome, True


def keys_of(parts: WorkerParts, work: ChunkWork, staged: Sequence[Staged]) -> dict[int, str]:
    """Image index → the key of its cached record. Empty if records are not to be kept."""
    if not (work.question.cache and parts.settings.cache_ttl and work.question.form is Form.RECORDS):
        return {}
    return {image.index: answer_key(work.question, engine=parts.engine.name, sha256=image.sha256) for image in staged}


def _known(parts: WorkerParts, work: ChunkWork, keys: dict[int, str]) -> dict[int, object]:
    if not keys:
        return {}
    with parts.database.read() as connection:
        known = answers.known_answers(connection, work.account, keys.values())
    return {index: known[key] for index, key in keys.items() if key in known}


def records(outcome: ChunkOutcome, keys: dict[int, str]) -> dict[str, object]:
    """Key → record of a model call. Empty if there are no `keys`, that is, if records are not to be kept."""
    return {keys[reply.indexes[0]]: reply.result for reply in outcome.replies} if keys else {}


def _record(
    parts: WorkerParts,
    work: ChunkWork,
    to_keep: dict[str, object],
    outcome: ChunkOutcome,
    connection: Connection,
    *,
    lease: Lease,
    last: bool,
) -> list[int]:
    """Writes one outcome, and keeps the records `to_keep`, by key, for later requests that ask the same.

    Returns the ids of the steps that follow. Raises LostLease.
    """
    follow = chunks.record_outcome(connection, lease, outcome, last=last, limited=work.limited)
    answers.keep_answers(connection, work.account, to_keep, ttl_ms=int(parts.settings.cache_ttl * 1000))
    return follow
