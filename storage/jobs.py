"""A job from accept to its end, as transactions. Each function is one caller's whole write.

Every function that changes a job locks its row first; what a step writes is fenced by the step's lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from pipeline.ask import Outcome
from pipeline.credits import charge as price
from pipeline.credits import reservation
from pipeline.finalize import Harvest, Verdict, conclude
from pipeline.plan import ChunkPlan
from pipeline.stage import StagedChunk
from pipeline.types import MAX_TOTAL_BYTES, MB, Failure, Form, ItemCode, JobStatus, Question, Reply, Usage
from storage import ledger, steps
from storage.database import now_ms
from storage.schema import chunks, images, jobs
from storage.steps import Lease

TOO_LARGE = Verdict(
    status=JobStatus.FAILED,
    result=None,
    error=("total_too_large", f"The images are over {MAX_TOTAL_BYTES // MB} MB in total; send fewer at once."),
)


class TooManyOpenJobs(Exception):
    """The account has as many open jobs as it may."""


class ScratchFull(Exception):
    """The open jobs of all accounts have as much in scratch as they may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob:
    """What the front door accepts."""

    id: str
    account: str
    waited: bool  #: the caller holds the connection
    input_method: str
    question: Question
    sources: Sequence[str | None]  #: of each image: its URL, None for base64
    plan: Sequence[ChunkPlan]
    inputs: dict[int, str]  #: chunk number → scratch key of its base64 texts
    scratch_bytes: int  #: of those texts together
    request_source: str | None
    engine: str
    model: str
    warnings: Sequence[str]
    deadline_ms: int  #: from now
    ttl_ms: int  #: how long its results are kept once it has ended


def accept(connection: Connection, new: NewJob, *, max_open: int, max_scratch: int) -> None:
    """Reserves the credits and makes the job with all it needs to run, in the caller's one transaction.

    Raises InsufficientCredits, TooManyOpenJobs or ScratchFull; then nothing may be committed.
    """
    round_ = 1
    # Locks the account's row, so that the count below is not raced.
    ledger.reserve(connection, account=new.account, job=new.id, round_=round_, amount=reservation(len(new.sources)))
    open_jobs = select(func.count()).where(jobs.c.account == new.account, jobs.c.finished_at.is_(None))
    if (connection.scalar(open_jobs) or 0) >= max_open:
        raise TooManyOpenJobs
    # Two requests at once may both see room: the limit guards a disk, not an invariant.
    in_scratch = connection.scalar(select(func.sum(jobs.c.scratch_bytes)).where(jobs.c.finished_at.is_(None))) or 0
    if in_scratch + new.scratch_bytes > max_scratch:
        raise ScratchFull
    connection.execute(
        insert(jobs).values(
            id=new.id,
            account=new.account,
            round=round_,
            status=JobStatus.QUEUED.value,
            waited=new.waited,
            input_method=new.input_method,
            prompt=new.question.prompt,
            options={"json_mode": new.question.json_mode, "per_image": new.question.per_image},
            total=len(new.sources),
            request_source=new.request_source,
            engine=new.engine,
            model=new.model,
            warnings=list(new.warnings),
            created_at=now_ms(),
            deadline_at=now_ms() + new.deadline_ms,
            ttl_ms=new.ttl_ms,
            scratch_bytes=new.scratch_bytes,
        )
    )
    connection.execute(
        insert(images),
        [{"job": new.id, "index": index, "source": source, "state": "waiting"} for index, source in enumerate(new.sources)],
    )
    connection.execute(
        insert(chunks),
        [
            {
                "job": new.id,
                "no": chunk.no,
                "first": chunk.first,
                "count": chunk.count,
                "open": True,
                "input": new.inputs.get(chunk.no),
                "replies": [],
                "usage": {},
            }
            for chunk in new.plan
        ],
    )
    steps.add(connection, job=new.id, round_=round_, kind="stage", parts=[chunk.no for chunk in new.plan])


def exists(connection: Connection, job: str) -> bool:
    """Whether the job was committed: asked when the reply to its commit was lost."""
    return connection.scalar(select(jobs.c.id).where(jobs.c.id == job)) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a stage or extract step has to know."""

    job: str
    question: Question
    first: int
    count: int
    input: str | None  #: scratch key of the chunk's base64 texts
    object: str | None  #: scratch key of the chunk's staged images
    left: float  #: seconds until the job's deadline
    pending: dict[int, str | None]  #: index → URL of each image that is not settled yet


def work_of(connection: Connection, lease: Lease) -> Work:
    """What the lease's chunk asks for."""
    row = connection.execute(
        select(
            jobs.c.prompt,
            jobs.c.options,
            (jobs.c.deadline_at - now_ms()).label("left"),
            chunks.c.first,
            chunks.c.count.label("size"),
            chunks.c.input,
            chunks.c.object,
        )
        .join(chunks, chunks.c.job == jobs.c.id)
        .where(jobs.c.id == lease.job, chunks.c.no == lease.part)
    ).one()
    pending = connection.execute(
        select(images.c.index.label("at"), images.c.source).where(
            images.c.job == lease.job,
            images.c.index.between(row.first, row.first + row.size - 1),
            images.c.state.in_(("waiting", "staged")),
        )
    )
    return Work(
        job=lease.job,
        question=Question(prompt=row.prompt, **row.options),
        first=row.first,
        count=row.size,
        input=row.input,
        object=row.object,
        left=row.left / 1000,
        pending={image.at: image.source for image in pending},
    )


def record_staged(connection: Connection, lease: Lease, *, key: str | None, chunk: StagedChunk) -> list[int]:
    """Ends a stage step: its images lie under `key`, or have failed. Ids of the steps that follow. Raises LostLease."""
    job = _lock(connection, lease.job)
    steps.finish(connection, lease)
    _mark_failed(connection, lease.job, chunk.failures, received=chunk.received)
    _mark(
        connection,
        lease.job,
        [{"at": image.index, "state": "staged", "sha256": image.sha256, "bytes": image.received} for image in chunk.staged],
    )
    received = connection.scalar(select(func.sum(images.c.bytes)).where(images.c.job == lease.job)) or 0
    if received > MAX_TOTAL_BYTES:
        return close_job(connection, job, TOO_LARGE)
    connection.execute(_of_chunk(lease).values(object=key))
    put = sum(image.size for image in chunk.staged)
    connection.execute(update(jobs).where(jobs.c.id == lease.job).values(scratch_bytes=jobs.c.scratch_bytes + put))
    if not chunk.staged:
        return _close_chunk(connection, job, lease)
    return steps.add(connection, job=lease.job, round_=lease.round, kind="extract", parts=[lease.part])


def fail_too_large(connection: Connection, lease: Lease) -> list[int]:
    """Ends a stage step whose images are alone over the limit of all, and its job. Raises LostLease."""
    job = _lock(connection, lease.job)
    steps.finish(connection, lease)
    return close_job(connection, job, TOO_LARGE)


def record_outcome(connection: Connection, lease: Lease, outcome: Outcome, *, last: bool) -> list[int]:
    """Keeps what one model call settled; `last`: nothing of the chunk is open now. Ids of the steps that follow. Raises LostLease."""
    job = _lock(connection, lease.job) if last else None
    if last:
        steps.finish(connection, lease)
    else:
        steps.check(connection, lease)
    _mark_failed(connection, lease.job, outcome.failures)
    _mark(
        connection,
        lease.job,
        [{"at": index, "state": "done", "result": reply.result} for reply in outcome.replies for index in reply.indexes],
    )
    row = connection.execute(
        select(chunks.c.replies, chunks.c.usage).where(chunks.c.job == lease.job, chunks.c.no == lease.part)
    ).one()
    merged = [{"indexes": list(reply.indexes), "text": reply.text} for reply in outcome.replies if reply.result is None]
    usage = Usage(**row.usage).plus(outcome.usage)
    connection.execute(_of_chunk(lease).values(replies=[*row.replies, *merged], usage=asdict(usage)))
    return _close_chunk(connection, job, lease) if job is not None else []


def record_dead(connection: Connection, lease: Lease, detail: str) -> list[int]:
    """Gives up a stage or extract step: what its chunk has not settled fails. Ids of the steps that follow. Raises LostLease."""
    job = _lock(connection, lease.job)
    steps.finish(connection, lease, state="dead")
    chunk = connection.execute(
        select(chunks.c.first, chunks.c.count.label("size")).where(chunks.c.job == lease.job, chunks.c.no == lease.part)
    ).one()
    _fail_open_images(connection, lease.job, ItemCode.INTERNAL_ERROR, detail, between=(chunk.first, chunk.first + chunk.size - 1))
    return _close_chunk(connection, job, lease)


def add_warning(connection: Connection, job: str, warning: str) -> None:
    """Tells the job's owner something, once."""
    row = _lock(connection, job)
    if warning not in row.warnings:
        connection.execute(update(jobs).where(jobs.c.id == job).values(warnings=[*row.warnings, warning]))


def harvest(connection: Connection, job: str) -> Harvest:
    """What a finalize step merges."""
    row = connection.execute(select(jobs.c.prompt, jobs.c.options, jobs.c.total).where(jobs.c.id == job)).one()
    question = Question(prompt=row.prompt, **row.options)
    if question.form is Form.RECORDS:
        done = connection.execute(
            select(images.c.index.label("at"), images.c.result).where(images.c.job == job, images.c.state == "done")
        )
        replies = [Reply(indexes=(image.at,), text="", result=image.result) for image in done]
    else:
        kept = connection.execute(select(chunks.c.replies).where(chunks.c.job == job)).scalars()
        replies = [Reply(indexes=tuple(reply["indexes"]), text=reply["text"]) for part in kept for reply in part]
    return Harvest(question=question, total=row.total, replies=replies, failures=failures_of(connection, job))


def failures_of(connection: Connection, job: str) -> list[Failure]:
    """The images of a job that failed, in order."""
    rows = connection.execute(
        select(images.c.index.label("at"), images.c.code, images.c.detail)
        .where(images.c.job == job, images.c.state == "failed")
        .order_by(images.c.index)
    )
    return [Failure(index=row.at, code=ItemCode(row.code), detail=row.detail) for row in rows]


def finish_job(connection: Connection, lease: Lease, verdict: Verdict) -> list[int]:
    """Ends the finalize step and its job. Ids of the steps that follow. Raises LostLease."""
    job = _lock(connection, lease.job)
    steps.finish(connection, lease)
    return close_job(connection, job, verdict)


def close_overdue(connection: Connection, job: str) -> list[int]:
    """Ends a job past its deadline with what it has. Ids of the steps that follow."""
    row = _lock(connection, job)
    if JobStatus(row.status).ended:
        return []
    late = (ItemCode.DEADLINE_EXCEEDED, "The job's deadline came before this image's turn.")
    return close_job(connection, row, None, unsettled=late)


def close_job(
    connection: Connection,
    job: Row[Any],
    verdict: Verdict | None,
    *,
    unsettled: tuple[ItemCode, str] = (ItemCode.CANCELLED, "The job ended before this image's turn."),
) -> list[int]:
    """Every end of a job, whoever brings it: fences off open steps, settles the credits, orders the cleanup.

    `job` is its locked row; `verdict` None: what its images have come to by now; `unsettled`: what those fail with that
    have no outcome. Ids of the steps that follow; none if the job had ended already.
    """
    if JobStatus(job.status).ended:
        return []
    # The fence first: a step that records an outcome holds its own row, then the images'; after it nothing is recorded.
    lease_left = steps.cancel_open(connection, job=job.id, round_=job.round)
    _fail_open_images(connection, job.id, *unsettled)
    verdict = verdict or conclude(harvest(connection, job.id))
    processed = connection.scalar(
        select(func.count()).select_from(images).where(images.c.job == job.id, images.c.state == "done")
    )
    charge = price(verdict.status, processed or 0)
    ledger.settle(connection, account=job.account, job=job.id, round_=job.round, charge=charge)
    code, message = verdict.error or (None, None)
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job.id)
        .values(
            status=verdict.status.value,
            started_at=func.coalesce(jobs.c.started_at, now_ms()),
            finished_at=now_ms(),
            expires_at=now_ms() + jobs.c.ttl_ms,
            result=verdict.result,
            error_code=code,
            error_message=message,
            credits=jobs.c.credits + charge,
        )
    )
    follow = steps.add(connection, job=job.id, round_=job.round, kind="cleanup")
    if lease_left:
        # A worker that is fenced off may still write to scratch until its lease runs out: look again then.
        steps.add(connection, job=job.id, round_=job.round, kind="cleanup", parts=[1], delay_ms=lease_left + 1000)
    return follow


def _lock(connection: Connection, job: str) -> Row[Any]:
    """Against all others who change the job, not against who writes a row that refers to it (`FOR NO KEY UPDATE`): Postgres
    looks the job up for a step that a transaction writes twice, and who does that holds the step already."""
    return connection.execute(select(jobs).where(jobs.c.id == job).with_for_update(key_share=True)).one()


def _of_chunk(lease: Lease) -> Any:
    return update(chunks).where(chunks.c.job == lease.job, chunks.c.no == lease.part)


def _close_chunk(connection: Connection, job: Row[Any], lease: Lease) -> list[int]:
    """Closes the lease's chunk; the one that closes the last one of a job adds its finalize step.

    The job's row is locked, so of two closers at once the second sees the first one's chunk closed. (On READ COMMITTED
    without the lock each sees the other's open, and the job hangs.)
    """
    connection.execute(_of_chunk(lease).values(open=False))
    still_open = select(func.count()).select_from(chunks).where(chunks.c.job == lease.job, chunks.c.open)
    return finalize_next(connection, job) if connection.scalar(still_open) == 0 else []


def finalize_next(connection: Connection, job: Row[Any]) -> list[int]:
    """Moves a job with no open chunk to finalizing."""
    connection.execute(update(jobs).where(jobs.c.id == job.id).values(status=JobStatus.FINALIZING.value))
    return steps.add(connection, job=job.id, round_=job.round, kind="finalize")


def _mark_failed(
    connection: Connection, job: str, failures: Sequence[Failure], *, received: Mapping[int, int] | None = None
) -> None:
    """`received`: the bytes of those that came, which count towards the limit of all."""
    rows: list[dict[str, Any]] = [
        {"at": failure.index, "state": "failed", "code": failure.code.value, "detail": failure.detail} for failure in failures
    ]
    if received is not None:
        rows = [{**row, "bytes": received.get(failure.index)} for row, failure in zip(rows, failures, strict=True)]
    _mark(connection, job, rows)


def _mark(connection: Connection, job: str, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the same columns of many images, each row with its index as `at`."""
    if not rows:
        return
    columns: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "at"}
    connection.execute(update(images).where(images.c.job == job, images.c.index == bindparam("at")).values(**columns), list(rows))


def _fail_open_images(
    connection: Connection, job: str, code: ItemCode, detail: str, *, between: tuple[int, int] | None = None
) -> None:
    statement = (
        update(images)
        .where(images.c.job == job, images.c.state.in_(("waiting", "staged")))
        .values(state="failed", code=code.value, detail=detail)
    )
    connection.execute(statement.where(images.c.index.between(*between)) if between else statement)
