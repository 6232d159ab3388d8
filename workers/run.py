"""Runs one step: claims it, works, commits, goes on with the steps that follow, notifies workers of others. Handles failures.

The error says whether a failure uses up a try (`pipeline.errors`). A Transient does not: the step is handed back with the error's
own wait and notice. Every other exception uses up a try.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Row

from pipeline.errors import PartError, Permanent, StorageFull, Transient
from pipeline.finalize import Verdict
from pipeline.metrics import STEP_SECONDS, STEPS
from pipeline.ports import Cause, ModelUnavailable
from pipeline.tracing import spans
from pipeline.turns import working_for
from pipeline.types import ItemCode, JobStatus, StepKind
from storage.job import chunk_work, chunks, closing, evidence, lost
from storage.queue import ringing, steps
from storage.queue.steps import Lease, LostLease
from storage.redis.answers import AnswerTo
from storage.redis.messages import Message
from workers.ahead import Ahead, stage_ahead
from workers.alone import Died, NoSlot
from workers.cleanup import cleanup
from workers.economy import LastMoment, hurry_step
from workers.extract import extract
from workers.finalize import finalize
from workers.ground import ground
from workers.stage import stage, staged_key
from workers.staged_object import StagedObject
from workers.step_spans import note_outcome, step_span
from workers.time_slice import StepPaused
from workers.webhook import webhook
from workers.wiring import WorkerParts
from workers.work_done import Commit, WorkDone

log = structlog.get_logger(__name__)

#: How long the worker waits for a small request's images before it claims the step, if the step was announced before its commit.
FETCH_SECONDS = 0.005
#: The pauses between two looks for such a step. Together they are longer than EARLY_SECONDS, after which it is announced again.
EARLY_NAPS = (0.002, 0.004, 0.008, 0.016, 0.032)
MOST_TRIES = 3  #: a step is given up after this many failures that use up a try
BACK_OFF_SECONDS = 2.0
NO_SLOT_SECONDS = 2.0
FAILED = "The service failed on this image's chunk."
LOST = "The service has lost this image before it was read: send it again."

#: The kinds of step that follow while their job runs.
GOES_ON = frozenset({StepKind.EXTRACT, StepKind.GROUND, StepKind.FINALIZE})
#: The kinds of step that neither return a staged object nor take one.
OTHER_WORK: dict[StepKind, Callable[[WorkerParts, Lease], Commit]] = {
    StepKind.GROUND: ground,
    StepKind.FINALIZE: finalize,
    StepKind.CLEANUP: cleanup,
    StepKind.WEBHOOK: webhook,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedStep:
    """A claimed step that a thread is about to work on."""

    lease: Lease
    in_hand: StagedObject | None = None  #: the object that the thread staged in its step before this one
    ahead: Ahead | None = None  #: what is staged for the step since its message came
    found: Row[Any] | None = None  #: what was read of the step's work with the claim
    answer_to: str | None = None  #: the channel on which the job's answer is sent, if the job ends with this step


def run_message(parts: WorkerParts, message: Message) -> None:
    """Works on the step that a message announces, as `run_step`. Stages the message's images before the step is claimed, or meanwhile.

    A step that may not be committed yet is looked for several times.
    """
    with stage_ahead(parts, message) as ahead:
        if message.early and ahead:
            ahead.wait_until_fetched(FETCH_SECONDS)  # the commit ends meanwhile
        for nap in EARLY_NAPS if message.early else ():
            if _run_announced(parts, message, ahead):
                return
            time.sleep(nap)
        _run_announced(parts, message, ahead)


def run_step(parts: WorkerParts, step: int) -> None:
    """Works on the step if it is due, then on the steps that follow it."""
    _run_announced(parts, Message(step), None)


def _run_announced(parts: WorkerParts, message: Message, ahead: Ahead | None) -> bool:
    """Whether the step was there. If so, it was worked on with all that follow it, or other workers will hear of it."""
    try:
        with parts.database.statements() as connection:
            if parts.stopping.is_set():
                return ringing.forget_ring(connection, message.step)
            waiting = _claim_announced(parts, connection, message, ahead)
    except PartError:
        log.warning("step_not_claimed", step=message.step, exc_info=True)  # the supervisor notifies a worker again
        return True
    found = bool(waiting)
    while waiting:
        first, *others = waiting
        if parts.cleaning and first.lease.kind is StepKind.CLEANUP and not first.lease.alone:
            parts.cleaning.add(first.lease, partial(run_claimed, parts, first), partial(_interrupted, parts, first.lease))
            waiting = others
            continue
        # The steps that follow this one go first, so that a thread holds at most one staged object.
        waiting = run_claimed(parts, first) + others
    return found


def _claim_announced(parts: WorkerParts, connection: Connection, message: Message, ahead: Ahead | None) -> list[ClaimedStep]:
    """The step, if it is due. With `ahead` it is a small request's, and its work is read too."""
    if ahead is None:
        return [ClaimedStep(lease=lease, answer_to=message.answer_to) for lease in _claim(parts, connection, [message.step])]
    claimed = chunk_work.claim_chunk(
        connection, message.step, owner=parts.owner, lease_ms=int(parts.settings.lease_seconds * 1000)
    )
    return [ClaimedStep(lease=claimed[0], ahead=ahead, found=claimed[1], answer_to=message.answer_to)] if claimed else []


def run_lease(parts: WorkerParts, lease: Lease) -> list[ClaimedStep]:
    """Works on a step that another process has claimed. Returns the steps to go on with."""
    return run_claimed(parts, ClaimedStep(lease=lease), in_child=True)


def run_claimed(parts: WorkerParts, step: ClaimedStep, *, in_child: bool = False) -> list[ClaimedStep]:
    """Works on a claimed step, and closes its staged object. Returns the steps to go on with.

    `in_child`: another process has claimed the step.
    """
    lease = step.lease
    if lease.kind in {StepKind.STAGE, StepKind.EXTRACT}:
        parts.load_engine()
    facts = structlog.contextvars.bound_contextvars(
        request=lease.request, job=lease.job, account=lease.account, step=lease.step, kind=lease.kind.value, part=lease.part
    )
    with step_span(lease, in_child=in_child), facts, working_for(lease.account, lease.job):
        try:
            return _run_alone(parts, lease) if lease.alone and parts.alone else _run(parts, step)
        finally:
            if step.in_hand:
                step.in_hand.close()


def _claim(
    parts: WorkerParts, connection: Connection, following: Sequence[int | Lease], *, after: Lease | None = None
) -> list[Lease]:
    """Leases of the steps, also of those that are claimed already. While the worker stops there are none: others take the steps."""
    held = [step for step in following if isinstance(step, Lease)]
    if parts.stopping.is_set():
        for lease in held:
            steps.hand_back(connection, lease, delay_ms=0, counts=False)
        return []
    lease_ms = int(parts.settings.lease_seconds * 1000)
    ids = (step for step in following if not isinstance(step, Lease))
    claimed = (steps.claim(connection, step, owner=parts.owner, lease_ms=lease_ms, after=after) for step in ids)
    return [*held, *(lease for lease in claimed if lease)]


def work_on(parts: WorkerParts, step: ClaimedStep) -> WorkDone:
    """Does the step's work. The caller closes the object that it may have staged."""
    lease = step.lease
    if lease.kind is StepKind.STAGE:
        return stage(parts, lease, step.ahead, step.found)
    if lease.kind is StepKind.EXTRACT:
        return WorkDone(commit=extract(parts, lease, step.in_hand))
    return WorkDone(commit=OTHER_WORK[lease.kind](parts, lease))


def _work_and_commit(parts: WorkerParts, step: ClaimedStep) -> list[ClaimedStep]:
    """Returns the steps to go on with. The first of them gets the object that this step has staged."""
    done = work_on(parts, step)
    answer = AnswerTo(step.answer_to, done.answer) if step.answer_to and done.answer else None
    follow: list[ClaimedStep] = []
    try:
        follow = _commit(parts, step.lease, done.commit, answer)
    finally:
        if done.in_hand and not follow:
            done.in_hand.close()
    return [replace(follow[0], in_hand=done.in_hand), *follow[1:]] if follow else []


def _run(parts: WorkerParts, step: ClaimedStep) -> list[ClaimedStep]:
    """Works on a step and handles its failure. Returns the steps to go on with."""
    lease = step.lease
    began = time.monotonic()
    try:
        with parts.leases.holding(lease):
            follow = _work_and_commit(parts, step)
    except LostLease:
        _count(lease, "lost")
        log.info("lease_lost")
        if lease.kind is StepKind.STAGE:
            # Nobody will read the object that this step may have put. It is deleted here, because no transaction is open here.
            with suppress(PartError):  # the job's cleanup deletes what is left
                parts.scratch.delete([staged_key(lease)])
        return []
    except StepPaused:
        _count(lease, "paused")
        log.info("step_paused")
        _hand_back(parts, lease, seconds=0, counts=False)
        return []
    except LastMoment:
        _count(lease, "hurried")
        log.info("step_hurried")
        _hurry(parts, lease)
        return []
    except ModelUnavailable as error:
        _wait_for_model(parts, lease, error)
        return []
    except FileNotFoundError:
        _count(lease, "failed")
        log.exception("scratch_object_missing", tries=lease.tries + 1)
        return _after_loss(parts, lease)
    except Transient as error:
        _interrupted(parts, lease, error)
        return []
    except Exception:
        _count(lease, "failed")
        log.exception("step_failed", tries=lease.tries + 1)
        return _after_failure(parts, lease)
    _count(lease, "done")
    STEP_SECONDS.observe(time.monotonic() - began, kind=lease.kind.value)
    log.info("step_done")
    return follow


def _interrupted(parts: WorkerParts, lease: Lease, error: Transient) -> None:
    """Hands the step back, because a part is away."""
    _count(lease, "interrupted")
    if isinstance(error, StorageFull):
        parts.signals.note_full_storage()
        log.warning("storage_full", exc_info=error)
    else:
        log.warning("step_interrupted", exc_info=error)
    seconds = error.retry_after * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
    _hand_back(parts, lease, seconds=seconds, counts=False, warning=error.notice)


def _wait_for_model(parts: WorkerParts, lease: Lease, error: ModelUnavailable) -> None:
    """Hands the step back. If the model stays away, a request that holds the job open ends: see docs/adr/0027."""
    _count(lease, "unavailable")
    if error.cause in {Cause.BUSY, Cause.CROWDED, Cause.SHED}:
        log.info("model_busy", retry_after=error.retry_after)
    else:
        log.warning("model_unavailable", cause=error.cause.value, reason=str(error), retry_after=error.retry_after)
    _hand_back(parts, lease, seconds=error.retry_after, counts=False, warning=error.notice)
    if error.cause.ends_held and error.notice:
        parts.signals.note_trouble(lease.job, error.cause, error.notice)


def _count(lease: Lease, outcome: str) -> None:
    STEPS.add(kind=lease.kind.value, outcome=outcome)
    note_outcome(outcome, sys.exception())


def _run_alone(parts: WorkerParts, lease: Lease) -> list[ClaimedStep]:
    """Has a child process work on the step. If the child dies, the step caused it, because nothing else ran there."""
    assert parts.alone
    try:
        with parts.leases.holding(lease):
            try:
                given = replace(lease, traceparent=spans.traceparent() or lease.traceparent)
                parts.alone.run(given, seconds=parts.settings.step_seconds * 0.9)  # it ends while the lease is still valid
            except Died as death:
                _count(lease, "died")
                log.warning("step_died_alone", reason=str(death))
                if lease.kind not in {StepKind.STAGE, StepKind.EXTRACT}:
                    return _after_failure(parts, lease)
                return _commit(parts, lease, partial(chunks.record_death, lease=lease))
    except NoSlot:
        _hand_back(parts, lease, seconds=NO_SLOT_SECONDS * random.uniform(0.5, 1.5), counts=False)  # noqa: S311 - jitter
    except LostLease:
        log.info("lease_lost")
    except PartError:
        log.warning("death_not_recorded", exc_info=True)  # its lease expires, and the step runs alone again
    return []


def _after_loss(parts: WorkerParts, lease: Lease) -> list[ClaimedStep]:
    """Handles a step whose scratch object is gone. Waiting does not bring it back, so this uses up a try.

    What was staged can be staged again, from its URLs or from the object that came with the request.
    """
    if lease.kind is StepKind.EXTRACT:
        try:
            return _commit(parts, lease, partial(lost.stage_again, lease=lease))
        except lost.LostAgain:
            log.warning("scratch_object_missing_again")
        except (LostLease, PartError):
            log.warning("not_staged_again", exc_info=True)  # its lease expires, and a worker tries again
            return []
    return _after_failure(parts, lease, detail=LOST)


def _after_failure(parts: WorkerParts, lease: Lease, *, detail: str = FAILED) -> list[ClaimedStep]:
    """Handles a failure that uses up a try. The step is retried a few times and then given up.

    `detail`: what is said then of each image. A cleanup or a webhook is never given up. It is retried with growing waits.
    """
    if lease.tries + 1 < MOST_TRIES or lease.kind in {StepKind.CLEANUP, StepKind.WEBHOOK}:
        seconds = BACK_OFF_SECONDS * 2.0 ** min(lease.tries, 8)
        _hand_back(parts, lease, seconds=seconds * random.uniform(0.5, 1.0), counts=True)  # noqa: S311 - jitter
        return []
    try:
        try:
            return _commit(parts, lease, partial(_give_up, lease=lease, detail=detail))
        except Permanent:
            # The fault that stopped the step stops this write too. The job would wait for its deadline, so it fails as a whole.
            log.exception("step_not_given_up")
            return _commit(parts, lease, partial(_fail_job, lease=lease))
    except (LostLease, PartError):
        log.warning("step_not_given_up", exc_info=True)  # its lease expires, and a worker tries again
        return []


def _give_up(connection: Connection, lease: Lease, *, detail: str) -> list[int]:
    """Fails the images of the step's chunk. A finalize step fails the whole job, so that its held credits are released.

    With a ground step nothing fails: the records stand, and their evidence says that the OCR failed.
    """
    if lease.kind is StepKind.GROUND:
        return evidence.give_up(connection, lease)
    if lease.kind is StepKind.FINALIZE:
        return _fail_job(connection, lease, "The service failed to put the answers of this job together.")
    return chunks.record_dead(connection, lease, detail)


def _fail_job(connection: Connection, lease: Lease, message: str = "The service failed on this job.") -> list[int]:
    """Ends the step and its job, so that the job's held credits are released."""
    error = (ItemCode.INTERNAL_ERROR.value, message)
    return closing.finish_job(connection, lease, Verdict(status=JobStatus.FAILED, result=None, error=error))


def _commit(parts: WorkerParts, lease: Lease, commit: Commit, answer: AnswerTo | None = None) -> list[ClaimedStep]:
    """Ends the step, claims the steps that follow, and chooses the steps to notify workers of, all in one transaction.

    `answer`: what the job is answered with, and where to; it is sent after the commit.
    """
    with spans.span("commit"), parts.database.write() as connection:
        following = commit(connection)
        follow = _claim(parts, connection, following, after=lease)
        going_on = len(follow) == len(following) and all(step.kind in GOES_ON for step in follow)
        # If the next step reuses the place of the step that ended, the account's share does not change.
        # So it is with a cleanup step that goes to its group, after which the account's steps are announced.
        grouped = parts.cleaning is not None and all(step.kind is StepKind.CLEANUP for step in follow)
        same_place = len(follow) == len(following) == 1 and (going_on or grouped or lease.kind is StepKind.FINALIZE)
        rings = [] if same_place else ringing.to_ring(connection, beside=lease.job)
    parts.signals.ring(rings)
    parts.signals.tell(lease.job, ended=not going_on, answered=lease.kind is StepKind.EXTRACT, answer=answer)
    return [ClaimedStep(lease=step) for step in follow]


def _hurry(parts: WorkerParts, lease: Lease) -> None:
    try:
        hurry_step(parts, lease)
    except LostLease:
        log.info("lease_lost")
    except PartError:
        log.warning("step_not_hurried", exc_info=True)  # its lease expires, and it is hurried then


def _hand_back(parts: WorkerParts, lease: Lease, *, seconds: float, counts: bool, warning: str = "") -> None:
    try:
        with parts.database.write() as connection:
            if warning:
                chunks.add_warning(connection, lease.job, warning)
            steps.hand_back(connection, lease, delay_ms=int(seconds * 1000), counts=counts)
        if parts.handed_back:
            parts.handed_back.expect(seconds)
    except LostLease:
        log.info("lease_lost")
    except PartError:
        log.warning("step_not_handed_back", exc_info=True)  # its lease expires
