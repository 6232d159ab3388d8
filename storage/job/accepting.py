"""Accepting a job: one transaction, in the front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Insert, Select, bindparam, func, insert, select

from pipeline.credits import reservation
from pipeline.plan import ChunkPlan
from pipeline.types import ImageState, JobStatus, Question, StepKind
from storage.account import ledger
from storage.database import now_ms
from storage.job.questions import options_of
from storage.queue import steps
from storage.schema import accounts_table, chunks_table, idempotency_keys_table, images_table, jobs_table


class TooManyOpenJobs(Exception):
    """The account has as many open jobs as it may."""


class ScratchFull(Exception):
    """The open jobs of all accounts have as much in scratch as they may."""


class SentBefore(Exception):
    """The account has used this idempotency key already."""

    def __init__(self, job: str, *, same_body: bool) -> None:
        super().__init__(f"the key is of {job}")
        self.job = job  #: what it made then
        self.same_body = same_body


@dataclass(frozen=True, kw_only=True, slots=True)
class IdempotencyKey:
    """A request that may be sent again without becoming another job."""

    key: str  #: the header's text
    body_hash: str  #: SHA-256 of the body, hex


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRow:
    """What the front door says of a job's row. Each attribute is a column of `jobs_table` and goes there as it is."""

    id: str
    account: str
    waited: bool  #: the caller holds the connection
    input_method: str
    engine: str
    model: str
    request_source: str | None
    warnings: Sequence[str]
    scratch_bytes: int  #: of the images that are in scratch, together
    deadline_ms: int  #: of each round, from its start
    ttl_ms: int  #: how long its results are kept once it has ended
    webhook_url: str | None = None  #: who is told of its end
    metadata: dict[str, Any] | None = None  #: the caller's own, echoed
    fail_on_error: bool = False  #: all images or nothing
    request_id: str | None = None  #: of the request that makes it: what is logged for the job carries it


_GIVEN = tuple(column.name for column in fields(NewRow))


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob(NewRow):
    """What the front door accepts: the job's row, and what goes into other tables or into several columns."""

    question: Question
    sources: Sequence[str | None]  #: of each image: its URL, None for base64
    custom_ids: Sequence[str] | None = None  #: of each image: the caller's name of it
    plan: Sequence[ChunkPlan]
    inputs: dict[int, str]  #: chunk number → scratch key of its base64 texts
    idempotency: IdempotencyKey | None = None


def accept(connection: Connection, new: NewJob, *, max_open: int, max_scratch: int) -> None:
    """Reserves the credits and makes the job with all it needs to run, in the caller's one transaction.

    Raises SentBefore, InsufficientCredits, TooManyOpenJobs or ScratchFull; then nothing may be committed.
    """
    round_ = 1
    if new.idempotency:
        # Locked first: of two requests with one key the second waits here, and then sees what the first has made.
        connection.execute(select(accounts_table.c.id).where(accounts_table.c.id == new.account).with_for_update(key_share=True))
        check_not_sent_before(connection, new.account, new.idempotency)
    # Locks the account's row, so that the count below is not raced.
    ledger.reserve(connection, account=new.account, job=new.id, round_=round_, amount=reservation(len(new.sources)))
    if (connection.scalar(_open_jobs(), {"account": new.account}) or 0) >= max_open:
        raise TooManyOpenJobs
    # Two requests at once may both see room: the limit guards a disk, not an invariant.
    in_scratch = connection.scalar(_in_scratch()) or 0
    if in_scratch + new.scratch_bytes > max_scratch:
        raise ScratchFull
    connection.execute(
        _new_job(),
        {
            **{name: getattr(new, name) for name in _GIVEN},
            "round": round_,
            "status": JobStatus.QUEUED.value,
            "prompt": new.question.prompt,
            "options": options_of(new.question),
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
        insert(images_table),
        [
            {"job": new.id, "index": index, "source": source, "custom_id": custom_id, "state": ImageState.WAITING.value}
            for index, (source, custom_id) in enumerate(zip(new.sources, custom_ids, strict=True))
        ],
    )
    add_chunks(connection, new.id, round_=round_, plan=new.plan, inputs=new.inputs)


def add_chunks(connection: Connection, job: str, *, round_: int, plan: Sequence[ChunkPlan], inputs: Mapping[int, str]) -> None:
    """The chunks of a round, each with its stage step."""
    connection.execute(
        insert(chunks_table),
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
    steps.add(connection, job=job, round_=round_, kind=StepKind.STAGE, parts=[chunk.no for chunk in plan])


# Each statement is made once: putting it together costs more than what the database does for it.


@cache
def _open_jobs() -> Select[int]:
    return select(func.count()).where(jobs_table.c.account == bindparam("account"), jobs_table.c.finished_at.is_(None))


@cache
def _in_scratch() -> Select[int]:
    return select(func.sum(jobs_table.c.scratch_bytes)).where(jobs_table.c.finished_at.is_(None))


@cache
def _new_job() -> Insert:
    deadline = now_ms() + bindparam("until_deadline", type_=BigInteger)
    return insert(jobs_table).values(created_at=now_ms(), deadline_at=deadline)


def check_not_sent_before(connection: Connection, account: str, key: IdempotencyKey) -> None:
    """Raises SentBefore if the account has a job by this key."""
    query = select(idempotency_keys_table.c.job, idempotency_keys_table.c.body_hash)
    row = connection.execute(
        query.where(idempotency_keys_table.c.account == account, idempotency_keys_table.c.key == key.key)
    ).one_or_none()
    if row is not None:
        raise SentBefore(row.job, same_body=row.body_hash == key.body_hash)


def exists(connection: Connection, job: str) -> bool:
    """Whether the job was committed: asked when the reply to its commit was lost."""
    return connection.scalar(select(jobs_table.c.id).where(jobs_table.c.id == job)) is not None
