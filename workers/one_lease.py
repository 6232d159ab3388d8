"""Carries a small job that somebody waits for to its end under the lease of its stage step: see docs/adr/0044."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import IO

from sqlalchemy import Connection

from pipeline.asking.ask import ChunkOutcome
from pipeline.credits import charge
from pipeline.finalize import JobOutcome, Verdict, conclude
from pipeline.packed import PackReader
from pipeline.stage import StagedChunk, staged_in
from pipeline.types import MAX_TOTAL_BYTES, MB, JobStatus
from storage.account import answers
from storage.job import chunks
from storage.job.chunk_work import ChunkWork
from storage.job.whole import record_whole
from storage.queue.steps import Lease
from storage.redis.answers import Success
from workers.extract import keys_of, outcomes, records
from workers.wiring import WorkerParts

MOST_BYTES = 1 * MB  #: of the staged object; a larger one is put, because staging it again would take long
MOST_SECONDS = 5.0  #: for staging; what took longer is put, so that it need not be done again


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstCall:
    """The outcome of the first model call of a job that has one chunk."""

    outcome: ChunkOutcome
    to_keep: dict[str, object]  #: key → record of the call, for later requests that ask the same
    settled: bool  #: every image of the job has its outcome


def may_carry(parts: WorkerParts, lease: Lease, work: ChunkWork, chunk: StagedChunk, *, size: int, seconds: float) -> bool:
    """Whether the thread that has staged the chunk carries its job to the end. `size`: bytes of the staged object.

    Only the first claim of the step may. So whatever fails is tried again in the usual way, and nothing is staged a third time.
    """
    first = lease.epoch == 1 and not lease.alone and not parts.stopping.is_set()
    cheap = size <= MOST_BYTES and seconds <= MOST_SECONDS and sum(chunk.received.values()) <= MAX_TOTAL_BYTES
    return first and cheap and _waited_whole(lease, work)


def deaths_of_a_call(lease: Lease, work: ChunkWork) -> int:
    """How many of the stage step's expired leases may have ended with the death of a process that asked the model: 0 or 1.

    Only the first claim asks. The extract step takes this number over, so that a picture which kills whoever sends it ends no more
    processes than in a job that goes step by step.
    """
    return min(lease.expiries, 1) if _waited_whole(lease, work) else 0


def _waited_whole(lease: Lease, work: ChunkWork) -> bool:
    """Whether a caller waits for the job, all of it is in this chunk, and its steps end with the answers of the model."""
    plain = not work.limited and not work.evidence
    return plain and work.waited and lease.round == 1 and work.count == work.total == len(work.pending)


def first_call(parts: WorkerParts, work: ChunkWork, chunk: StagedChunk, source: IO[bytes]) -> FirstCall:
    """Makes the first call about the chunk's images, or takes their records from the cache. `source`: the staged object.

    Raises what the engine raises.
    """
    if not chunk.staged:
        return FirstCall(outcome=ChunkOutcome(), to_keep={}, settled=True)
    pack = PackReader(source)
    staged = staged_in(pack)
    keys = keys_of(parts, work, staged)
    with closing(outcomes(parts, work, staged, pack, keys, engine=parts.engine, memory=parts.memory_budget)) as found:
        outcome, fresh = next(found)
    settled = {index for reply in outcome.replies for index in reply.indexes} | {failure.index for failure in outcome.failures}
    return FirstCall(
        outcome=outcome,
        to_keep=records(outcome, keys) if fresh else {},
        settled=settled == {image.index for image in staged},
    )


def verdict_of(work: ChunkWork, chunk: StagedChunk, outcome: ChunkOutcome) -> Verdict:
    """How the job ends. It is the verdict of the finalize step, from values in place of rows."""
    failures = sorted((*chunk.failures, *outcome.failures), key=lambda failure: failure.index)
    return conclude(
        JobOutcome(
            question=work.question,
            total=work.total,
            replies=outcome.replies,
            failures=failures,
            fail_on_error=work.fail_on_error,
        )
    )


def answer_of(work: ChunkWork, call: FirstCall, verdict: Verdict) -> Success | None:
    """What the request that waits for the job answers with. None if not all images have succeeded: the request then reads SQL."""
    if verdict.status is not JobStatus.SUCCEEDED:
        return None
    processed = sum(len(reply.indexes) for reply in call.outcome.replies)
    return Success(
        images=processed,
        credits=charge(verdict.status, processed, fail_on_error=work.fail_on_error),
        prompt=work.question.prompt,
        result=verdict.result or "",
    )


def commit_whole(
    parts: WorkerParts,
    connection: Connection,
    *,
    lease: Lease,
    work: ChunkWork,
    chunk: StagedChunk,
    call: FirstCall,
    verdict: Verdict,
) -> list[int | Lease]:
    """Ends the job. Returns the lease of its cleanup step, and the ids of the other next steps. Raises LostLease."""
    follow = record_whole(
        connection,
        lease,
        chunk=chunk,
        outcome=call.outcome,
        verdict=verdict,
        owner=parts.owner,
        lease_ms=int(parts.settings.lease_seconds * 1000),
    )
    _keep(parts, connection, work, call)
    return follow


def commit_begun(
    parts: WorkerParts, connection: Connection, *, lease: Lease, work: ChunkWork, chunk: StagedChunk, call: FirstCall, key: str
) -> list[int]:
    """Ends the stage step of a job whose first call has left images open. Returns the id of the extract step. Raises LostLease."""
    follow = chunks.record_begun(connection, lease, key=key, chunk=chunk, outcome=call.outcome)
    _keep(parts, connection, work, call)
    return follow


def _keep(parts: WorkerParts, connection: Connection, work: ChunkWork, call: FirstCall) -> None:
    answers.keep_answers(connection, work.account, call.to_keep, ttl_ms=int(parts.settings.cache_ttl * 1000))
