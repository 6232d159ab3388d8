"""Accepts a job in one transaction of the API process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Insert, Select, bindparam, insert, select

from pipeline.credits import reservation
from pipeline.plan import ChunkPlan
from pipeline.types import MB, ImageState, JobStatus, Question, StepKind, Tier
from storage.account import ledger
from storage.database import now_ms
from storage.job import stored, totals
from storage.job.questions import options_of
from storage.queue import ringing, steps
from storage.queue.ringing import Ring
from storage.schema import accounts_table, chunks_table, idempotency_keys_table, images_table, jobs_table

#: The part of MAX_SCRATCH_BYTES that one account's kept images may fill, because they stay for up to a day and would shut the door
#: to all others.
KEPT_SHARE = 0.5


NO_LIMIT = (1 << 63) - 1
#: Bytes. Images that a request brought are staged before their step is claimed, if they are no more: see workers/ahead.py.
STAGED_AHEAD = 1 * MB


class TooManyOpenJobs(Exception):
    """The account has reached its limit of open jobs."""


class ScratchFull(Exception):
    """The open jobs of all accounts have reached the limit of bytes in scratch."""


class KeptFull(Exception):
    """The account's uploaded images that are kept for retries have reached the account's share of scratch."""


class SentBefore(Exception):
    """The account has used this idempotency key already."""

    def __init__(self, job: str, *, same_body: bool) -> None:
        super().__init__(f"the key is of {job}")
        self.job = job  #: the job that the first request made
        self.same_body = same_body  #: whether the first request had the same body


@dataclass(frozen=True, kw_only=True, slots=True)
class IdempotencyKey:
    """Identifies a request, so that sending it again does not create another job."""

    key: str  #: the header's text
    body_hash: str  #: SHA-256 of the body, hex


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRow:
    """The values of a new job's row. Each attribute is stored unchanged in the column of `jobs_table` with its name."""

    id: str
    account: str
    waited: bool  #: the caller holds a connection for the job
    input_method: str
    engine: str
    model: str
    tier: str = Tier.STANDARD.value
    request_source: str | None
    warnings: Sequence[str]
    scratch_bytes: int  #: bytes of the job's images that are in scratch already
    input_bytes: int = 0  #: the same, but never changed later
    keep_ms: int = 0  #: time that uploaded images are kept after each round's end
    evidence: Sequence[str] | None = None  #: when its images need a review (pipeline.types.Review); None: it has no evidence
    max_money: int | None = None  #: the most that the model calls may cost, in billionths of a dollar; None: no limit
    deadline_ms: int  #: time that each round may take, from its start
    ttl_ms: int  #: how long results are kept after the job's end
    webhook_url: str | None = None  #: receives an event when the job ends
    metadata: dict[str, Any] | None = None  #: the caller's own values, returned unchanged
    name: str | None = None  #: what people call the job
    batch: str | None = None  #: the caller's id of several jobs that belong together
    fail_on_error: bool = False  #: the job fails if any image fails
    request_id: str | None = None  #: id of the HTTP request that makes the job; each log line of the job carries it
    traceparent: str | None = None  #: the trace of that request; None: it was not traced


_GIVEN = tuple(column.name for column in fields(NewRow))


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob(NewRow):
    """A job to accept: the values of its row, and the values for other tables or for several columns."""

    question: Question
    sources: Sequence[str | None]  #: the URL of each image, or its file's name; None for base64
    custom_ids: Sequence[str | None] | None = None  #: the caller's name for each image
    plan: Sequence[ChunkPlan]
    inputs: dict[int, str]  #: chunk number → scratch key of its base64 texts
    idempotency: IdempotencyKey | None = None


def accept(
    connection: Connection,
    new: NewJob,
    *,
    max_open: int,
    max_scratch: int,
    max_stored: int = NO_LIMIT,
    stored_all: Callable[[Sequence[Ring]], None] = lambda _rings: None,
    announces: bool = False,
) -> list[Ring]:
    """Reserves the credits and creates the job, its images, chunks and first steps, in the caller's transaction.

    `stored_all`: called before the account's row is locked, with the steps to notify workers of that are known by then; returns when the
    job's images are in scratch, or raises. `announces`: also choose the steps to notify workers of. Returns these.

    Raises SentBefore, InsufficientCredits, TooManyOpenJobs, StoredFull, ScratchFull or KeptFull. The caller must then roll back.
    """
    round_ = 1
    if new.idempotency:
        # Lock the account first. Of two requests with the same key, the second waits here and then finds the first one's job.
        connection.execute(_lock_account(), {"account": new.account})
        check_not_sent_before(connection, new.account, new.idempotency)
    options = options_of(new.question)
    size = stored.bytes_of(
        [new.question.prompt, new.webhook_url, new.name, new.batch, *new.sources, *(new.custom_ids or ())],
        [options, new.metadata],
        images=len(new.sources),
    )
    connection.execute(
        _new_job(),
        {
            **{name: getattr(new, name) for name in _GIVEN},
            "round": round_,
            "status": JobStatus.QUEUED.value,
            "prompt": new.question.prompt,
            "options": options,
            "stored_bytes": size,
            "total": len(new.sources),
            "until_deadline": new.deadline_ms,
        },
    )
    if new.idempotency:
        connection.execute(
            insert(idempotency_keys_table).values(
                account=new.account,
                key=new.idempotency.key,
                body_hash=new.idempotency.body_hash,
                job=new.id,
                created_at=now_ms(),
            )
        )
    custom_ids: Sequence[str | None] = new.custom_ids or [None] * len(new.sources)
    connection.execute(
        _new_images(),
        [
            {"job": new.id, "index": index, "source": source, "custom_id": custom_id, "state": ImageState.WAITING.value}
            for index, (source, custom_id) in enumerate(zip(new.sources, custom_ids, strict=True))
        ],
    )
    _add_chunk_rows(connection, new.id, plan=new.plan, inputs=new.inputs)
    rings: list[Ring] | None = None
    if announces and new.waited and len(new.plan) == 1:
        part = new.plan[0].no
        rings = ringing.add_waited(connection, job=new.id, account=new.account, round_=round_, kind=StepKind.STAGE, part=part)
        if new.scratch_bytes <= STAGED_AHEAD:
            rings = [replace(ring, input=new.inputs.get(part), traceparent=new.traceparent) for ring in rings]
    else:
        _add_stage_steps(connection, new.id, round_=round_, plan=new.plan)
    stored_all(rings or ())
    # The account's row is locked last, so that requests of one account do not wait for each other's scratch.
    counted = ledger.reserve(
        connection,
        account=new.account,
        job=new.id,
        round_=round_,
        amount=reservation(len(new.sources)),
        kept_bytes=new.input_bytes if new.keep_ms else 0,
        stored_bytes=size,
    )
    if counted.open_jobs > max_open:
        raise TooManyOpenJobs
    if counted.stored_bytes > max_stored:
        raise stored.StoredFull
    # Two requests at once may both find room and exceed the limit a little. That is fine: it only keeps the disk from filling up.
    if counted.scratch_bytes + new.scratch_bytes > max_scratch:
        raise ScratchFull
    if new.keep_ms and counted.kept_bytes - new.input_bytes > max_scratch * KEPT_SHARE:
        raise KeptFull
    if announces and rings is None:
        rings = ringing.to_ring(connection, beside=new.id, known=(new.account, new.tier))
    totals.count_scratch(connection, new.id, new.scratch_bytes)
    return rings or []


def add_chunks(connection: Connection, job: str, *, round_: int, plan: Sequence[ChunkPlan], inputs: Mapping[int, str]) -> None:
    """Adds the chunks of a round and a stage step for each."""
    _add_chunk_rows(connection, job, plan=plan, inputs=inputs)
    _add_stage_steps(connection, job, round_=round_, plan=plan)


def _add_stage_steps(connection: Connection, job: str, *, round_: int, plan: Sequence[ChunkPlan]) -> None:
    steps.add(connection, job=job, round_=round_, kind=StepKind.STAGE, parts=[chunk.no for chunk in plan])


def _add_chunk_rows(connection: Connection, job: str, *, plan: Sequence[ChunkPlan], inputs: Mapping[int, str]) -> None:
    connection.execute(
        _new_chunks(),
        [
            {
                "job": job,
                "no": chunk.no,
                "first": chunk.first,
                "count": chunk.count,
                "open": True,
                "input": inputs.get(chunk.no),
                "replies": [],
                "usage": {},
            }
            for chunk in plan
        ],
    )


# Each statement is built once and cached, because building it takes longer than running it.


@cache
def _new_job() -> Insert:
    deadline = now_ms() + bindparam("until_deadline", type_=BigInteger)
    return insert(jobs_table).values(created_at=now_ms(), deadline_at=deadline)


@cache
def _new_images() -> Insert:
    return insert(images_table)


@cache
def _new_chunks() -> Insert:
    return insert(chunks_table)


def check_not_sent_before(connection: Connection, account: str, key: IdempotencyKey) -> None:
    """Raises SentBefore if the account has a job with this key."""
    query = select(idempotency_keys_table.c.job, idempotency_keys_table.c.body_hash)
    row = connection.execute(
        query.where(idempotency_keys_table.c.account == account, idempotency_keys_table.c.key == key.key)
    ).one_or_none()
    if row is not None:
        raise SentBefore(row.job, same_body=row.body_hash == key.body_hash)


def was_accepted(connection: Connection, account: str, job: str) -> bool:
    """Whether the job was committed, although the connection broke before the reply to the commit came.

    The commit may still be under way. It holds the account's row, so this waits for its end before it looks.
    """
    connection.execute(_lock_account(), {"account": account})
    return connection.scalar(select(jobs_table.c.id).where(jobs_table.c.id == job)) is not None


@cache
def _lock_account() -> Select[tuple[str]]:
    return select(accounts_table.c.id).where(accounts_table.c.id == bindparam("account")).with_for_update(key_share=True)
