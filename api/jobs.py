"""Makes a job, lists jobs, and shows a job."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response, request

from api.accept import accept, accepted_answer
from api.auth import authenticate
from api.errors import ApiError, json_response
from api.openapi.building import text
from api.openapi.document import Parameter, ResponseSpec, describe
from api.openapi.error_codes import OF_REQUESTS
from api.openapi.shared import ACCEPTED, BODIES, IDEMPOTENCY_KEY, REQUEST_SOURCE, WAIT
from api.paging import (
    asked,
    asked_limit,
    asked_place,
    asked_status,
    asked_text,
    asked_time,
    cursor_of,
    list_parameters,
    own_job,
)
from api.patience import hung_up
from api.waiting import wait_for_end, waiting_place
from api.wiring import WebParts
from pipeline.job_object import job_json
from pipeline.request.fields import LONGEST_BATCH, LONGEST_NAME
from pipeline.types import JobStatus
from storage.job.listing import JobFilter, jobs_page

DEFAULT_LIMIT, MOST_JOBS = 20, 100
STATUSES = [status.value for status in JobStatus]


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("jobs", __name__)

    @routes.post("/api/v1/jobs")
    @describe(
        "Make a job",
        tag="Jobs",
        parameters=[IDEMPOTENCY_KEY, REQUEST_SOURCE],
        bodies=BODIES,
        answers=[ACCEPTED],
        errors=[*OF_REQUESTS, "not_found"],
    )
    def create() -> Response:
        """Makes a job like the compatible POST, but answers at once."""
        account = authenticate(parts)
        accepted = accept(parts, account, waited=False)
        return accepted_answer(parts, account, accepted, {"Idempotent-Replayed": "true"} if accepted.replayed else {})

    @routes.get("/api/v1/jobs")
    @describe(
        "The account's jobs",
        tag="Jobs",
        parameters=[
            *list_parameters(STATUSES, DEFAULT_LIMIT, MOST_JOBS),
            Parameter(name="q", schema=text(), what="Show only those whose `name`, `id` or `batch` has this text in it."),
            Parameter(name="batch", schema=text(), what="Show only those with this `batch`."),
            Parameter(name="from", schema=text(), what="Show only those made on this day or later, or at this time: RFC 3339."),
            Parameter(name="to", schema=text(), what="Show only those made before this day, or time."),
        ],
        answers=[ResponseSpec(status=200, what="Newest first.", schema="JobList")],
        errors=["invalid_status", "invalid_limit", "invalid_cursor", "invalid_filter", "invalid_time"],
    )
    def index() -> Response:
        """Answers with the account's jobs, newest first."""
        account = authenticate(parts)
        status, limit, place = asked_status(STATUSES), asked_limit(DEFAULT_LIMIT, MOST_JOBS), asked_place(int, str)
        wanted = JobFilter(
            status=JobStatus(status) if status else None,
            batch=asked_text("batch", LONGEST_BATCH),
            search=asked_text("q", LONGEST_NAME),
            begin=asked_time("from"),
            end=asked_time("to"),
        )
        with parts.database.read() as connection:
            found = jobs_page(
                connection,
                account,
                limit=limit + 1,
                wanted=wanted,
                after=(place[0], place[1]) if place else None,
            )
        shown = found[:limit]
        following = cursor_of(shown[-1].created_at, shown[-1].id) if len(found) > limit else None
        return json_response({"jobs": [job_json(view) for view in shown], "nextCursor": following})

    @routes.get("/api/v1/jobs/<job>")
    @describe(
        "A job",
        tag="Jobs",
        parameters=[WAIT],
        answers=[ResponseSpec(status=200, what="The job as it is now.", schema="Job", headers=("Retry-After",))],
        errors=["not_found", "invalid_wait", "no_waiting_place"],
    )
    def show(job: str) -> Response:
        """Answers with the job. With `wait`, answers when the job has ended or after that many seconds."""
        account = authenticate(parts)
        view = own_job(parts, job, account)
        seconds = min(_seconds(asked("wait")), parts.settings.sync_wait)
        if seconds and not view.status.ended:
            with waiting_place(parts, account, needed=True):
                wait_for_end(parts, job, seconds, partial(hung_up, request.environ))
            view = own_job(parts, job, account)
        headers = {} if view.status.ended else {"Retry-After": "2"}
        return json_response(job_json(view), 200, headers)

    return routes


def _seconds(text: str) -> float:
    if text == "":
        return 0.0
    if not text.isascii() or not text.isdigit():
        raise ApiError(400, "invalid_wait", "wait must be a whole number of seconds.")
    return float(text)
