"""The compatible endpoint: POST and GET /api/v1/extract-image."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import structlog
from flask import Blueprint, Response, request
from sqlalchemy import Connection

from api.accept import Accepted, accept, accepted_answer, unseen_answer
from api.auth import authenticate, optional_account, read_rate
from api.errors import ApiError, json_response
from api.held import HeldJob
from api.openapi.document import ResponseSpec, describe
from api.openapi.error_codes import OF_IMAGES, OF_REQUESTS
from api.openapi.shared import ACCEPTED, BODIES, IDEMPOTENCY_KEY, PREFER, REPLAYED, REQUEST_SOURCE
from api.patience import hung_up
from api.uploads import is_upload
from api.waiting import preference, wait_for_end, waiting_place
from api.wiring import WebParts
from pipeline.credits import BASE, PER_IMAGE
from pipeline.decode.sniff import CONVERTED_FORMATS, NATIVE_FORMATS
from pipeline.errors import PartError
from pipeline.finalize import is_input_fault
from pipeline.job_object import AnswerView, ResultView, result_json
from pipeline.types import MAX_IMAGE_BYTES, MAX_IMAGES, MAX_OUTPUT_TOKENS, MAX_TOTAL_BYTES, JobStatus
from storage.job.views import answer_view, is_waited
from storage.redis.answers import Success
from storage.redis.watching import Watch

log = structlog.get_logger(__name__)

FORMATS = {
    "supportedFormats": list(NATIVE_FORMATS),
    "convertedFormats": list(CONVERTED_FORMATS),
    "limits": {
        "maxImages": MAX_IMAGES,
        "maxImageBytes": MAX_IMAGE_BYTES,
        "maxTotalBytes": MAX_TOTAL_BYTES,
        "maxOutputTokensPerCall": MAX_OUTPUT_TOKENS,
    },
    "credits": {"base": BASE, "perImage": PER_IMAGE},
}


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("extract_image", __name__)

    @routes.get("/api/v1/extract-image")
    @describe(
        "Formats, limits, prices",
        tag="Extract",
        key="optional",
        answers=[ResponseSpec(status=200, what="What can be sent, and what it costs.", schema="Formats")],
    )
    def formats() -> Response:
        """Answers with the formats, limits and prices. A key and a query string are allowed but not needed."""
        optional_account(parts)
        return json_response(FORMATS)

    @routes.post("/api/v1/extract-image")
    @describe(
        "Extract what a prompt asks for",
        tag="Extract",
        parameters=[PREFER, IDEMPOTENCY_KEY, REQUEST_SOURCE],
        bodies=BODIES,
        answers=[
            ResponseSpec(status=200, what="The result.", schema="Result", headers=REPLAYED),
            ACCEPTED,
        ],
        errors=[*OF_REQUESTS, "cancelled", "not_found", "results_expired", "no_waiting_place", *OF_IMAGES],
        error_headers=REPLAYED,
    )
    def extract() -> Response:
        """Answers with the result if the job ends in time, else with the job."""
        account = authenticate(parts)
        prefer = preference(request.headers.get("Prefer"), parts.settings.sync_wait)
        applied = {"Preference-Applied": prefer.applied} if prefer.applied else {}
        seconds = 0.0 if is_upload(request) else prefer.seconds  # an upload is answered at once
        with waiting_place(parts, account, needed=seconds > 0), ExitStack() as watching:
            watches: list[Watch] = []

            def watch(job: str) -> None:
                if seconds > 0:
                    watches.append(watching.enter_context(parts.signals.watch(job, end_only=True)))

            accepted = accept(parts, account, waited=seconds > 0, made=watch)
            read_rate(parts)
            if accepted.replayed:
                applied["Idempotent-Replayed"] = "true"
            try:
                found = _Found(account)
                watched = watches[0] if watches else None
                gone = partial(hung_up, request.environ)
                if seconds > 0 and wait_for_end(
                    parts, accepted.job, seconds, gone, _held(parts, accepted), watched=watched, read=found.read, take=found.take
                ):
                    return _answer(found.view, applied)
            except PartError:
                log.warning("job_not_seen", job=accepted.job, exc_info=True)
                return unseen_answer(accepted, applied)
            return accepted_answer(parts, account, accepted, applied)

    return routes


def _held(parts: WebParts, accepted: Accepted) -> HeldJob | None:
    """The job, if this request may end it when the model can't be asked.

    A request that is sent again may end only a job that a waiting request has made. Its own job may be one that nobody waits for.
    """
    if accepted.replayed:
        with parts.database.read() as connection:
            if not is_waited(connection, accepted.job):
                return None
    return HeldJob(parts, accepted.job)


class _Found:
    """Takes the answer that the job's worker sends, or reads it with the status, so that the end of a job is read in one statement."""

    def __init__(self, account: str) -> None:
        self._account = account
        self.view: AnswerView | None = None  #: as it was last read; None: the job is gone

    def take(self, success: Success) -> None:
        """Takes what the worker has sent."""
        self.view = AnswerView(
            status=JobStatus.SUCCEEDED,
            succeeded=success.images,
            credits=success.credits,
            expired=False,
            error_code=None,
            error_message=None,
            result=ResultView(prompt=success.prompt, result=success.result, failures=(), custom_ids={}),
        )

    def read(self, connection: Connection, job: str) -> JobStatus | None:
        """The status of the job. None if it is gone."""
        self.view = answer_view(connection, job, self._account)
        return self.view.status if self.view else None


def _answer(view: AnswerView | None, headers: dict[str, str]) -> Response:
    """Answers a finished job with the compatible body, or raises ApiError for a job without a result."""
    if view is None:
        raise ApiError(404, "not_found", "The job is gone.")
    if view.expired:
        raise ApiError(410, "results_expired", "The results of this job have expired.", headers)
    if view.status is JobStatus.CANCELLED and not view.succeeded:
        raise ApiError(409, "cancelled", "The job was cancelled before any image was processed.", headers)
    if view.status is JobStatus.FAILED:
        message = view.error_message or "no image could be processed"
        if is_input_fault(view.error_code):
            raise ApiError(400, view.error_code or "failed", message, headers)
        raise ApiError(500, view.error_code or "failed", f"Failed to extract image data: {message}", headers)
    return json_response(result_json(view, view.result), 200, headers)
