"""Following a job that was answered with 202, and ending it early."""

from __future__ import annotations

from functools import partial

import structlog
from flask import Blueprint, Response, request

from api.auth import authenticate
from api.errors import ApiError, json_response
from api.openapi import Answer, describe
from api.openapi_shared import WAIT
from api.patience import hung_up
from api.waiting import wait_for_end, waiting_place
from api.wiring import Parts
from pipeline.types import JobStatus
from storage import closing, steps
from storage.render import job_json, result_json
from storage.views import JobView, job_view, result_view

log = structlog.get_logger(__name__)


def blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("jobs", __name__)

    @routes.get("/api/v1/jobs/<job>")
    @describe(
        "A job",
        tag="Jobs",
        parameters=[WAIT],
        answers=[Answer(status=200, what="The job as it is now.", schema="Job", headers=("Retry-After",))],
        errors=["not_found", "invalid_wait", "no_waiting_place"],
    )
    def show(job: str) -> Response:
        """The job; with `wait` as soon as it has ended, or after so many seconds."""
        account = authenticate(parts)
        view = _own(parts, job, account)
        seconds = min(_seconds(request.args.get("wait")), parts.settings.sync_wait)
        if seconds and not view.status.ended:
            with waiting_place(parts, needed=True):
                wait_for_end(parts, job, seconds, partial(hung_up, request.environ))
            view = _own(parts, job, account)
        headers = {} if view.status.ended else {"Retry-After": "2"}
        return json_response(job_json(view), 200, headers)

    @routes.get("/api/v1/jobs/<job>/results")
    @describe(
        "The results of a job",
        tag="Jobs",
        answers=[Answer(status=200, what="What the compatible endpoint would have answered with.", schema="Result")],
        errors=["not_found", "not_finished", "results_expired"],
    )
    def results(job: str) -> Response:
        """What the compatible endpoint would have answered with."""
        view = _own(parts, job, authenticate(parts))
        if not view.status.ended:
            raise ApiError(409, "not_finished", f"The job is {view.status.value}; its results come when it has ended.")
        if view.expired:
            raise ApiError(410, "results_expired", "The results of this job have expired.")
        with parts.database.read() as connection:
            return json_response(result_json(view, result_view(connection, job)))

    @routes.post("/api/v1/jobs/<job>/cancel")
    @describe(
        "Cancel a job",
        tag="Jobs",
        answers=[Answer(status=200, what="The job, cancelled.", schema="Job")],
        errors=["not_found", "already_ended"],
    )
    def cancel(job: str) -> Response:
        """Ends the job now, with what it has. What is under way is not waited for, and changes nothing any more."""
        account = authenticate(parts)
        _own(parts, job, account)
        with parts.database.write() as connection:
            cancelled = closing.cancel(connection, job)
            rings = steps.to_ring(connection, beside=job) if cancelled else []
        parts.signals.ring(rings)
        if cancelled:
            log.info("job_cancelled", job=job)
            parts.signals.tell(job)
        view = _own(parts, job, account)
        if view.status is not JobStatus.CANCELLED:
            raise ApiError(409, "already_ended", f"The job has ended already: it is {view.status.value}.")
        return json_response(job_json(view))

    return routes


def _own(parts: Parts, job: str, account: str) -> JobView:
    """The job, if it is the caller's: somebody else's and none at all look the same."""
    with parts.database.read() as connection:
        view = job_view(connection, job, account)
    if view is None:
        raise ApiError(404, "not_found", "There is no such job.")
    return view


def _seconds(text: str | None) -> float:
    if text is None or text == "":
        return 0.0
    if not text.isascii() or not text.isdigit():
        raise ApiError(400, "invalid_wait", "wait must be a whole number of seconds.")
    return float(text)
