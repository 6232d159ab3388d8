"""Cancels a job, retries its failed images, or deletes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog
from flask import Blueprint, Response, g
from sqlalchemy import Connection

from api.accept import Accepted, accepted_answer, chunk_size, too_few_credits, too_many_open_jobs
from api.auth import authenticate
from api.errors import ApiError, json_response
from api.openapi.document import ResponseSpec, describe
from api.paging import own_job
from api.wiring import WebParts
from pipeline.job_object import job_json
from pipeline.scratch_key import job_prefix
from pipeline.types import JobStatus
from storage.account.ledger import InsufficientCredits
from storage.job import closing, rounds
from storage.job.accepting import TooManyOpenJobs
from storage.queue import ringing
from storage.queue.steps import JobGone

log = structlog.get_logger(__name__)


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("job_actions", __name__)

    @routes.post("/api/v1/jobs/<job>/cancel")
    @describe(
        "Cancel a job",
        tag="Jobs",
        answers=[ResponseSpec(status=200, what="The job, cancelled.", schema="Job")],
        errors=["not_found", "already_ended"],
    )
    def cancel(job: str) -> Response:
        """Ends the job now, with the results so far. Running steps are not waited for, and can't change the job any more."""
        account = authenticate(parts)
        own_job(parts, job, account)
        with gone_is_404(), parts.database.write() as connection:
            cancelled = closing.cancel(connection, job)
            rings = ringing.to_ring(connection, beside=job) if cancelled else []
        parts.signals.ring(rings)
        if cancelled:
            log.info("job_cancelled", job=job)
            parts.signals.tell(job)
        view = own_job(parts, job, account)
        if view.status is not JobStatus.CANCELLED:
            raise ApiError(409, "already_ended", f"The job has ended already: it is {view.status.value}.")
        return json_response(job_json(view))

    @routes.post("/api/v1/jobs/<job>/retry")
    @describe(
        "Try the failed images of a job again",
        tag="Jobs",
        answers=[ResponseSpec(status=202, what="The job, in its next round.", schema="Job", headers=("Location", "Retry-After"))],
        errors=[
            "not_found",
            "not_finished",
            "results_expired",
            "nothing_to_retry",
            "inputs_gone",
            "insufficient_credits",
            "too_many_open_jobs",
        ],
    )
    def retry(job: str) -> Response:
        """Starts a new round with only the failed images. It costs the credits of the images that then succeed."""
        account = authenticate(parts)
        own_job(parts, job, account)
        with gone_is_404(), parts.database.write() as connection:
            _begin_round(parts, connection, job)
            rings = ringing.to_ring(connection, beside=job)
        log.info("job_retried", job=job)
        parts.signals.ring(rings)
        parts.signals.tell(job)
        return accepted_answer(parts, account, Accepted(job=job), {})

    @routes.delete("/api/v1/jobs/<job>")
    @describe(
        "Delete a job",
        tag="Jobs",
        answers=[ResponseSpec(status=204, what="It is gone, with its results, its webhooks' bodies and what it had in scratch.")],
        errors=["not_found", "not_finished"],
    )
    def delete(job: str) -> Response:
        """Deletes the job. A job that has not ended is cancelled first. Its cost stays in the ledger."""
        account = authenticate(parts)
        own_job(parts, job, account)
        try:
            with gone_is_404():
                _remove(parts, job)
        except rounds.NotEnded:
            raise ApiError(409, "not_finished", "The job has begun another round meanwhile; delete it again.") from None
        log.info("job_deleted", job=job)
        return Response(status=204)

    return routes


@contextmanager
def gone_is_404() -> Iterator[None]:
    """Answers 404 if another request deletes the job while the block runs."""
    try:
        yield
    except JobGone:
        raise ApiError(404, "not_found", "There is no such job.") from None


def _begin_round(parts: WebParts, connection: Connection, job: str) -> None:
    size = partial(chunk_size, parts)
    try:
        rounds.retry(
            connection,
            job,
            size=size,
            max_open=parts.settings.max_open_jobs,
            request_id=g.request_id,
            traceparent=g.get("traceparent"),
        )
    except rounds.NotEnded:
        raise ApiError(409, "not_finished", "The job has not ended; what fails can be tried again afterwards.") from None
    except rounds.Expired:
        raise ApiError(
            410, "results_expired", "The results of this job have expired, and so have its images. Send them as a new job."
        ) from None
    except rounds.NothingFailed:
        raise ApiError(409, "nothing_to_retry", "No image of this job failed.") from None
    except rounds.InputsGone:
        text = (
            "The images came with the request and are deleted. Send those that failed as a new job, with keepInputsSeconds if you "
            "want to retry them afterwards."
        )
        raise ApiError(409, "inputs_gone", text) from None
    except InsufficientCredits as error:
        raise too_few_credits(error.needed, error.available) from None
    except TooManyOpenJobs:
        raise too_many_open_jobs(parts) from None


def _remove(parts: WebParts, job: str) -> None:
    """Cancels the job if it has not ended, then deletes it. Raises JobGone, or NotEnded if a round began meanwhile."""
    with parts.database.write() as connection:
        rings = ringing.to_ring(connection, beside=job) if closing.cancel(connection, job) else []
    parts.signals.ring(rings)
    # Delete scratch before the rows. If that fails, the job still exists and can be deleted again.
    while keys := list(parts.scratch.list(job_prefix(job))):
        parts.scratch.delete(keys)
    with parts.database.write() as connection:
        rounds.remove(connection, job)
    parts.signals.tell(job)
