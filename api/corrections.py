"""PATCH /api/v1/jobs/<job>/items/<index>: corrects a record, and marks an image as checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from flask import Blueprint, Response, g, request

from api.accept import account_full
from api.auth import authenticate
from api.errors import ApiError, json_response
from api.job_actions import gone_is_404
from api.json_body import read_object
from api.openapi.building import text
from api.openapi.document import Parameter, ResponseSpec, describe
from api.openapi.error_codes import OF_BODIES
from api.paging import asked_item, own_job
from api.render import item_json
from api.wiring import WebParts
from pipeline.job_object import JobView
from pipeline.records.corrections import WrongPointer, differences, with_changes
from pipeline.records.validate import compile_schema
from pipeline.types import Form
from storage.account.keys import key_label
from storage.job import corrections
from storage.job.corrections import Correctable
from storage.job.listing import items_page, question_of_job
from storage.job.stored import StoredFull

log = structlog.get_logger(__name__)

KNOWN = frozenset({"record", "changes", "checked", "revision"})
MOST_CHANGES = 200  #: that are kept of an image, the newest
TRIES = 3  #: for a request that names no revision, if others change the same image


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("corrections", __name__)

    @routes.patch("/api/v1/jobs/<job>/items/<item>")
    @describe(
        "Correct the record of an image, or mark it as checked",
        tag="Jobs",
        parameters=[
            Parameter(
                name="If-Match",
                place="header",
                schema=text(),
                what="The `revision` that is changed, in place of the body's member.",
            )
        ],
        bodies={"application/json": "Correction"},
        answers=[ResponseSpec(status=200, what="The image with its `corrections`.", schema="Item")],
        errors=[
            "not_found",
            "not_finished",
            "results_expired",
            "no_records",
            "invalid_json",
            "correction_invalid",
            "correction_conflict",
            "account_full",
            *OF_BODIES,
        ],
    )
    def patch(job: str, item: str) -> Response:
        """Keeps a corrected record beside the model's own, which stays as it is, with who changed what and when."""
        account = authenticate(parts)
        view = own_job(parts, job, account)
        index = asked_item(view, item)
        body = read_object(parts, account)
        revision = _checked_body(body)
        fault_of = _check_of(parts, view)
        with parts.database.read() as connection:
            who = key_label(connection, g.key)
        tries = TRIES if revision is None else 1
        for left in reversed(range(tries)):
            with parts.database.read() as connection:
                before = corrections.correctable(connection, job, index)
            if before is None:
                raise ApiError(404, "not_found", "The job has no such image.")
            if revision is not None and revision != before.revision:
                raise _conflict(before.revision)
            after = _corrected(before, body, who, fault_of)
            try:
                _put(parts, view, index, before, after)
            except corrections.Conflict:
                if not left:
                    raise _conflict(None) from None
            else:
                break
        log.info("record_corrected", job=job)
        with parts.database.read() as connection:
            [shown] = items_page(connection, view, limit=1, after=index - 1)
        return json_response(item_json(shown))

    return routes


def _checked_body(body: Mapping[str, Any]) -> int | None:
    """The revision that the request names. Raises ApiError."""
    wrong = ""
    if unknown := sorted(set(body) - KNOWN):
        wrong = f"{unknown[0][:100]!r} is unknown; there are {', '.join(sorted(KNOWN))}."
    elif not set(body) & {"record", "changes", "checked"}:
        wrong = "Send record, changes or checked."
    elif not isinstance(body.get("checked", False), bool):
        wrong = "checked must be true or false."
    elif not isinstance(body.get("changes", {}), dict):
        wrong = 'changes must be an object such as {"/total": 12.5}.'
    given = request.headers.get("If-Match", "").strip().removeprefix("W/").strip('"')
    revision = body.get("revision")
    if revision is None and given.isascii() and given.isdigit() and len(given) < 10:
        revision = int(given)
    elif (revision is None and given not in {"", "*"}) or isinstance(revision, bool) or not isinstance(revision, int | None):
        wrong = wrong or "revision must be the whole number that corrections has."
    if wrong:
        raise ApiError(400, "correction_invalid", wrong)
    return revision


def _check_of(parts: WebParts, view: JobView) -> Any:
    """The check of the job's records, None if it has no schema. Raises ApiError if the job has no records to correct."""
    if not view.status.ended:
        raise ApiError(409, "not_finished", f"The job is {view.status.value}; its records can be corrected when it has ended.")
    if view.expired:
        raise ApiError(410, "results_expired", "The results of this job have expired.")
    with parts.database.read() as connection:
        question = question_of_job(connection, view.id)
    if question is None:
        raise ApiError(404, "not_found", "There is no such job.")
    if question.form is not Form.RECORDS or not view.has_result:
        text = 'The answers of this job are merged, or it has none: only with "granularity": "perImage" has each image a record.'
        raise ApiError(409, "no_records", text)
    return compile_schema(question.schema) if question.schema is not None else None


def _corrected(before: Correctable, body: Mapping[str, Any], who: str, fault_of: Any) -> dict[str, Any]:
    """The corrections after the request, as `storage.job.corrections.put` stores them. Raises ApiError."""
    kept = before.corrections or {"changes": [], "checked": False, "checkedAt": None, "checkedBy": None}
    current = kept.get("record", before.result)
    after = {name: value for name, value in kept.items() if name != "record"}
    record = body.get("record", current)
    try:
        record = with_changes(record, body.get("changes", {}))
    except WrongPointer as wrong:
        raise ApiError(400, "correction_invalid", str(wrong)) from None
    if ("record" in body or "changes" in body) and fault_of is not None and (fault := fault_of(record)):
        raise ApiError(400, "correction_invalid", f"The record does not fit the job's schema: {fault}")
    changes = [
        {"pointer": pointer, "from": was, "to": now, "at": before.now, "by": who}
        for pointer, was, now in differences(current, record)
    ]
    after["changes"] = [*kept["changes"], *changes][-MOST_CHANGES:]
    if next(differences(before.result, record), None) is not None:
        after["record"] = record
    if "checked" in body:
        is_checked = body["checked"]
        after |= {
            "checked": is_checked,
            "checkedAt": before.now if is_checked else None,
            "checkedBy": who if is_checked else None,
        }
    return after


def _put(parts: WebParts, view: JobView, index: int, before: Correctable, after: Mapping[str, Any]) -> None:
    try:
        with gone_is_404(), parts.database.write() as connection:
            corrections.put(
                connection,
                view.id,
                index,
                after,
                revision=before.revision,
                finished_at=view.finished_at,
                most=parts.settings.max_stored_bytes,
            )
    except StoredFull:
        raise account_full(parts) from None


def _conflict(revision: int | None) -> ApiError:
    now = f" Its revision is {revision}." if revision is not None else ""
    return ApiError(409, "correction_conflict", f"Somebody else has changed this image meanwhile.{now} Read it again.")
